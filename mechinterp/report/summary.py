"""What a result says, in plain words: which input tokens drive each output.

A phrase is a tuple of pieces, so that a page and a terminal can each set tokens and numbers in
their own way; `plain` joins them.

    plain(sentence(reading, reading.rows[0]))
    # ␣Mary is driven by ␣Mary +7.9 nats and ␣gave +1.2; ␣John@10 holds it back, −2.4.
"""

from dataclasses import dataclass
from typing import Literal

from mechinterp.report.numbers import NumberFormat, percent
from mechinterp.report.reading import Reading, Row
from mechinterp.report.tokens import show

_SMALLEST_SHARE = 0.05
_MOST_SUPPORTS, _MOST_OPPOSES = 3, 2


@dataclass(frozen=True)
class Piece:
    """Some words, a token made printable, or a number."""

    text: str
    kind: Literal["words", "token", "number"] = "words"


Phrase = tuple[Piece, ...]


def headline(reading: Reading) -> Phrase:
    """The strongest link between an input token and an output, and what hangs on it."""
    links = [(row, row.order[0]) for row in reading.rows if row.n_ranked]
    if not links or reading.largest == 0:
        return (Piece("No input token has any effect on the outputs."),)
    row, index = max(links, key=lambda link: abs(link[0].scores[link[1]]))
    verb = " supports the output " if row.scores[index] > 0 else " works against the output "
    share = percent(row.shares[index])
    end = "; without it, the model's top token there is another." if row.n_flips[index] else "."
    return (
        Piece("The strongest link: "),
        *_input(reading, index),
        Piece(verb),
        Piece(show(row.token), "token"),
        Piece(" by "),
        Piece(_number(reading, row.scores[index], unit=reading.unit), "number"),
        Piece(f", {share} of all effects on that output{end}"),
    )


def sentence(reading: Reading, row: Row) -> Phrase:
    """The tokens that drive one output and those that hold it back, each with its score."""
    name = Piece(show(row.token), "token") if row.token else Piece("The mean over outputs")
    ranked = [index for index in row.order if row.ranks[index] is not None]
    large = [index for index in ranked if row.shares[index] >= _SMALLEST_SHARE]
    supports = [index for index in large if row.scores[index] > 0][:_MOST_SUPPORTS]
    opposes = [index for index in large if row.scores[index] < 0][:_MOST_OPPOSES]
    if not supports and not opposes:
        return (name, Piece(" is driven by no token in particular."))
    words: list[Piece] = [name]
    if supports:
        words += [Piece(" is driven by "), *_listed(reading, row, supports)]
    if opposes:
        words += [Piece("; held back by " if supports else " is held back by ")]
        words += _listed(reading, row, opposes)
    return (*words, Piece("."))


def plain(phrase: Phrase) -> str:
    """The phrase as one string."""
    return "".join(piece.text for piece in phrase)


def _listed(reading: Reading, row: Row, indices: list[int]) -> list[Piece]:
    words: list[Piece] = []
    for place, index in enumerate(indices):
        if place:
            words.append(Piece(" and " if place == len(indices) - 1 else ", "))
        unit = "" if place else reading.unit
        number = Piece(_number(reading, row.scores[index], unit=unit), "number")
        words += [*_input(reading, index), Piece(" "), number]
    return words


def _input(reading: Reading, index: int) -> tuple[Piece, ...]:
    found = reading.inputs[index]
    token = Piece(show(found.token), "token")
    return (token, Piece(f" (position {found.pos})")) if found.repeated else (token,)


def _number(reading: Reading, score: float, *, unit: str) -> str:
    return f"{NumberFormat.of(reading.largest)(score)} {unit}".rstrip()
