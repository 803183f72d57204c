"""What a result says, in plain words: what drives each output, and what the scores leave out.

A phrase is a tuple of pieces, so that a page and a terminal can each set tokens and numbers in
their own way; `plain` joins them.

    plain(sentence(reading, reading.rows[0]))
    # ␣Mary is driven by ␣Mary +7.9 nats and ␣gave +1.2; held back by ␣John −2.4 nats.
"""

import math
from collections.abc import Sequence

from mechinterp.report.attribution.read import Reading, RedundantGroup, Row
from mechinterp.report.render.numbers import NumberFormat, percent, times
from mechinterp.report.render.phrases import Phrase, Piece, plain
from mechinterp.report.render.support import side
from mechinterp.report.render.tokens import shorten, show

_SMALLEST_SHARE = 0.05
_MOST_SUPPORTS, _MOST_OPPOSES = 3, 2
_MOST_MEMBERS = 8


def headline(reading: Reading) -> Phrase:
    """The strongest link between an input and an output, and what hangs on it."""
    links = [(row, row.order[0]) for row in reading.rows if row.n_ranked]
    if not links or reading.largest == 0:
        return (Piece("No input has any effect on the outputs."),)
    row, index = max(links, key=lambda link: abs(link[0].scores[link[1]]))
    if abs(row.scores[index]) < reading.faint:
        return (Piece("No input alone has an effect to speak of on the outputs."),)
    is_support = side(row.scores[index], reading.supports) == "supports"
    verb = " supports the output " if is_support else " works against the output "
    if reading.is_distance:
        verb = " moves the prediction at the output "
    share = percent(row.shares[index])
    end = "; without it, the model's top token there is another." if row.n_flips[index] else "."
    return (
        Piece("The strongest link: "),
        *_input(reading, index),
        Piece(verb),
        Piece(shorten(show(row.token)), "token"),
        Piece(" by "),
        Piece(_number(reading, row.scores[index], unit=reading.unit), "number"),
        Piece(f", {share} of all effects on that output{end}"),
    )


def sentence(reading: Reading, row: Row) -> Phrase:
    """The inputs that drive one output and those that hold it back, each with its score."""
    name = Piece(shorten(show(row.token)), "token") if row.token else Piece("The mean over outputs")
    ranked = [index for index in row.order if row.ranks[index] is not None]
    large = [
        index
        for index in ranked
        if row.shares[index] >= _SMALLEST_SHARE and abs(row.scores[index]) >= reading.faint
    ]
    sides = {index: side(row.scores[index], reading.supports) for index in large}
    supports = [index for index in large if sides[index] == "supports"][:_MOST_SUPPORTS]
    opposes = [index for index in large if sides[index] == "against"][:_MOST_OPPOSES]
    if not supports and not opposes:
        return (name, Piece(" is driven by no input in particular."))
    words: list[Piece] = [name]
    if supports:
        words += [
            Piece(" is moved by " if reading.is_distance else " is driven by "),
            *_listed(reading, row, supports),
        ]
    if opposes:
        words += [Piece("; held back by " if supports else " is held back by ")]
        words += _listed(reading, row, opposes)
    return (*words, Piece("."))


def additivity(reading: Reading, row: Row) -> Phrase:
    """How much of what removing all inputs does the scores account for."""
    if row.output is None:
        return ()
    what, target = "removing all inputs at once", reading.target(row)
    if math.isfinite(row.baseline_score):
        what = "going from the baseline to the prompt"
    if not math.isfinite(target):
        return (
            Piece("Whether the scores add up is not known: not all inputs were removed at once."),
        )
    if not math.isfinite(reading.share(row)):
        return (Piece(f"{what.capitalize()} changes nothing that scores could add up to."),)
    share = times(reading.share(row))
    form = NumberFormat.of(max(reading.largest, abs(target)), extra=1)
    return (
        Piece("The scores add up to "),
        Piece(share, "number"),
        Piece(" of" if share.endswith("%") else ""),
        Piece(f" what {what} does: "),
        Piece(form(row.total), "number"),
        Piece(" of "),
        Piece(f"{form(target)} {reading.unit}".rstrip(), "number"),
        Piece("."),
    )


