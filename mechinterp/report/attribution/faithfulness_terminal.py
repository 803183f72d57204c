"""Faithfulness in the terminal: for each removal a table of methods and measures.

print_faithfulness(faithfulness(question, methods))
"""

import xarray as xr
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.report.attribution.faithfulness import (
    CHANCE,
    Faithfulness,
    Figure,
    Measure,
    Panel,
    read_faithfulness,
)
from mechinterp.report.render.console import Pen, costs_line, cut
from mechinterp.report.render.costs import costs
from mechinterp.report.render.numbers import NumberFormat
from mechinterp.report.render.tokens import shorten, show

_LONGEST_NAME = 20


@checks_arguments
def print_faithfulness(found: xr.Dataset, *, console: Console | None = None) -> None:
    """Print how the scorers fare: the mean over outputs, or over prompts with intervals.

    Measures that do not fit beside each other are printed below each other. The best is marked,
    where there are several methods.

    Raises:
        ValueError: if it is the result neither of `faithfulness` nor of `summarise`.
    """
    faithful = read_faithfulness(found)
    pen = Pen(console or Console())
    row = faithful.rows[-1]  # the mean, or the only output
    of = f"for {shorten(show(row.token))}" if row.output is not None else "mean over outputs"
    if faithful.has_intervals:
        of = f"mean over {faithful.n_prompts} prompts, with intervals"
    unit = f"; drops in {escape(faithful.unit)}" if faithful.unit else ""
    pen.line(f"Faithfulness, {of}{unit}", "bold")
    for panel in row.panels:
        pen.line("")
        pen.line(f"removed by {escape(panel.removal)}", "bold")
        for chosen in _blocks(faithful, panel, pen.console.width):
            pen.console.print(_table(pen, faithful, panel, chosen))
    pen.line("↑ high is good   ↓ low is good   * best of several, if better than chance", "dim")
    if lines := costs(faithful.attrs):
        pen.line(costs_line(lines), "dim")


def _text(faithful: Faithfulness, panel: Panel, measure: Measure, figure: Figure) -> str:
    is_ratio = not measure.unit
    form = NumberFormat("+.2f") if is_ratio else NumberFormat.of(_largest(faithful, panel), extra=1)
    mark = "*" if figure.is_best else " "
    interval = f" [{form(figure.low)}, {form(figure.high)}]" if faithful.has_intervals else ""
    return f"{form(figure.value)}{mark}{interval}"


def _largest(faithful: Faithfulness, panel: Panel) -> float:
    sizes = [
        abs(figure.value)
        for figures in panel.figures.values()
        for measure, figure in zip(faithful.measures, figures, strict=True)
        if measure.unit and figure.value == figure.value
    ]
    return max(sizes, default=0.0)


def _title(measure: Measure) -> str:
    return f"{escape(measure.name)} {'↓' if measure.low_is_good else '↑'}"


def _name_width(faithful: Faithfulness, width: int) -> int:
    longest = max(cell_len(escape(name)) for name in faithful.scorers)
    return min(longest, _LONGEST_NAME, max(5, width // 3))


def _blocks(faithful: Faithfulness, panel: Panel, width: int) -> list[list[int]]:
    """The measures in groups that fit the width."""
    room = width - _name_width(faithful, width)
    blocks: list[list[int]] = [[]]
    used = 0
    for m, measure in enumerate(faithful.measures):
        texts = [_text(faithful, panel, measure, figures[m]) for figures in panel.figures.values()]
        needed = 2 + max(map(len, [*texts, _title(measure)]))
        if blocks[-1] and used + needed > room:
            blocks.append([])
            used = 0
        blocks[-1].append(m)
        used += needed
    return blocks


def _table(pen: Pen, faithful: Faithfulness, panel: Panel, chosen: list[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(pen.text("scores by"), no_wrap=True, overflow="crop")
    for m in chosen:
        title = pen.text(_title(faithful.measures[m]))
        table.add_column(title, justify="right", no_wrap=True, overflow="crop")
    name = _name_width(faithful, pen.console.width)
    for scorer, figures in panel.figures.items():
        style = "dim" if scorer in CHANCE else ""
        texts = [_text(faithful, panel, faithful.measures[m], figures[m]) for m in chosen]
        table.add_row(
            pen.text(cut(escape(scorer), name), style), *(pen.text(t, style) for t in texts)
        )
    return table
