"""Pairs of inputs that were removed together, as a view shows them: largest first.

found = read_interactions(dataset)
found.rows[0].pairs[0].interaction     # of the first output, the largest in size
meaning(-4.2, found.least)             # "stand in for each other"
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mechinterp.report.attribution.inputs import Input
from mechinterp.report.attribution.read import Reading, read_scores
from mechinterp.stats.additivity import notable_effect

SIGN = (
    "Alone and alone, less both together. Negative: each stands in for the other (redundancy). "
    "Positive: they need each other (synergy)."
)
ADD_UP = "add up"
STAND_IN = "stand in for each other"
NEED = "need each other"

_NOTHING = 0.05  # of the largest effect, that of all inputs too: less is not worth a word


@dataclass(frozen=True)
class Pair:
    """Two inputs: how far the output falls without the first, the second, and without both."""

    first: Input
    second: Input
    without_first: float
    without_second: float
    without_both: float
    interaction: float


@dataclass(frozen=True)
class PairRow:
    """All pairs for one output, or (`output` None) for the mean, and the same as a square."""

    output: int | None
    token: str
    pairs: tuple[Pair, ...]
    square: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Interactions:
    """The inputs that were tried in pairs, and what came out. `largest`: |interaction|.

    `scale`: the largest number shown. `least`: an interaction of less is not worth a word; infinite
    where neither an input nor all of them have a notable effect on any output.
    """

    inputs: tuple[Input, ...]
    rows: tuple[PairRow, ...]
    largest: float
    scale: float
    least: float
    sign: str
    reading: Reading
    attrs: Mapping[str, object]


def read_interactions(found: xr.Dataset) -> Interactions:
    """The pairs of every output, and of the mean over outputs, by |interaction|.

    Raises:
        ValueError: if it is not a result of pair removals, or has no pair.
    """
    missing = [name for name in ("score", "single", "interaction") if name not in found]
    if missing or set(found["interaction"].dims) != {"output", "first", "second"}:
        raise ValueError(
            f"the interactions lack {missing or 'the dims output, first, second'}: give the "
            "dataset of attribute_pairs as it came."
        )
    reading = read_scores(found["score"])
    number = {unit.number: i for i, unit in enumerate(reading.inputs)}
    chosen = [number[int(n)] for n in found["first"].values]
    squares = np.asarray(found["interaction"].transpose("output", "first", "second").values)
    singles = np.asarray(found["single"].transpose("output", "input").values)[:, chosen]
    inputs = tuple(reading.inputs[i] for i in chosen)
    if not np.isfinite(squares).any():
        raise ValueError("the interactions are all NaN: there is no pair to show.")
    rows = [
        _row(inputs, squares[i], singles[i], row.output, row.token)
        for i, row in enumerate(reading.rows)
    ]
    if len(rows) > 1:
        rows.append(_row(inputs, squares.mean(0), singles.mean(0), None, ""))
    together = [pair.without_both for row in rows for pair in row.pairs]
    largest = float(np.nanmax(np.abs(squares)))
    scale = max(largest, *map(abs, singles.ravel().tolist()), *map(abs, together))
    joint = [abs(row.joint_effect) for row in reading.rows if math.isfinite(row.joint_effect)]
    alone = [abs(score) for row in singles.tolist() for score in row]
    is_notable = not joint or max([*joint, *alone]) >= notable_effect(reading.unit)
    return Interactions(
        inputs=inputs,
        rows=tuple(rows),
        largest=largest,
        scale=scale,
        least=_NOTHING * max([scale, *joint]) if is_notable else math.inf,
        sign=str(found.attrs.get("interaction_sign", SIGN)),
        reading=reading,
        attrs=dict(found.attrs),
    )


def meaning(interaction: float, least: float) -> str:
    """What an interaction says about two inputs; below `least` that they add up, if it is finite.

    Nothing where there is no effect to speak of: what adds up to nothing says nothing.
    """
    if not math.isfinite(interaction) or math.isinf(least):
        return ""
    if abs(interaction) < least or interaction == 0:
        return ADD_UP
    return STAND_IN if interaction < 0 else NEED


def _row(
    inputs: tuple[Input, ...],
    square: np.ndarray,
    single: np.ndarray,
    output: int | None,
    token: str,
) -> PairRow:
    pairs = [
        Pair(
            inputs[i],
            inputs[j],
            float(single[i]),
            float(single[j]),
            float(single[i] + single[j] - square[i, j]),
            float(square[i, j]),
        )
        for i, j in itertools.combinations(range(len(inputs)), 2)
        if math.isfinite(square[i, j])
    ]
    pairs.sort(key=lambda pair: -abs(pair.interaction))
    cells = tuple(tuple(float(value) for value in line) for line in square)
    return PairRow(output, token, tuple(pairs), cells)
