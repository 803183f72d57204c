"""A sweep's result in the terminal: a heat map where it fits, and the strongest cells.

Red supports the behaviour, blue works against it. It reads without colour: numbers carry their
sign, and a positive bar is solid, a negative one shaded. Labels are
printed as text, as in `print_attribution`.

    print_grid(effect)
"""

from collections.abc import Sequence

import xarray as xr
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

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
from mechinterp.report.render.colours import terminal_style
from mechinterp.report.render.console import Pen, bar, costs_line, cut
from mechinterp.report.render.costs import costs
from mechinterp.report.render.numbers import NumberFormat, percent
from mechinterp.report.render.phrases import plain
from mechinterp.report.render.support import TERMINAL, side
from mechinterp.report.render.tokens import show

_MOST_ROWS = 40
_LONGEST_LABEL = 14
_BAR_WIDTHS = (16, 8, 5, 0)


@checks_arguments
def print_grid(result: xr.DataArray, *, top: int = 15, console: Console | None = None) -> None:
    """Print the headline, a heat map if it is two-dimensional and fits, `top` cells and the cost.

    Raises:
        ValueError: if there is nothing to show, or more than a view can, as `grid_page`; or if
            `top` is negative.
    """
    if top < 0:
        raise ValueError(f"top is {top}: the number of cells to list cannot be negative.")
    grid = read_grid(result)
    pen = Pen(console or Console())
    pen.line(plain(headline(grid)), "bold")
    for sentence in sentences(grid):
        pen.line(plain(sentence))
    if sign := grid.attrs.get("sign"):
        pen.line(escape(str(sign)))
    if _fits(grid, pen.console.width):
        pen.line(f"{grid.axes[0].name} ↓  {grid.axes[1].name} →", "dim")
        pen.console.print(_heat_map(pen, grid))
        if grid.axes[1].tokens:
            pen.line(f"{grid.axes[1].name}: {' · '.join(_named(grid.axes[1]))}", "dim")
    if top and grid.ranked:
        _print_strongest(pen, grid, grid.ranked[:top])
    for name, value in grid.baselines.items():
        form = NumberFormat.of(abs(value), extra=1)
        pen.line(f"{name.replace('_', ' ')}, mean: {form(value)} {grid.unit}".rstrip())
    pen.line(costs_line(costs(grid.attrs)), "dim")


def _fits(grid: CellGrid, width: int) -> bool:
    if len(grid.axes) != 2:
        return False
    rows, columns = grid.axes
    needed = max(map(cell_len, _labels(rows))) + 1 + len(columns.labels) * (_number(grid) + 1)
    return needed <= width and len(rows.labels) <= _MOST_ROWS


def _heat_map(pen: Pen, grid: CellGrid) -> Table:
    rows, columns = grid.axes
    width = _number(grid)
    form = NumberFormat.of(grid.largest)

    def style(cell: Cell) -> str:
        return terminal_style(cell.value, grid.largest, grid.supports)

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("", justify="right", no_wrap=True, style="dim")
    for label in columns.labels:
        table.add_column(pen.text(cut(label, width)), justify="right", no_wrap=True)
    for start, label in zip(
        range(0, len(grid.cells), len(columns.labels)), _labels(rows), strict=True
    ):
        numbers = [
            pen.text(
                form(cell.value).rjust(width),
                terminal_style(cell.value, grid.largest, grid.supports),
            )
            for cell in grid.cells[start : start + len(columns.labels)]
        ]
        table.add_row(pen.text(label), *numbers)
    return table


def _number(grid: CellGrid) -> int:
    form = NumberFormat.of(grid.largest)
    return max(len(form(cell.value)) for cell in grid.cells)


def _print_strongest(pen: Pen, grid: CellGrid, cells: Sequence[Cell]) -> None:
    """A table with as wide a bar as there is room for; a line for each cell if none fits."""
    form = NumberFormat.of(grid.largest, extra=1)
    names = ["#", *(axis.name for axis in grid.axes), f"value {grid.unit}".rstrip()]
    if grid.has_intervals:
        names.append(f"{percent_of_level(grid)} interval")
    names.append("share")
    rows = [
        [
            str(cell.rank),
            *(_labels(axis)[index] for axis, index in zip(grid.axes, cell.at, strict=True)),
            form(cell.value),
            *([interval_text(grid, cell)] if grid.has_intervals else []),
            percent(cell.share),
        ]
        for cell in cells
    ]
    widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
    room = pen.console.width - sum(widths) - 2 * len(widths)
    if room < 0:
        for cell, row in zip(cells, rows, strict=True):
            numbers = ", ".join(row[1 + len(grid.axes) :])
            pen.line(f"{cell.rank}. {plain(place(grid, cell))}: {numbers}")
        return
    bar_width = next(width for width in _BAR_WIDTHS if width <= room)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for index, name in enumerate(names):
        is_label = 0 < index <= len(grid.axes)
        table.add_column(pen.text(name), justify="left" if is_label else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for cell, row in zip(cells, rows, strict=True):
        colour = TERMINAL[side(cell.value, grid.supports)]
        drawn = pen.text(bar(cell.value, grid.largest, bar_width), colour)
        table.add_row(*map(pen.text, row), drawn)
    pen.console.print(table)


def _labels(axis: Axis) -> list[str]:
    return [cut(label, _LONGEST_LABEL) for label in _named(axis)]


def _named(axis: Axis) -> list[str]:
    if not axis.tokens:
        return list(axis.labels)
    both = zip(axis.labels, axis.tokens, strict=True)
    return [f"{label} {show(token)}" for label, token in both]
