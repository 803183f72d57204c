"""Figures layer by layer in the terminal: the findings in words, then a table.

>>> from rich.console import Console
>>> from mechinterp.report import print_layers
>>> print_layers([{"layers run": 0, "KL": 2.5}], ["It leads."], console=Console(width=60))
It leads.
<BLANKLINE>
layers run     KL
─────────────────
         0   2.50
"""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from mechinterp.core.arguments import checks_arguments
from mechinterp.report.render.console import Pen
from mechinterp.report.render.numbers import MINUS
from mechinterp.report.render.tables import Rows, table


@checks_arguments
def print_layers(
    rows: Sequence[Mapping[str, object]],
    sentences: Sequence[str] = (),
    heads: Sequence[Mapping[str, object]] = (),
    *,
    console: Console | None = None,
) -> None:
    """Print what was found, the figures by layer, and those of heads if there are any."""
    pen = Pen(console or Console())
    for sentence in sentences:
        pen.line(sentence)
    for each in (rows, heads):
        if each:
            pen.console.print()
            pen.console.print(_table(pen, each))


def _table(pen: Pen, rows: Rows) -> Table:
    names, *printed = table([{k: _short(v) for k, v in row.items()} for row in rows])
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in names:
        made.add_column(pen.text(name), justify="right")
    for row in printed:
        made.add_row(*map(pen.text, row))
    return made


def _short(value: object) -> object:
    """Two decimals, and none for a large number: a terminal is narrow."""
    if not isinstance(value, float):
        return value
    return f"{value:.{0 if abs(value) >= 100 else 2}f}".replace("-", MINUS)
