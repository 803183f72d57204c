"""A sweep's result as one HTML file: a heat map of one quantity over layers, heads, positions, ...

One dimension is drawn as bars, two as a heat map, three as a heat map for each label of one of
them. All numbers are in the markup; the script only adds details on hover and focus. Labels are
text everywhere, as in `attribution_page`.

    Path("heads.html").write_text(grid_page(effect, title="Zero ablation"), encoding="utf-8")
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.report.render.cells import (
    Axis,
    Cell,
    CellGrid,
    headline,
    interval_text,
    percent_of_level,
    place,
    read_grid,
    sentences,
)
from mechinterp.report.render.costs import costs
from mechinterp.report.render.numbers import NumberFormat, percent
from mechinterp.report.render.page_shell import bar_shape, page
from mechinterp.report.render.phrases import in_unit
from mechinterp.report.render.support import legend_ends, states_support
from mechinterp.report.render.tables import captioned

_MOST_RANKED = 20
_MOST_COLUMNS = 20  # beyond, a number no longer fits into its cell
_MOST_TICKS, _MOST_TICKS_SMALL = 16, 8
_BASELINES = {"clean_score": "Clean prompts", "corrupt_score": "Corrupt prompts"}


@checks_arguments
def grid_page(
    result: xr.DataArray,
    *,
    title: str,
    notes: Sequence[str] = (),
    tables: Mapping[str, Sequence[Mapping[str, object]]] | None = None,
) -> str:
    """The whole page: summary, maps or bars, strongest cells, baselines, tables, notes, cost.

    The colours show the values around zero: pass an effect, such as the result less its clean
    score, rather than the metric itself. Warm supports the behaviour, cold works against it:
    `attrs["supports"]` says which sign that is, "positive" or "negative".
    `tables` holds rows for each caption, as column to value. A coordinate `token` along a dimension
    is shown beside its labels; `clean_score` and `corrupt_score` along the prompts are shown as
    means.

    Raises:
        ValueError: if there is nothing to show, or more than one page can: several metrics, more
            than three dimensions.
    """
    grid = read_grid(result)
    maps = _maps(grid)
    columns = grid.axes[-1]
    dense = len(maps) > 1 or len(columns.labels) > _MOST_COLUMNS
    return page(
        "grid.html",
        ["page.css", "grid.css"],
        ["grid.js"],
        rules=f":root {{ --columns: {len(columns.labels)}; }}",
        title=title,
        payload=_payload(grid),
        grid=grid,
        maps=maps,
        dense=dense,
        row_ticks=_ticks(grid.axes[-2], _MOST_TICKS, dense=dense) if maps else [],
        column_ticks=_ticks(
            columns, _MOST_TICKS_SMALL if len(maps) > 1 else _MOST_TICKS, dense=dense
        ),
        headline=headline(grid),
        sentences=sentences(grid),
        strongest=grid.ranked[:_MOST_RANKED],
        place=place,
        in_unit=in_unit,
        ends=_legend_ends(grid),
        percent_of_level=percent_of_level(grid),
        interval=interval_text,
        short=NumberFormat.of(grid.largest),
        middle=NumberFormat.of(grid.largest, extra=1),
        exact=NumberFormat.of(grid.largest, extra=3),
        baselines=[
            (_BASELINES[name], NumberFormat.of(abs(value), extra=1)(value))
            for name, value in grid.baselines.items()
        ],
        tables=captioned(tables),
        notes=[escape(note) for note in notes],
        costs=costs(grid.attrs),
    )


@dataclass(frozen=True)
class _Map:
    """One heat map: its rows of cells, and which label of the first axis it belongs to, if any."""

    label: str
    token: str
    rows: list[tuple[Cell, ...]]


def _maps(grid: CellGrid) -> list[_Map]:
    if len(grid.axes) == 1:
        return []
    n_rows, n_columns = (len(axis.labels) for axis in grid.axes[-2:])
    rows = [grid.cells[i : i + n_columns] for i in range(0, len(grid.cells), n_columns)]
    if len(grid.axes) == 2:
        return [_Map("", "", rows)]
    first = grid.axes[0]
    return [
        _Map(label, first.tokens[i] if first.tokens else "", rows[i * n_rows : (i + 1) * n_rows])
        for i, label in enumerate(first.labels)
    ]


def _legend_ends(grid: CellGrid) -> tuple[str, str]:
    """Words for both ends of the colour scale: what a sign means, where the result tells."""
    return legend_ends(grid.supports) if states_support(grid.attrs) else ("negative", "positive")


def _ticks(axis: Axis, most: int, *, dense: bool) -> list[bool]:
    """Which labels are shown: all, or every second, fifth, ... where they would run together.

    A long label stands upright, and runs into no other.
    """
    n_labels = len(axis.labels)
    if not dense or max(map(len, axis.labels)) > 3:
        return [True] * n_labels
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, n_labels) if n_labels <= s * most)
    return [index % step == 0 for index in range(n_labels)]


def _payload(grid: CellGrid) -> dict[str, object]:
    """What the script shows of each cell, in their order: everything printed."""
    exact, reach = NumberFormat.of(grid.largest, extra=3), grid.reach
    return {
        "exact": [exact(cell.value) for cell in grid.cells],
        "interval": [interval_text(grid, cell, extra=2) for cell in grid.cells],
        "rank": [cell.rank for cell in grid.cells],
        "share": [percent(cell.share) for cell in grid.cells],
        "bar": [bar_shape(cell.value, reach, grid.supports) for cell in grid.cells],
        "whisker": [_whisker(cell, reach) for cell in grid.cells],
        "n_ranked": len(grid.ranked),
    }


def _whisker(cell: Cell, reach: float) -> tuple[float, float] | None:
    if not cell.has_interval or reach <= 0:
        return None
    return round(50 + 50 * cell.low / reach, 2), round(50 * (cell.high - cell.low) / reach, 2)