def redundancies(readings: Sequence[Reading]) -> list[Phrase]:
    """A warning for each group that stands in for itself, and for each output that hides one.

    The groups are those that pair removals found: in the `attrs` of their scores.
    """
    found: dict[str, Phrase] = {}
    warned: set[int | None] = set()
    for reading in readings:
        rows = {row.output: row for row in reading.rows}
        for group in reading.groups:
            if (row := rows.get(group["output"])) is not None:
                phrase = _of_group(reading, row, group)
                found[plain(phrase)] = phrase
                warned.add(row.output)
    for reading in readings:
        for row in reading.rows:
            if row.output not in warned and reading.shows_redundancy(row):
                found[str(row.output)] = _hidden(reading, row)
                warned.add(row.output)
        if found and reading.attrs.get("groups_complete") is False:
            found["stopped"] = _stopped(reading)
    return list(found.values())


def _of_group(reading: Reading, row: Row, group: RedundantGroup) -> Phrase:
    joint, parts = group["joint"], group["sum"]
    form = NumberFormat.of(max(abs(joint), abs(parts)))
    return (
        *_members(group),
        Piece(f" stand in for each other: removed together they {_moves(joint)} "),
        Piece(shorten(show(row.token)), "token"),
        Piece(" by "),
        Piece(f"{form(abs(joint))} {reading.unit}".rstrip(), "number"),
        *_share(group),
        Piece(", one at a time by "),
        Piece(form(abs(parts)), "number"),
        Piece(" in all."),
    )


def _members(group: RedundantGroup) -> list[Piece]:
    """The members in the order of the prompt; "a with b" are enough only together."""
    text = dict(zip(group["units"], group["texts"], strict=True))
    members = sorted(group.get("members", [[number] for number in group["units"]]))
    words: list[Piece] = []
    for place, member in enumerate(members[:_MOST_MEMBERS]):
        if place:
            words.append(Piece(" and " if place == len(members) - 1 else ", "))
        for number in member:
            words += [Piece(" with ")] if number != member[0] else []
            words.append(Piece(shorten(show(text[number])), "token"))
    n_more = len(members) - _MOST_MEMBERS
    return words if n_more <= 0 else [*words, Piece(f" and {n_more} more")]


def _share(group: RedundantGroup) -> list[Piece]:
    share = group.get("share")
    if share is None:
        return []
    said = times(share)
    of = " of" if said.endswith("%") else ""
    return [Piece(" ("), Piece(said, "number"), Piece(f"{of} what removing all inputs does)")]


def _stopped(reading: Reading) -> Phrase:
    return (
        Piece("The search for groups stopped after "),
        Piece(str(reading.attrs["group_sets"]), "number"),
        Piece(" sets of inputs, before it was done: there may be more, or larger ones."),
    )


def _hidden(reading: Reading, row: Row) -> Phrase:
    form = NumberFormat.of(row.joint_effect)
    return (
        Piece("Something stands in for what is removed: removing all inputs at once "),
        Piece(f"{_moves(row.joint_effect)}s "),
        Piece(shorten(show(row.token)), "token"),
        Piece(" by "),
        Piece(f"{form(abs(row.joint_effect))} {reading.unit}".rstrip(), "number"),
        Piece(", but the scores make only "),
        Piece(form(row.total_size), "number"),
        Piece(" in all. They miss it"),
        Piece(
            "; a larger group than was tried may hide it."
            if "groups" in reading.attrs
            else "; removing inputs in pairs shows it (--method pairs, or attribute_pairs)."
        ),
    )


def _moves(joint: float) -> str:
    """What several do together to the score."""
    return "lower" if joint > 0 else "raise"


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
    token = Piece(shorten(show(found.label)), "token")
    return (token, Piece(f" (position {found.where})")) if found.repeated else (token,)


def _number(reading: Reading, score: float, *, unit: str) -> str:
    return f"{NumberFormat.of(reading.largest)(score)} {unit}".rstrip()
