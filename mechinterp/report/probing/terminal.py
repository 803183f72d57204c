"""Probes in the terminal: what was found in words, a row a layer, the causal half.

print_probes(probed, best=best_layers(probed))
"""

from typing import Literal

import xarray as xr
from rich import box
from rich.console import Console
from rich.table import Table

from mechinterp.core.arguments import checks_arguments
from mechinterp.report.probing.html import causal_rows, layer_rows, sentences
from mechinterp.report.render.console import Pen
from mechinterp.report.render.tables import Rows, table


@checks_arguments
def print_probes(
    probed: xr.Dataset,
    *,
    description: xr.Dataset | None = None,
    best: xr.Dataset | None = None,
    causal: xr.Dataset | None = None,
    console: Console | None = None,
) -> None:
    """Print the sentences and tables of `probing_page`, one row for each layer."""
    pen = Pen(console or Console())
    first, *others = sentences(probed, best=best, causal=causal)
    pen.line(first, "bold")
    for line in others:
        pen.line(line)
    _print(pen, layer_rows(probed, description, best))
    if causal is not None:
        _print(pen, causal_rows(causal))


def _print(pen: Pen, rows: Rows) -> None:
    names, *lines = table(rows)
    made = Table(box=box.SIMPLE, pad_edge=False, padding=0)
    for number, name in enumerate(names):
        # an interval stays on one line, as long as there is room
        whole = any("[" in line[number] for line in lines)
        side: Literal["left", "right"] = "left" if number == 0 else "right"
        longest = max(map(len, name.split()), default=1)
        made.add_column(
            pen.text(name), justify=side, overflow="fold", no_wrap=whole, min_width=longest
        )
    for line in lines:
        made.add_row(*map(pen.text, line))
    pen.console.print(made)
