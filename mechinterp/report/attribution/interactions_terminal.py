"""Pairs of inputs in the terminal: for each output the largest interactions, and what they say.

print_interactions(attribute_pairs(model, prompt))
"""

import xarray as xr
from rich import box
from rich.console import Console
from rich.table import Table

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.report.attribution.inputs import Input
from mechinterp.report.attribution.interactions import (
    Interactions,
    PairRow,
    meaning,
    read_interactions,
)
from mechinterp.report.attribution.summary import redundancies
from mechinterp.report.render.console import Pen, cut
from mechinterp.report.render.numbers import NumberFormat
from mechinterp.report.render.phrases import plain
from mechinterp.report.render.tokens import shorten, show

_NARROW, _WIDE = 60, 90


@checks_arguments
def print_interactions(
    found: xr.Dataset, *, top: int = 8, warned: bool = False, console: Console | None = None
) -> None:
    """Print for each output the `top` pairs by |interaction|.

    Before them the groups of inputs that are redundant, unless they were `warned` of before.

    Raises:
        ValueError: if it is not a result of pair removals, or `top` is not positive.
    """
    if top < 1:
        raise ValueError(f"top is {top}: print at least one pair.")
    pairs = read_interactions(found)
    pen = Pen(console or Console())
    for warning in [] if warned else redundancies([pairs.reading]):
        pen.line(f"! redundancy: {plain(warning)}", "bold yellow")
    pen.line(f"Interaction: {escape(pairs.sign)}", "dim")
    for row in pairs.rows:
        if row.output is not None:
            pen.line("")
            pen.line(shorten(show(row.token)), "bold")
            pen.console.print(_table(pen, pairs, row, top))
    if pen.console.width >= _WIDE:
        unit = f", in {escape(pairs.reading.unit)}" if pairs.reading.unit else ""
        pen.line(f"First, second, both: the drop without them{unit}", "dim")


def _table(pen: Pen, pairs: Interactions, row: PairRow, top: int) -> Table:
    """As many columns as there is room for: the interaction first, then what it is made of."""
    width = pen.console.width
    form = NumberFormat.of(pairs.scale, extra=1)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    label = max(5, (width - 34) // 2 if width < _WIDE else 20)
    label = min(label, 20)
    headings = ["one", "other", "interaction"]
    if width >= _NARROW:
        headings.append("they")
    if width >= _WIDE:
        headings += ["first", "second", "both"]
    for heading in headings:
        is_number = heading in ("interaction", "first", "second", "both")
        table.add_column(
            pen.text(cut(heading, max(5, width // 4))),
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="crop",
        )
    for pair in row.pairs[:top]:
        cells = [
            _label(pair.first, label),
            _label(pair.second, label),
            form(pair.interaction),
            meaning(pair.interaction, pairs.least),
            *map(form, (pair.without_first, pair.without_second, pair.without_both)),
        ]
        table.add_row(*(pen.text(cell) for cell in cells[: len(headings)]))
    return table


def _label(found: Input, width: int) -> str:
    where = f" {found.where}" if found.repeated and len(found.where) <= width // 3 else ""
    return cut(show(found.label), width - len(where)) + where
