"""A token-attribution result in the terminal: a table of signed numbers and bars.

It reads without colour: numbers carry their sign, a positive bar is solid and a negative one is
shaded, and the strongest token of each output has a marker. Tokens are printed as text, so that an
escape sequence or rich markup in a token does nothing.

    print_attribution(scores)
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import xarray as xr
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mechinterp.report.comparisons import (
    AS_EXPECTED,
    NOT_AS_EXPECTED,
    PARTLY,
    Comparison,
    Ranked,
    split_for_show,
)
from mechinterp.report.costs import costs
from mechinterp.report.numbers import NumberFormat, percent, probability
from mechinterp.report.pen import Pen, bar, costs_line, cut
from mechinterp.report.reading import Reading, Row, read_scores
from mechinterp.report.summary import headline, plain, sentence
from mechinterp.report.tokens import escape, show

_BAR_WIDTHS = (8, 5, 3, 0)
_GAP = 2  # between two columns of the table: one of padding, one that the box draws
_MOST_TABLES = 3
_MOST_UNEXPECTED = 5
_VERDICTS = {
    AS_EXPECTED: ("✓", "bold green"),
    PARTLY: ("~", "bold yellow"),
    NOT_AS_EXPECTED: ("✗", "bold red"),
}


def print_attribution(
    scores: xr.DataArray,
    comparisons: Sequence[Comparison] = (),
    *,
    console: Console | None = None,
) -> None:
    """Print the headline, the scores, the verdicts and the cost, as wide as the console allows.

    Outputs that do not fit beside each other are printed below each other; when even that is too
    long, their mean is printed as a table and each output as one sentence.

    Raises:
        ValueError: if `scores` lacks a dimension or a coordinate, or is empty.
    """
    reading = read_scores(scores)
    pen = Pen(console or Console())
    pen.line(plain(headline(reading)), "bold")
    layout = _layout(reading, pen.console.width)
    blocks = _blocks(reading.all_rows, layout.n_columns)
    if len(blocks) > _MOST_TABLES:
        blocks = [(reading.mean,)]
        for row in reading.rows:
            pen.line(plain(sentence(reading, row)))
    for block in blocks:
        pen.console.print(_table(pen, reading, block, layout))
    pen.line("◆ strongest token of the output   ! without it, the model's top token changes", "dim")
    if reading.has_bos_control:
        pen.line(_bos_line(reading))
    in_full, in_brief = split_for_show(comparisons)
    for comparison in in_full:
        _print_verdict(pen, comparison, NumberFormat.of(reading.largest, extra=1))
    for comparison in in_brief:
        mark, style = _VERDICTS.get(comparison.verdict, ("?", "bold"))
        pen.line(f"{mark} {escape(comparison.verdict)}  {show(comparison.output_token)}", style)
    pen.line(costs_line(costs(reading.attrs)), "dim")


@dataclass(frozen=True)
class _Layout:
    """Widths in terminal columns, and how many outputs fit beside each other."""

    token: int
    number: int
    bar: int
    n_columns: int


def _layout(reading: Reading, width: int) -> _Layout:
    form = NumberFormat.of(reading.largest, extra=1)
    number = max(len(form(score)) for row in reading.all_rows for score in row.scores)
    longest = max(cell_len(show(found.token)) for found in reading.inputs)
    token = max(5, min(longest, 24 if width >= 72 else 12))
    room = width - len(str(max(found.pos for found in reading.inputs))) - _GAP - token - _GAP
    fits = {bar: (room + _GAP) // (number + 2 + bar + _GAP) for bar in _BAR_WIDTHS}
    n_wanted = len(reading.all_rows)
    for most_tables in (1, _MOST_TABLES, n_wanted):
        for bar_width, n_columns in fits.items():
            if n_columns * most_tables >= n_wanted:
                return _Layout(token, number, bar_width, n_columns)
    return _Layout(token, number, bar=0, n_columns=1)


def _blocks(rows: tuple[Row, ...], n_columns: int) -> list[tuple[Row, ...]]:
    return [rows[start : start + n_columns] for start in range(0, len(rows), n_columns)]


def _table(pen: Pen, reading: Reading, rows: Iterable[Row], layout: _Layout) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, _GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column(pen.text("#"), justify="right", no_wrap=True, style="dim")
    table.add_column(pen.text("input"), no_wrap=True, overflow="crop")
    rows = tuple(rows)
    width = layout.number + 2 + layout.bar
    for row in rows:
        name = show(row.token) if row.output is not None else "mean"
        heading = pen.text(cut(f" {name}", width))
        table.add_column(heading, no_wrap=True, min_width=width, overflow="crop")
    for index, found in enumerate(reading.inputs):
        is_attributed = any(row.ranks[index] is not None for row in rows)
        table.add_row(
            pen.text(str(found.pos)),
            pen.text(cut(show(found.token), layout.token), "" if is_attributed else "dim"),
            *(_cell(pen, reading, row, index, layout) for row in rows),
        )
    return table


def _cell(pen: Pen, reading: Reading, row: Row, index: int, layout: _Layout) -> Text:
    score = row.scores[index]
    number = NumberFormat.of(reading.largest, extra=1)(score).rjust(layout.number)
    if row.ranks[index] is None:
        return pen.text(f" {number}", "dim")
    is_top = row.ranks[index] == 1 and score != 0
    mark = "◆" if is_top else " "
    flip = "!" if row.n_flips[index] and row.output is not None else " "
    text = f"{mark}{number}{flip}{bar(score, reading.largest, layout.bar)}"
    colour = "red" if score > 0 else "blue" if score < 0 else ""
    return pen.text(text, f"bold {colour}".strip() if is_top else colour)


def _bos_line(reading: Reading) -> str:
    form = NumberFormat.of(reading.largest, extra=1)
    effects = ", ".join(
        f"{show(row.token)} {form(row.bos_effect)}"
        for row in reading.rows
        if math.isfinite(row.bos_effect)
    )
    return f"Control, drop without BOS: {effects}"


def _print_verdict(pen: Pen, comparison: Comparison, form: NumberFormat) -> None:
    mark, style = _VERDICTS.get(comparison.verdict, ("?", "bold"))
    name = "all outputs" if comparison.output is None else show(comparison.output_token)
    pen.line("")
    pen.line(f"{mark} {escape(comparison.verdict).upper()}  {name}", style)
    for found in comparison.unexpected_above[:_MOST_UNEXPECTED]:
        pen.line(f"  ! unexpected, yet above an expected token: {_ranked(found, form)}", "bold")
    if (n_more := len(comparison.unexpected_above) - _MOST_UNEXPECTED) > 0:
        pen.line(f"  ! and {n_more} more unexpected tokens above an expected one", "bold")
    pen.line(f"  {escape(comparison.reason)}")
    for found in comparison.expected:
        pen.line(f"  expected: {_ranked(found, form)}")
    pen.line(
        f"  precision at {comparison.k} {comparison.precision_at_k:.2f} · "
        f"average precision {comparison.average_precision:.2f} · "
        f"share of mass {percent(comparison.share_of_mass)} · "
        f"p {probability(comparison.p_value)}"
    )


def _ranked(found: Ranked, form: NumberFormat) -> str:
    token = f"{show(found.token)} (position {found.input})"
    return f"rank {found.rank}  {token}  {form(found.score)}  {percent(found.share)}"
