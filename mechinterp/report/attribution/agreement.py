"""Two results of the same units side by side: how far they agree, and where they do not.

found = agreements(one, other)
found[0].spearman                  # of the first output
found[0].places[0].shown.label     # the input on which they disagree most
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mechinterp.core.printable import escape
from mechinterp.report.attribution.inputs import Input
from mechinterp.report.attribution.levels import Level, Scores, check_outputs, same_inputs, score_of
from mechinterp.report.attribution.read import Reading, Row, read_scores

_TOLD_BY = ("method", "removal", "metric", "model")


@dataclass(frozen=True)
class Place:
    """One input in two results: its scores, and its places from the most supporting one, 1."""

    shown: Input
    index: int
    one: float
    other: float
    place_in_one: float
    place_in_other: float

    @property
    def apart(self) -> float:
        """How many places lower it is in the other: negative if higher."""
        return self.place_in_other - self.place_in_one


@dataclass(frozen=True)
class Agreement:
    """The inputs that both score, farthest apart first. `spearman`: NaN if all are equal."""

    output: int | None
    token: str
    spearman: float
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Other:
    """A second result with its name, and how it agrees with the first, for each output."""

    name: str
    reading: Reading
    agreements: tuple[Agreement, ...]


@dataclass(frozen=True)
class Beside:
    """A result with others of the same units beside it."""

    level: Level
    name: str
    others: tuple[Other, ...]


def read_beside(levels: Sequence[Level], beside: Scores | Mapping[str, Scores]) -> Beside:
    """Each other result beside the level that has its units.

    Raises:
        ValueError: if no level has the units of all, or the outputs are others.
    """
    if isinstance(beside, xr.DataArray | xr.Dataset):  # a dataset is a mapping too
        beside = {"": beside}
    if not beside:
        raise ValueError("beside is empty: give at least one other result.")
    readings = {str(name): read_scores(score_of(result)) for name, result in beside.items()}
    first = next(iter(readings.values()))
    level = next((x for x in levels if same_inputs(x.reading.inputs, first.inputs)), None)
    if level is None:
        raise ValueError(
            f"beside has the units {_units(first)}, the scores have {_units(levels[0].reading)}: "
            "give a result of the same prompt and units."
        )
    for name, reading in readings.items():
        check_outputs(level.reading, [row.token for row in reading.rows], name or "beside")
        if not same_inputs(level.reading.inputs, reading.inputs):
            raise ValueError(f"beside, {name!r}: its units are {_units(reading)}, not the others'.")
    ours, *theirs = _names([level.reading, *readings.values()])
    return Beside(
        level,
        ours,
        tuple(
            Other(name or told, reading, agreements(level.reading, reading))
            for (name, reading), told in zip(readings.items(), theirs, strict=True)
        ),
    )


def agreements(one: Reading, other: Reading) -> tuple[Agreement, ...]:
    """For every output, and for the mean of all."""
    return tuple(
        _agreement(one.inputs, ours, theirs)
        for ours, theirs in zip(one.all_rows, other.all_rows, strict=True)
    )


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The rank correlation, ties at their mean rank; NaN if all scores of one are equal."""
    if len(one) < 2:
        return math.nan
    ours, theirs = _places(one), _places(other)
    spread = ours.std() * theirs.std()
    if spread == 0:
        return math.nan
    return float(((ours - ours.mean()) * (theirs - theirs.mean())).mean() / spread)


def _agreement(inputs: Sequence[Input], one: Row, other: Row) -> Agreement:
    scores = np.array([one.scores, other.scores])
    both = np.flatnonzero(np.isfinite(scores).all(0)).tolist()
    ours, theirs = _places(scores[0, both]), _places(scores[1, both])
    places = [
        Place(inputs[i], i, one.scores[i], other.scores[i], float(ours[n]), float(theirs[n]))
        for n, i in enumerate(both)
    ]
    places.sort(key=lambda place: -abs(place.apart))
    return Agreement(
        one.output, one.token, spearman(scores[0, both], scores[1, both]), tuple(places)
    )


def _places(scores: np.ndarray) -> np.ndarray:
    """The place of each from the highest, 1; ties share the mean of theirs."""
    _, inverse, times = np.unique(-scores, return_inverse=True, return_counts=True)
    last = times.cumsum()
    return np.asarray((last - (times - 1) / 2)[inverse])


def _names(readings: Sequence[Reading]) -> list[str]:
    """A name for each result: the attributes in which they differ."""
    told = [[str(r.attrs.get(key, "")) for r in readings] for key in _TOLD_BY]
    apart = [values for values in told if len(set(values)) > 1]
    return [
        escape(", ".join(values[i] for values in apart if values[i])) or f"result {i + 1}"
        for i in range(len(readings))
    ]


def _units(reading: Reading) -> str:
    labels = [found.label for found in reading.inputs]
    return repr(labels if len(labels) <= 6 else [*labels[:6], "…"])
