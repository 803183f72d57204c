"""A sweep's result as a view shows it: labelled axes, and ranked cells with intervals.

The page and the terminal both show a `CellGrid`. Prompts are averaged; from five prompts on, each
mean has an interval. Cells that are not finite were not computed and have no rank.

    grid = read_grid(result)
    place(grid, grid.ranked[0])       # layer 9, head 6
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from mechinterp import stats
from mechinterp.core.printable import escape
from mechinterp.report.render.numbers import NumberFormat, percent
from mechinterp.report.render.phrases import Phrase, Piece
from mechinterp.report.render.ranks import ranks_and_shares
from mechinterp.report.render.support import Sign, sign_sentence, states_support, supporting_sign
from mechinterp.report.render.tokens import show

FEWEST_PROMPTS = 5
"""Below this an interval is so wide that a view is clearer without it."""
_BASELINES = ("clean_score", "corrupt_score")


_ROUNDING = 1e-5
"""Values below this share of the largest count as 0."""


@dataclass(frozen=True)
class Axis:
    """A dimension: its name, the labels along it, and the tokens there (none if not positions)."""

    name: str
    labels: tuple[str, ...]
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """The mean at one place: `at` holds an index into each axis; `share` is of the sum of |mean|.

    Without an interval, `low` and `high` are NaN; without a finite value, `rank` is None.
    """

    at: tuple[int, ...]
    value: float
    low: float
    high: float
    rank: int | None
    share: float

    @property
    def has_interval(self) -> bool:
        """Whether both ends are there."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def excludes_zero(self) -> bool:
        """Whether it has an interval, and zero lies outside."""
        return self.has_interval and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class CellGrid:
    """All cells in the order of their axes; `n_prompts` is None if they were averaged before."""

    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    quantity: str
    unit: str
    n_prompts: int | None
    level: float
    baselines: Mapping[str, float]
    attrs: Mapping[str, object]

    @property
    def supports(self) -> Sign:
        """The sign of the values that support the behaviour."""
        return supporting_sign(self.attrs)

    @cached_property
    def ranked(self) -> list[Cell]:
        """The cells that have a value, by |value|."""
        known = [cell for cell in self.cells if cell.rank is not None]
        return sorted(known, key=lambda cell: cell.rank or 0)

    @cached_property
    def largest(self) -> float:
        """The largest |value|, where the colour scale ends."""
        return max((abs(cell.value) for cell in self.cells if cell.rank is not None), default=0.0)

    @cached_property
    def reach(self) -> float:
        """The largest |value| or end of an interval."""
        ends = (e for cell in self.cells if cell.has_interval for e in (cell.low, cell.high))
        return max((abs(end) for end in ends), default=0.0) or self.largest

    @cached_property
    def has_intervals(self) -> bool:
        """Whether any cell has one."""
        return any(cell.has_interval for cell in self.cells)


def read_grid(result: xr.DataArray) -> CellGrid:
    """Average the prompts and rank the cells of one to three dimensions.

    The interval is that of `stats.interval`, from five prompts on. Of a result without prompts it
    is in the coordinates `low` and `high`, if there:
    `found.set_coords(["low", "high", "n"])["mean"]`.

    Raises:
        ValueError: if there is nothing to show, or more than one page can: several metrics, more
            than three dimensions.
    """
    _check(result)
    n_prompts, found = _averaged(result)
    values = found["mean"].values.ravel().astype(float)
    ranks, shares = ranks_and_shares(values)
    places = np.ndindex(found["mean"].shape)
    low, high = (found[name].values.ravel().tolist() for name in ("low", "high"))
    cells = map(Cell, places, values.tolist(), low, high, ranks, shares)
    metric = result.coords["metric"].item() if "metric" in result.coords else None
    return CellGrid(
        axes=tuple(_axis(result, str(dim)) for dim in found["mean"].dims),
        cells=tuple(cells),
        quantity=escape(str(result.attrs.get("metric") or metric or result.name or "value")),
        unit=escape(str(result.attrs.get("unit", ""))),
        n_prompts=n_prompts,
        level=float(found.attrs.get("level", math.nan)),
        baselines={n: float(result[n].mean()) for n in _BASELINES if n in result.coords},
        attrs={str(key): value for key, value in result.attrs.items()},
    )


def place(grid: CellGrid, cell: Cell) -> Phrase:
    """Where a cell is, as words: `layer 9, head 6`, with the token of a position."""
    words: list[Piece] = []
    for axis, index in zip(grid.axes, cell.at, strict=True):
        words.append(Piece(f"{', ' if words else ''}{axis.name} {axis.labels[index]}"))
        if axis.tokens:
            words += [Piece(" "), Piece(show(axis.tokens[index]), "token")]
    return tuple(words)


