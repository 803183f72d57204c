"""Links in the terminal: who looks where, in which head, and whether cutting it mattered.

>>> from rich.console import Console
>>> from mechinterp import load_model
>>> from mechinterp.attention import above_uniform, find_links, patterns, without_sink
>>> from mechinterp.report import print_links
>>> found = patterns(load_model("toy:induction"), "c k e c").isel(prompt=0)
>>> links = find_links(without_sink(found).sel(pos=[4]), above_uniform(2.0))
>>> print_links(links, console=Console(width=80))  # doctest: +NORMALIZE_WHITESPACE
2 links listed: to the token before 1, elsewhere 1.
from   to     kind      head  weight  mean  heads  × uniform
────────────────────────────────────────────────────────────
c (4)  e (3)  previous  L0H1    1.00  0.33      1        4.0
c (4)  k (2)  other     L1H2    1.00  0.33      1        4.0
"""

import xarray as xr
from rich import box
from rich.console import Console
from rich.table import Table

from mechinterp.core.arguments import checks_arguments
from mechinterp.report.attention.link_rows import link_sentences, read_links
from mechinterp.report.render.console import Pen, cut
from mechinterp.report.render.phrases import plain

_LONGEST = 10


@checks_arguments
def print_links(links: xr.Dataset, *, top: int = 20, console: Console | None = None) -> None:
    """Print how many links there are and the `top` first; of `confirm`, what cutting them did.

    Raises:
        ValueError: if `top` is negative.
    """
    if top < 0:
        raise ValueError(f"top is {top}: the number of links to list cannot be negative.")
    pen = Pen(console or Console())
    for phrase in link_sentences(links):
        pen.line(plain(phrase))
    rows = read_links(links.isel(link=slice(top)))
    if not rows:
        return
    is_checked = "confirmed" in links
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    columns = {
        "from": [f"{cut(row.query_token, _LONGEST)} ({row.query})" for row in rows],
        "to": [f"{cut(row.key_token, _LONGEST)} ({row.key})" for row in rows],
        "kind": [row.kind for row in rows],
        "head": [row.head for row in rows],
        "weight": [f"{row.largest:.2f}" for row in rows],
        "mean": [f"{row.mean:.2f}" for row in rows],
        "heads": [str(row.n_heads) for row in rows],
    }
    if is_checked:
        columns["effect"] = [row.effect for row in rows]
        columns["confirmed"] = ["yes" if row.verdict == "confirmed" else "no" for row in rows]
    else:
        columns["× uniform"] = [f"{row.times_uniform:.1f}" for row in rows]
    for name in columns:
        to_left = name in ("from", "to", "kind", "head", "confirmed")
        table.add_column(pen.text(name), justify="left" if to_left else "right", no_wrap=True)
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(pen.text, cells))
    pen.console.print(table)
    if is_checked:
        pen.line(f"confirmed: {links.attrs['confirmed']}; cut {links.attrs['cut']}.", "dim")
    left = links.sizes["link"] - len(rows)
    if left:
        pen.line(f"{left} more.", "dim")
