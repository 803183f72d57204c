"""The inputs of a result, which may be tokens, words or spans, and the prompt that they make up.

inputs = read_inputs(scores)
for segment in segments(scores, inputs):    # neighbouring tokens of one input, in order
    print(segment.text, inputs[segment.index].label)
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

_LONGEST_RUN = 24  # characters of the prompt that are kept on one line


@dataclass(frozen=True)
class Input:
    """One unit of the model's input: a token, or several that were removed together.

    `number`: its label in the result. `name`: the user's, where it is not the text. `where`: its
    positions in the prompt. `repeated`: another unit has the same label. `token_id`: -1 of several.
    """

    number: int
    token: str
    name: str
    token_id: int
    role: str
    where: str
    repeated: bool

    @property
    def label(self) -> str:
        """Its name, else its text."""
        return self.name or self.token


@dataclass(frozen=True)
class Segment:
    """Neighbouring tokens of the prompt that belong to one input; `index`: which one, if any."""

    tokens: tuple[str, ...]
    index: int | None
    role: str

    @property
    def text(self) -> str:
        """Its tokens as one text."""
        return "".join(self.tokens)


def read_inputs(scores: xr.DataArray) -> tuple[Input, ...]:
    """The inputs along the axis of the scores."""
    numbers = [int(number) for number in scores["input"].values]
    tokens = [str(token) for token in scores["input_token"].values]
    named = scores["input_name"].values if "input_name" in scores.coords else tokens
    names = ["" if str(n) == t else str(n) for n, t in zip(named, tokens, strict=True)]
    times = Counter(name or token for name, token in zip(names, tokens, strict=True))
    positions = _positions(scores, numbers)
    ids, roles = scores["input_token_id"].values, scores["input_role"].values
    return tuple(
        Input(
            number,
            tokens[i],
            names[i],
            int(ids[i]),
            str(roles[i]),
            _listed(positions[i]),
            times[names[i] or tokens[i]] > 1,
        )
        for i, number in enumerate(numbers)
    )


def segments(scores: xr.DataArray, inputs: Sequence[Input]) -> tuple[Segment, ...]:
    """The prompt in order, each token once; the inputs, if the result does not hold the prompt."""
    index = {found.number: i for i, found in enumerate(inputs)}
    tokens, units = _prompt(scores)
    if not tokens:
        return tuple(Segment((found.token,), i, found.role) for i, found in enumerate(inputs))
    runs = itertools.groupby(zip(units, tokens, strict=True), key=lambda pair: pair[0])
    return tuple(
        Segment(
            tuple(token for _, token in run),
            index.get(unit),
            inputs[index[unit]].role if unit in index else "text",
        )
        for unit, run in runs
    )


def are_words(shown: Sequence[Segment]) -> bool:
    """Whether the tokens are words without the spaces between them, as a toy's are."""
    texts = [token for segment in shown if segment.role == "text" for token in segment.tokens]
    return len(texts) > 1 and all(t.isascii() and t.replace("_", "").isalnum() for t in texts)


def unbroken(shown: Sequence[Segment]) -> list[list[int]]:
    """Indices of the segments in runs that one line should hold: a word and what clings to it.

    A segment that breaks the line is a run of its own.
    """
    runs: list[list[int]] = []
    n_chars = 0
    for index, segment in enumerate(shown):
        previous = shown[index - 1] if index else segment
        clings = not segment.text.startswith(" ") and segment.role == previous.role == "text"
        breaks = "\n" in segment.text or "\n" in previous.text
        n_chars += len(segment.text)
        if runs and clings and not breaks and n_chars <= _LONGEST_RUN:
            runs[-1].append(index)
        else:
            runs.append([index])
            n_chars = len(segment.text)
    return runs


def fits_a_line(run: Sequence[int], shown: Sequence[Segment]) -> bool:
    """Whether a run is kept on one line: it is short and has no new line in it."""
    texts = [shown[index].text for index in run]
    return sum(map(len, texts)) <= _LONGEST_RUN and "\n" not in "".join(texts)


def _prompt(scores: xr.DataArray) -> tuple[list[str], list[int]]:
    """The tokens of the prompt and the input of each; empty if the result does not hold them."""
    tokens = [str(token) for token in scores.attrs.get("tokens", ())]
    units = [int(number) for number in scores.attrs.get("token_unit", ())]
    return (tokens, units) if len(tokens) == len(units) else ([], [])


def _positions(scores: xr.DataArray, numbers: Sequence[int]) -> list[list[int]]:
    """The positions of each input in the prompt; its number, if the result does not say."""
    found: dict[int, list[int]] = {number: [] for number in numbers}
    for pos, unit in enumerate(_prompt(scores)[1]):
        found.setdefault(unit, []).append(pos)
    if "input_first" in scores.coords:
        for i, number in enumerate(numbers):
            first, last = int(scores["input_first"].values[i]), int(scores["input_last"].values[i])
            found[number] = found[number] or list(range(first, last + 1))
    return [found[number] or [number] for number in numbers]


def _listed(positions: Sequence[int]) -> str:
    """Positions as runs: "7", "3–5", "2, 6–8"."""
    runs: list[list[int]] = []
    for pos in positions:
        if runs and pos == runs[-1][-1] + 1:
            runs[-1].append(pos)
        else:
            runs.append([pos])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs)