def headline(grid: CellGrid) -> Phrase:
    """The largest value, where it is, its interval, and how much of all it is."""
    if not grid.ranked:
        return (Piece("No cell has a value."),)
    top = grid.ranked[0]
    value = f"{NumberFormat.of(grid.largest, extra=1)(top.value)} {grid.unit}".rstrip()
    words = [Piece("The largest value: "), *place(grid, top), Piece(", "), Piece(value, "number")]
    if top.has_interval:
        words.append(Piece(f" ({percent_of_level(grid)} interval {interval_text(grid, top)})"))
    return (*words, Piece(f", {percent(top.share)} of the total |value|."))


def sentences(grid: CellGrid) -> list[Phrase]:
    """What the cells were averaged over, what is missing, and how many intervals exclude zero."""
    n_known, n_cells = len(grid.ranked), len(grid.cells)
    said = []
    if grid.n_prompts is not None:
        few = "" if grid.has_intervals else ": too few for an interval"
        prompts = "prompt" if grid.n_prompts == 1 else "prompts"
        said.append(f"Each cell is the mean over {grid.n_prompts:,} {prompts}{few}.")
    if grid.has_intervals:
        least = _ROUNDING * grid.largest  # float32 leaves that much where nothing changed
        n_clear = sum(cell.excludes_zero and abs(cell.value) > least for cell in grid.cells)
        n_tested = sum(cell.has_interval for cell in grid.cells)
        chance = (1 - grid.level) * n_tested
        said.append(
            f"{n_clear:,} of {n_tested:,} intervals exclude zero; if no cell had any effect, about "
            f"{chance:.0f} would."
        )
    if states_support(grid.attrs):
        said.append(sign_sentence(grid.supports))
    if n_known < n_cells:
        said.append(f"{n_cells - n_known:,} of {n_cells:,} cells were not computed.")
    return [(Piece(words),) for words in said]


def interval_text(grid: CellGrid, cell: Cell, *, extra: int = 1) -> str:
    """Both ends of the interval, or `–`."""
    form = NumberFormat.of(grid.largest, extra=extra)
    return f"{form(cell.low)} to {form(cell.high)}" if cell.has_interval else form(math.nan)


def percent_of_level(grid: CellGrid) -> str:
    """The level of the intervals: `95%`."""
    return f"{100 * grid.level:g}%"


def _check(result: xr.DataArray) -> None:
    dims = [str(dim) for dim in result.dims if dim != "prompt"]
    if "metric" in dims:
        raise ValueError(
            f"the result holds the metrics {result['metric'].values.tolist()}: a view shows one "
            "quantity. Select it: result.sel(metric=...)."
        )
    if not 1 <= len(dims) <= 3:
        raise ValueError(
            f"the result has the dims {dims} beside prompts: a view shows one to three. "
            "Select or average the others."
        )
    if 0 in result.shape:
        raise ValueError(f"the result has shape {result.shape}: there is no value to show.")


def _averaged(result: xr.DataArray) -> tuple[int | None, xr.Dataset]:
    """The mean, low and high of each cell, its axes in the order in which they are drawn."""
    n_prompts = result.sizes.get("prompt")
    dims = _drawn(tuple(str(dim) for dim in result.dims if dim != "prompt"))
    if n_prompts is not None and n_prompts >= FEWEST_PROMPTS:
        return n_prompts, stats.interval(result).transpose(*dims)
    mean = result if n_prompts is None else result.mean("prompt", skipna=False)
    nothing = xr.full_like(mean, math.nan, dtype=float)
    given = n_prompts is None and {"low", "high"} <= set(result.coords)
    low, high = (
        result[name].broadcast_like(mean) if given else nothing for name in ("low", "high")
    )
    if n_prompts is None and "n" in result.coords:
        n_prompts = int(result["n"])
    found = {n: v.drop_vars(v.coords) for n, v in (("mean", mean), ("low", low), ("high", high))}
    attrs = {"level": result.attrs["level"]} if "level" in result.attrs else {"level": 0.95}
    return n_prompts, xr.Dataset(found, attrs=attrs).transpose(*dims)


def _drawn(dims: tuple[str, ...]) -> tuple[str, ...]:
    """The dimensions as drawn: of three, the one that has a map for each label comes first.

    That is a dimension that is no place in the model (the kind of ablation, the activation); else
    the one beside `pos` and `src`; else the position, so that maps of layer by head stay whole.
    """
    if len(dims) < 3:
        return dims
    others = [dim for dim in dims if dim not in ("layer", "head", "pos", "src", "neuron")]
    if not others and {"pos", "src"} <= set(dims):
        others = [dim for dim in dims if dim not in ("pos", "src")]
    panel = others[0] if others else "pos" if "pos" in dims else dims[0]
    return (panel, *(dim for dim in dims if dim != panel))


def _axis(result: xr.DataArray, dim: str) -> Axis:
    values = result[dim].values.tolist() if dim in result.coords else range(result.sizes[dim])
    tokens: tuple[str, ...] = ()
    if "token" in result.coords and result["token"].dims == (dim,):
        tokens = tuple(str(token) for token in result["token"].values)
    return Axis(escape(dim), tuple(_label(value) for value in values), tokens)


def _label(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else show(str(value))
