"""One question at several levels, such as sentences and words, between which a view switches.

for level in read_levels({"word": by_word, "token": by_token}):
    print(level.name, level.reading.largest)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from mechinterp.report.attribution.inputs import Input
from mechinterp.report.attribution.read import Reading, read_scores

Scores = xr.DataArray | xr.Dataset
"""A result of token attribution; of a dataset, its `score` is shown."""

_PLURAL = {kind: f"{kind}s" for kind in ("token", "word", "sentence", "part", "span")}


@dataclass(frozen=True)
class Level:
    """A result, and what its inputs are called, such as "words"."""

    name: str
    reading: Reading


def score_of(result: Scores) -> xr.DataArray:
    """The scores of a result.

    Raises:
        ValueError: if a dataset has none.
    """
    if isinstance(result, xr.DataArray):
        return result
    if "score" not in result:
        raise ValueError(
            f"the dataset has no 'score' to show, only {', '.join(map(str, result.data_vars))}."
        )
    return result["score"]


def listed(scores: Scores | Mapping[str, Scores] | Sequence[Scores]) -> dict[str, Scores]:
    """The results by name: the names of a mapping, else what the inputs of each are called."""
    if isinstance(scores, xr.DataArray | xr.Dataset):
        return {"": scores}
    if isinstance(scores, Mapping):
        return {_PLURAL.get(str(name), str(name)): result for name, result in scores.items()}
    found = [_names(read_scores(score_of(result))) for result in scores]
    best = [names[0] for names in found]
    named: dict[str, Scores] = {}
    for (name, count), result in zip(found, scores, strict=True):
        apart = name if best.count(name) == 1 else count
        named[apart if apart not in named else f"{apart} ({len(named) + 1})"] = result
    return named


def read_levels(
    scores: Scores | Mapping[str, Scores] | Sequence[Scores],
) -> tuple[Level, ...]:
    """Each result with its name, in the order given.

    Raises:
        ValueError: if there is none, they are of other outputs, or as `read_scores`.
    """
    levels = tuple(
        Level(name, read_scores(score_of(result))) for name, result in listed(scores).items()
    )
    if not levels:
        raise ValueError("there are no scores to show: give at least one result.")
    for level in levels[1:]:
        check_outputs(levels[0].reading, [row.token for row in level.reading.rows], level.name)
    return levels


def check_outputs(reading: Reading, theirs: Sequence[str], name: str) -> None:
    """Check that another result has the outputs of this one.

    Raises:
        ValueError: if it has others, naming both.
    """
    ours = [row.token for row in reading.rows]
    if ours != list(theirs):
        raise ValueError(
            f"{name!r} is of the outputs {list(theirs)}, not {ours}: show results of one question."
        )


def where_at(levels: Sequence[Level], number: int, token: str) -> str:
    """The positions of an input, looked up by number and text at all levels; else its number."""
    for level in levels:
        for found in level.reading.inputs:
            if (found.number, found.token) == (number, token):
                return found.where
    return str(number)


def same_inputs(one: Sequence[Input], other: Sequence[Input]) -> bool:
    """Whether two results have the same units."""
    return [(i.number, i.token) for i in one] == [(i.number, i.token) for i in other]


def _names(reading: Reading) -> tuple[str, str]:
    """What the attributed inputs are called, and how many there are."""
    scored = {i for row in reading.rows for i, rank in enumerate(row.ranks) if rank is not None}
    count = f"{len(scored)} inputs"
    if units := reading.attrs.get("units"):
        return _PLURAL.get(str(units), str(units)), count
    lengths = {sum(len(s.tokens) for s in reading.segments if s.index == i) for i in scored}
    return "tokens" if lengths == {1} else count, count
