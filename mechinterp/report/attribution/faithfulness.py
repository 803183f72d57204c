"""How faithful methods are, as a view shows it: curves and figures for each removal.

One prompt (`faithfulness`) has curves and figures for each output, and for their mean; several
(`summarise`) have means with intervals.

    found = read_faithfulness(dataset)
    found.rows[0].panels[0].figures["leave-one-out"][0].value
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from mechinterp.core.printable import escape
from mechinterp.report.render.chart import Curve

CHANCE = ("random", "shuffled")
"""The baselines: scorers that know nothing of the prompt."""

_CURVES = ("most_first", "least_first")
_SINGLE = ("comprehensiveness", "sufficiency")
_EACH = {"lds": "keep", "drop_at_k": "k", "sufficiency_at_k": "k"}


@dataclass(frozen=True)
class Measure:
    """What is measured, such as "drop@3", in which unit, and which way is good."""

    name: str
    unit: str
    low_is_good: bool


@dataclass(frozen=True)
class Figure:
    """A number, its interval (NaN: none), and whether it is the best of all methods."""

    value: float
    low: float = math.nan
    high: float = math.nan
    is_best: bool = False


@dataclass(frozen=True)
class Panel:
    """One removal: a curve for each scorer, and for each its figures, one a measure."""

    removal: str
    most_first: tuple[Curve, ...]
    least_first: tuple[Curve, ...]
    figures: Mapping[str, tuple[Figure, ...]]


@dataclass(frozen=True)
class FaithfulRow:
    """All removals for one output, or (`output` None) for the mean over outputs or prompts."""

    output: int | None
    token: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Faithfulness:
    """The scorers and their figures; `n_prompts` is 0 for the curves of one prompt."""

    scorers: tuple[str, ...]
    measures: tuple[Measure, ...]
    rows: tuple[FaithfulRow, ...]
    unit: str
    n_prompts: int
    attrs: Mapping[str, object]

    @property
    def has_curves(self) -> bool:
        """Whether there is a curve to draw."""
        return any(panel.most_first for row in self.rows for panel in row.panels)

    @property
    def has_intervals(self) -> bool:
        """Whether figures have intervals."""
        return self.n_prompts > 0


def read_faithfulness(found: xr.Dataset) -> Faithfulness:
    """The result of `faithfulness` for one prompt, or of `summarise` for several.

    Raises:
        ValueError: if it is neither.
    """
    if {"mean", "low", "high", "n"} <= set(found.data_vars) and "measure" in found.dims:
        return _of_prompts(found)
    if {*_CURVES, *_SINGLE, *_EACH} <= set(found.data_vars) and "scorer" in found.dims:
        return _of_one(found)
    raise ValueError(
        f"faithfulness holds {', '.join(map(str, found.data_vars))}: give the dataset of "
        "faithfulness, for one prompt, or of summarise, for several."
    )


def _of_one(found: xr.Dataset) -> Faithfulness:
    unit = str(found.attrs.get("unit", ""))
    scorers = tuple(map(str, found["scorer"].values))
    measures = [
        *(Measure(name, unit, name == "sufficiency") for name in _SINGLE),
        *(
            Measure(
                f"{name.removesuffix('_at_k')}@{label:g}",
                "" if name == "lds" else unit,
                name == "sufficiency_at_k",
            )
            for name, dim in _EACH.items()
            for label in found[dim].values.tolist()
        ),
    ]
    tokens = [str(token) for token in found["output_token"].values]
    outputs: list[tuple[int | None, str, xr.Dataset]] = [
        (i, token, found.isel(output=i)) for i, token in enumerate(tokens)
    ]
    if len(outputs) > 1:
        outputs.append((None, "", _mean_over_outputs(found)))
    rows = tuple(
        FaithfulRow(
            output, token, tuple(_panel(part, r, scorers, measures) for r in _removals(found))
        )
        for output, token, part in outputs
    )
    return Faithfulness(scorers, tuple(measures), rows, unit, 0, dict(found.attrs))


def _removals(found: xr.Dataset) -> range:
    return range(found.sizes["removal"])


def _mean_over_outputs(found: xr.Dataset) -> xr.Dataset:
    """The mean of each number over the outputs that have it."""
    known = found.notnull().sum("output")
    numbers = found[[*_CURVES, *_SINGLE, *_EACH]]
    return numbers.sum("output", skipna=True) / known[list(numbers)].where(known[list(numbers)] > 0)


def _panel(
    part: xr.Dataset, removal: int, scorers: Sequence[str], measures: Sequence[Measure]
) -> Panel:
    here = part.isel(removal=removal)
    fractions = [0.0, *map(float, here["fraction"].values)]  # nothing removed: nothing falls
    order = np.argsort(fractions)
    curves = {
        name: tuple(
            Curve(
                escape(scorer),
                tuple(fractions[i] for i in order),
                tuple([0.0, *here[name].isel(scorer=s).values.tolist()][i] for i in order),
                is_chance=scorer in CHANCE,
            )
            for s, scorer in enumerate(scorers)
        )
        for name in _CURVES
    }
    columns = [here[name].transpose("scorer").values[:, None] for name in _SINGLE]
    columns += [here[name].transpose("scorer", dim).values for name, dim in _EACH.items()]
    table = np.concatenate(columns, axis=1)
    figures = {
        scorer: tuple(Figure(float(value)) for value in table[s])
        for s, scorer in enumerate(scorers)
    }
    return Panel(
        str(here["removal"].values),
        curves["most_first"],
        curves["least_first"],
        _with_best(figures, measures),
    )


def _of_prompts(found: xr.Dataset) -> Faithfulness:
    scorers = tuple(map(str, found["scorer"].values))
    units = [str(unit) for unit in found["unit"].values]
    measures = tuple(
        Measure(str(name), units[i], bool(found["low_is_good"].values[i]))
        for i, name in enumerate(found["measure"].values)
    )
    mean, low, high = (
        found[name].transpose("removal", "scorer", "measure").values
        for name in ("mean", "low", "high")
    )
    panels = tuple(
        Panel(
            str(removal),
            (),
            (),
            _with_best(
                {
                    scorer: tuple(
                        Figure(float(mean[r, s, m]), float(low[r, s, m]), float(high[r, s, m]))
                        for m in range(len(measures))
                    )
                    for s, scorer in enumerate(scorers)
                },
                measures,
            ),
        )
        for r, removal in enumerate(found["removal"].values)
    )
    unit = next((unit for unit in units if unit), "")
    n_prompts = int(found["n"].max())
    return Faithfulness(
        scorers, measures, (FaithfulRow(None, "", panels),), unit, n_prompts, dict(found.attrs)
    )


def _with_best(
    figures: Mapping[str, tuple[Figure, ...]], measures: Sequence[Measure]
) -> dict[str, tuple[Figure, ...]]:
    """The figures, with the best of several methods marked in each measure if it beats chance."""
    marked = {scorer: list(row) for scorer, row in figures.items()}
    methods = [scorer for scorer in figures if scorer not in CHANCE]
    for m, measure in enumerate(measures):
        known = [s for s in methods if math.isfinite(figures[s][m].value)]
        if len(known) > 1:
            pick = min if measure.low_is_good else max
            best = pick(figures[s][m].value for s in known)
            by_chance = [figures[s][m].value for s in figures if s in CHANCE]
            beaten = all(pick(best, c) == best != c for c in by_chance if math.isfinite(c))
            for s in known:
                if beaten and figures[s][m].value == best:
                    marked[s][m] = replace(figures[s][m], is_best=True)
    return {scorer: tuple(row) for scorer, row in marked.items()}
