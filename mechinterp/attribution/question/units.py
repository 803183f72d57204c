"""What is removed together: a `Unit` is a token, word, sentence, part of a chat or span of yours.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.attribution.question.units import units_of
>>> model = load_model("toy:trigger")
>>> prompts = tokenize(model, "please bring the sesame")
>>> [u.text for u in units_of(model, prompts, {"verb": "bring", "rest": (3, 4)}) if u.attributed]
['bring', 'thesesame']

The units of a prompt partition its positions. Those that are not attributed (the start token, the
template of a chat, tokens outside all spans) are single tokens.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mechinterp.attribution.question.boundaries import occurrences, unit_numbers
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.indices import is_index
from mechinterp.core.prompts import Prompts
from mechinterp.models.model import Model, require_model
from mechinterp.models.tokenization import tokens_are_words

Span = int | str | tuple[int, int]
"""A position; a text, which means all its occurrences; or (first, last) positions."""

Spans = Mapping[str, Span | Sequence[Span]]
"""Name -> the span or spans that are removed together under that name."""

KINDS = ("token", "word", "sentence", "part")
INPUTS = {
    "text": ("text",),
    "prompt": ("text", "bos", "template"),
    "sequence": ("text", "output"),
}
"""Which tokens are attributed, by role."""


@dataclass(frozen=True)
class Unit:
    """Positions that are removed together, with their text; `role` as in `Prompts`.

    `name`: yours, or by default the text.
    """

    name: str
    text: str
    positions: tuple[int, ...]
    role: str
    attributed: bool


@checks_arguments
def units_of(
    model: Model,
    prompts: Prompts,
    units: str | Spans = "token",
    inputs: str | Sequence[int] = "text",
    *,
    shown: int | None = None,
) -> tuple[Unit, ...]:
    """The units of one prompt in order, each position in exactly one.

    `units`: "token"; "word" and "sentence", by Unicode's rules in every script; "part" (runs of one
    role: the messages of a chat and the template between them); or spans by name. `inputs`: which
    are attributed: "text", the tokens that the user wrote; "prompt", also the start token and the
    template; "sequence", the text and the earlier outputs; or positions. `shown`: the least number
    of positions that the units cover (default: all).

    Raises:
        ValueError: if there is nothing to remove, a span is not found, or two spans overlap.
    """
    require_model(model)
    texts = list(prompts.token_text[0])
    allowed = allowed_positions(prompts, inputs)
    if shown is not None and not 0 <= shown <= len(texts):
        raise ValueError(f"shown={shown}: the prompt has {len(texts)} tokens.")
    shown = max(len(texts) if shown is None else shown, max(allowed) + 1)
    groups: list[tuple[tuple[int, ...], str]]
    if isinstance(units, str):
        if units not in KINDS:
            raise ValueError(f"units={units!r}: one of {', '.join(KINDS)}, or spans by name.")
        if model.tokenizer is None and units in ("word", "sentence"):
            raise ValueError(
                f"units={units!r}: this model has no tokenizer, so no text. Use spans."
            )
        groups = [
            (group, _text_of(texts, group))
            for group in _groups_by_kind(model, prompts, units, allowed)
        ]
    else:
        groups = _groups_by_name(texts, allowed, units)
    roles = prompts.roles[0]
    made = [
        Unit(name, _text_of(texts, group), group, roles[group[0]], attributed=True)
        for group, name in groups
    ]
    taken = set(itertools.chain.from_iterable(u.positions for u in made))
    rest = [
        Unit(texts[pos], texts[pos], (pos,), roles[pos], attributed=False)
        for pos in range(shown)
        if pos not in taken
    ]
    return tuple(sorted([*made, *rest], key=lambda unit: unit.positions[0]))


@checks_arguments
def find(texts: Sequence[str], allowed: Sequence[int], span: Span) -> list[int]:
    """The positions of a span; none if it is not found.

    A text means every token that equals it, and every run of tokens that spells it as whole words.
    """
    if isinstance(span, str):
        return find_text(texts, allowed, span)
    first, last = span if isinstance(span, tuple) else (span, span)
    # A file may ask for more positions than there is memory for.
    if bool in (type(first), type(last)) or last - first >= len(allowed):
        return []
    found = list(range(first, last + 1))
    return found if set(found) <= set(allowed) else []


def find_or_raise(
    texts: Sequence[str], allowed: Sequence[int], span: Span, what: str, where: str
) -> list[int]:
    """As `find`, but an error if the span is not found.

    Raises:
        ValueError: saying that `what` is not among `where`, and listing what is.
    """
    found = find(texts, allowed, span)
    if not found:
        shown = ", ".join(f"{j}: {texts[j]!r}" for j in allowed)
        raise ValueError(f"{what} {span!r} is not among {where} ({shown}).")
    return found


def find_text(texts: Sequence[str], allowed: Sequence[int], wanted: str) -> list[int]:
    """Positions of the tokens that equal a text, and of the runs of tokens that spell it."""
    word = wanted.strip()
    found = {j for j in allowed if texts[j].strip() == word}
    if not word:
        return sorted(found)
    starts = list(itertools.accumulate((len(t) for t in texts), initial=0))
    for begin, end in occurrences("".join(texts), word):
        found.update(j for j in allowed if starts[j] < end and begin < starts[j + 1])
    for j in allowed:  # the rest of a character
        if not texts[j] and j - 1 in found:
            found.add(j)
    return sorted(found)


def allowed_positions(prompts: Prompts, inputs: str | Sequence[int]) -> list[int]:
    """The positions of one prompt that are attributed; `inputs` as in `units_of`.

    Raises:
        ValueError: if there is none, or `inputs` is unknown.
    """
    if isinstance(inputs, str):
        if inputs not in INPUTS:
            raise ValueError(f"inputs={inputs!r}: one of {', '.join(INPUTS)}, or positions.")
        chosen = prompts.positions_of(*INPUTS[inputs])
    else:
        chosen = sorted({int(j) for j in inputs})
        for j in chosen:
            prompts.positions(j)
    if not chosen:
        raise ValueError("there is no input token to remove. Choose other inputs=...")
    return chosen


def _groups_by_kind(
    model: Model, prompts: Prompts, units: str, allowed: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """The positions of each unit; none spans tokens of two roles, or tokens not attributed."""
    if units == "token":
        yield from ((pos,) for pos in allowed)
        return
    texts, roles = prompts.token_text[0], prompts.roles[0]
    for run in _runs(allowed, roles):
        if units == "part":
            yield tuple(run)
        elif tokens_are_words(model):
            spaced = [texts[pos] if n == 0 else f" {texts[pos]}" for n, pos in enumerate(run)]
            yield from _split_run(run, spaced, units)
        else:
            yield from _split_run(run, [texts[pos] for pos in run], units)


def _runs(allowed: Sequence[int], roles: Sequence[str]) -> Iterator[list[int]]:
    run: list[int] = []
    for pos in allowed:
        if run and (pos != run[-1] + 1 or roles[pos] != roles[run[-1]]):
            yield run
            run = []
        run.append(pos)
    yield run


def _split_run(run: Sequence[int], texts: Sequence[str], units: str) -> Iterator[tuple[int, ...]]:
    """A run of tokens split where words or sentences begin.

    White space belongs to what follows it, but a new line is a word. A token that crosses a
    boundary belongs to the unit in which it begins.
    """
    starts = list(itertools.accumulate((len(text) for text in texts), initial=0))[:-1]
    unit: list[int] = []
    number = -1
    for pos, text, at in zip(run, texts, unit_numbers("".join(texts), starts, units), strict=True):
        if unit and text and at != number:
            yield tuple(unit)
            unit = []
        unit.append(pos)
        number = at if text else number  # no text: the rest of the previous character
    yield tuple(unit)


def _groups_by_name(
    texts: Sequence[str], allowed: Sequence[int], spans: Spans
) -> list[tuple[tuple[int, ...], str]]:
    if not spans:
        raise ValueError("units={} is empty: name at least one span.")
    owner: dict[int, str] = {}
    groups: list[tuple[tuple[int, ...], str]] = []
    for name, given in spans.items():
        positions: set[int] = set()
        for span in parse_spans(given):
            named = f"span {name!r}:"
            positions.update(find_or_raise(texts, allowed, span, named, "the tokens to remove"))
        for pos in positions:
            if pos in owner:
                raise ValueError(
                    f"spans {owner[pos]!r} and {name!r} both contain position {pos}, "
                    f"{texts[pos]!r}. Give each token to one span."
                )
            owner[pos] = name
        groups.append((tuple(sorted(positions)), name))
    return groups


def parse_spans(given: object) -> list[Span]:
    """The spans under one name, a span or several; two ints in a tuple are one, (first, last).

    Raises:
        ValueError: if it is not a span, or an empty list.
    """
    if _is_range(given) or isinstance(given, str) or is_index(given):
        return [_parse_span(given)]
    if not isinstance(given, Iterable):
        raise ValueError(f"{given!r} is not a span: give a text, a position or (first, last).")
    spans = [_parse_span(span) for span in given]
    if not spans:
        raise ValueError(f"{given!r} contains no span: give a text, a position or (first, last).")
    return spans


def _is_range(given: object) -> bool:
    if not isinstance(given, tuple) or len(given) != 2:
        return False
    return all(is_index(part) for part in given)


def _parse_span(span: object) -> Span:
    if isinstance(span, str):
        return span
    if is_index(span):
        return int(span)
    if isinstance(span, tuple) and _is_range(span):
        return int(span[0]), int(span[1])
    raise ValueError(f"{span!r} is not a span: give a text, a position or (first, last).")


def _text_of(texts: Sequence[str], group: tuple[int, ...]) -> str:
    """The text of the positions, with an ellipsis where they are not neighbours."""
    text = texts[group[0]]
    for before, pos in itertools.pairwise(group):
        text += texts[pos] if pos == before + 1 else f" … {texts[pos].strip()}"
    return text
