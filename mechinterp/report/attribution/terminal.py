"""A token-attribution result in the terminal: a table of signed numbers and bars.

Red supports the output, blue works against it. It reads without colour: numbers carry their sign, a
positive bar is solid and a negative one is shaded, and the strongest input of each output has a
marker. Tokens are printed as text, so that an escape sequence or rich markup in a token does
nothing.

    print_attribution(scores)
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.report.attribution.comparisons import (
    AS_EXPECTED,
    NOT_AS_EXPECTED,
    PARTLY,
    Comparison,
    RankedInput,
    split_for_show,
)
from mechinterp.report.attribution.levels import Level, Scores, score_of, where_at
from mechinterp.report.attribution.read import Reading, Row, read_scores
from mechinterp.report.attribution.summary import additivity, headline, redundancies, sentence
from mechinterp.report.render.console import Pen, bar, costs_line, cut
from mechinterp.report.render.costs import costs
from mechinterp.report.render.numbers import NumberFormat, percent, plus_minus, probability
from mechinterp.report.render.phrases import plain
from mechinterp.report.render.support import TERMINAL, side
from mechinterp.report.render.tokens import shorten, show

_BAR_WIDTHS = (8, 5, 3, 0)
_GAP = 2  # between two columns of the table: one of padding, one that the box draws
_MOST_TABLES = 3
_MOST_UNEXPECTED = 5
_MOST_SUMS = 6
_LONGEST_WHERE = 9
_VERDICTS = {
    AS_EXPECTED: ("✓", "bold green"),
    PARTLY: ("~", "bold yellow"),
    NOT_AS_EXPECTED: ("✗", "bold red"),
}


@checks_arguments
def print_attribution(
    scores: Scores,
    comparisons: Sequence[Comparison] = (),
    *,
    console: Console | None = None,
) -> None:
    """Print the headline, the scores, the verdicts and the cost, as wide as the console allows.

    Outputs that do not fit beside each other are printed below each other; when even that is too
    long, their mean is printed as a table and each output as one sentence. Below stands how far the
    scores add up to the effect of removing all inputs. Of a dataset the `score` is printed.

    Raises:
        ValueError: if `scores` lacks a dimension or a coordinate, or is empty.
    """
    reading = read_scores(score_of(scores))
    pen = Pen(console or Console())
    pen.line(plain(headline(reading)), "bold")
    for warning in redundancies([reading]):
        pen.line(f"! redundancy: {plain(warning)}", "bold yellow")
    layout = _layout(reading, pen.console.width)
    blocks = _blocks(reading.all_rows, layout.n_columns)
    if len(blocks) > _MOST_TABLES:
        blocks = [(reading.mean,)]
        for row in reading.rows:
            pen.line(plain(sentence(reading, row)))
    for block in blocks:
        pen.console.print(_table(pen, reading, block, layout))
    flips = "   ! without it, the model's top token changes" if reading.has_flips else ""
    pen.line(f"◆ strongest input of the output{flips}", "dim")
    for line in _notes(reading, layout):
        pen.line(line, "dim")
    for line in _sums(reading):
        pen.line(line)
    if reading.has_bos_control:
        pen.line(_bos_line(reading))
    in_full, in_brief = split_for_show(comparisons)
    for comparison in in_full:
        _print_verdict(pen, reading, comparison, NumberFormat.of(reading.largest, extra=1))
    for comparison in in_brief:
        mark, style = _VERDICTS.get(comparison.verdict, ("?", "bold"))
        pen.line(f"{mark} {escape(comparison.verdict)}  {show(comparison.output_token)}", style)
    pen.line(costs_line(costs(reading.attrs)), "dim")


@dataclass(frozen=True)
class _Layout:
    """Widths in terminal columns, and how many outputs fit beside each other."""

    where: int
    token: int
    number: int
    bar: int
    n_columns: int
    has_errors: bool


def _layout(reading: Reading, width: int) -> _Layout:
    """Errors go before bars, as long as the tables do not become too many."""
    listed = [reading.inputs[i] for i in reading.listed]
    where = min(_LONGEST_WHERE, max(len(found.where) for found in listed))
    longest = max(cell_len(show(found.label)) for found in listed)
    token = max(5, min(longest, 24 if width >= 72 else 12))
    room = width - where - _GAP - token - _GAP
    n_wanted = len(reading.all_rows)
    for has_errors in (True, False) if reading.has_errors else (False,):
        texts = [
            _number(reading, row, index, has_errors=has_errors)
            for row in reading.all_rows
            for index in reading.listed
        ]
        number = max(map(len, texts))
        fits = {bar: (room + _GAP) // (number + 2 + bar + _GAP) for bar in _BAR_WIDTHS}
        for most_tables in (1, _MOST_TABLES, *(() if has_errors else (n_wanted,))):
            for bar_width, n_columns in fits.items():
                if n_columns * most_tables >= n_wanted:
                    return _Layout(where, token, number, bar_width, n_columns, has_errors)
    return _Layout(where, token, number, bar=0, n_columns=1, has_errors=False)


def _number(reading: Reading, row: Row, index: int, *, has_errors: bool) -> str:
    form = NumberFormat.of(reading.largest, extra=1)
    error = plus_minus(form, row.errors[index]) if has_errors else ""
    return f"{form(row.scores[index])} {error}".rstrip()


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
    for index in reading.listed:
        found = reading.inputs[index]
        is_attributed = any(row.ranks[index] is not None for row in rows)
        table.add_row(
            pen.text(cut(found.where, layout.where)),
            pen.text(cut(show(found.label), layout.token), "" if is_attributed else "dim"),
            *(_cell(pen, reading, row, index, layout) for row in rows),
        )
    return table


def _cell(pen: Pen, reading: Reading, row: Row, index: int, layout: _Layout) -> Text:
    score = row.scores[index]
    number = _number(reading, row, index, has_errors=layout.has_errors)
    if layout.has_errors and "±" not in number:
        number += " " * len(" ± 0.0")  # so that it stands below those with an error
    number = number.rjust(layout.number)
    if row.ranks[index] is None:
        return pen.text(f" {number}", "dim")
    is_top = row.ranks[index] == 1 and abs(score) > reading.faint
    mark = "◆" if is_top else " "
    flip = "!" if row.n_flips[index] and row.output is not None else " "
    text = f"{mark}{number}{flip}{bar(score, reading.largest, layout.bar)}"
    colour = TERMINAL[side(score, reading.supports)]
    return pen.text(text, f"bold {colour}".strip() if is_top else colour)


def _notes(reading: Reading, layout: _Layout) -> Iterable[str]:
    for key in ("sign", "removal_note"):
        if note := reading.attrs.get(key):
            yield escape(str(note))
    if layout.has_errors:
        yield f"± {reading.error_meaning}"
    elif reading.has_errors:
        form = NumberFormat.of(reading.largest, extra=1)
        largest = max(e for row in reading.rows for e in row.errors if math.isfinite(e))
        yield f"{reading.error_meaning}: up to {plus_minus(form, largest)}"
    if reading.n_left_out:
        yield f"{reading.n_left_out} inputs that are not attributed are left out"


def _sums(reading: Reading) -> Iterable[str]:
    """How far the scores of each output add up; once where it is not known."""
    if not reading.adds_up:
        yield plain(additivity(reading, reading.rows[0]))
        return
    if len(reading.rows) > _MOST_SUMS:
        known = [row for row in reading.rows if math.isfinite(reading.share(row))]
        ends = sorted(known, key=reading.share)
        for row in [*ends[:1], *ends[1:][-1:]]:
            name = f"{shorten(show(row.token))} (output {row.output})"
            yield f"{name}: {plain(additivity(reading, row))}"
        yield f"Of the other outputs {max(len(known) - 2, 0)} lie between."
        return
    for row in reading.rows:
        yield f"{shorten(show(row.token))}: {plain(additivity(reading, row))}"


def _bos_line(reading: Reading) -> str:
    form = NumberFormat.of(reading.largest, extra=1)
    effects = ", ".join(
        f"{show(row.token)} {form(row.bos_effect)}"
        for row in reading.rows
        if math.isfinite(row.bos_effect)
    )
    return f"Control, drop without BOS: {effects}"


def _print_verdict(pen: Pen, reading: Reading, comparison: Comparison, form: NumberFormat) -> None:
    def ranked(found: RankedInput) -> str:
        where = where_at([Level("", reading)], found.input, found.token)
        token = f"{show(found.token)} (position {where})"
        return f"rank {found.rank}  {token}  {form(found.score)}  {percent(found.share)}"

    mark, style = _VERDICTS.get(comparison.verdict, ("?", "bold"))
    name = "all outputs" if comparison.output is None else show(comparison.output_token)
    pen.line("")
    pen.line(f"{mark} {escape(comparison.verdict).upper()}  {name}", style)
    for found in comparison.unexpected_above[:_MOST_UNEXPECTED]:
        pen.line(f"  ! unexpected, yet above an expected token: {ranked(found)}", "bold")
    if (n_more := len(comparison.unexpected_above) - _MOST_UNEXPECTED) > 0:
        pen.line(f"  ! and {n_more} more unexpected tokens above an expected one", "bold")
    pen.line(f"  {escape(comparison.reason)}")
    for found in comparison.expected:
        pen.line(f"  expected: {ranked(found)}")
    pen.line(
        f"  precision at {comparison.k} {comparison.precision_at_k:.2f} · "
        f"average precision {comparison.average_precision:.2f} · "
        f"share of mass {percent(comparison.share_of_mass)} · "
        f"p {probability(comparison.p_value)}"
    )
