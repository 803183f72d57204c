"""A circuit in the terminal: how much it keeps, its nodes layer by layer, the strongest edges.

Red supports the metric, blue works against it. It reads without colour: numbers carry their sign,
and a positive bar is solid, a negative one shaded.

>>> from rich.console import Console
>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Circuit, Contrast, eap
>>> from mechinterp.report import print_circuit
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> scores = eap(Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE"))))
>>> found = Circuit.from_edges(scores.graph, ["input->a1.h0<v>", "a1.h0->logits"])
>>> print_circuit(scores, found, top=0, console=Console(width=80))  # doctest: +ELLIPSIS
The circuit keeps 2 of ... edges (...%), between 3 of ... nodes.
...
layer 1   h0
...
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import xarray as xr
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.report.circuit.edges import Circuit, Edge, Edges, EdgeScores, read_edges
from mechinterp.report.circuit.faithfulness_curve import read_faithfulness_curves, share_text
from mechinterp.report.circuit.summary import headline, held_by, interval_text, sentences
from mechinterp.report.render.console import Pen, bar, costs_line, cut
from mechinterp.report.render.costs import costs
from mechinterp.report.render.numbers import NumberFormat, percent
from mechinterp.report.render.phrases import plain
from mechinterp.report.render.support import TERMINAL, Sign, side, sign_sentence

_BAR_WIDTHS = (16, 8, 5, 0)
_LONGEST_NAME = 34


@checks_arguments
def print_circuit(
    scores: EdgeScores,
    circuit: Circuit,
    curve: xr.Dataset | None = None,
    *,
    top: int = 15,
    console: Console | None = None,
) -> None:
    """Print the size of a circuit, its nodes by layer, the `top` edges, its faithfulness, the cost.

    `curve`: a result of `mechinterp.circuits.faithfulness`, of this circuit or of several.

    Raises:
        ValueError: if the circuit is of another graph than the scores, `curve` is no such result,
            or `top` is negative.
    """
    if top < 0:
        raise ValueError(f"top is {top}: the number of edges to list cannot be negative.")
    edges = read_edges(scores, circuit)
    attrs = scores.per_pair.attrs
    unit = escape(str(attrs.get("unit", "")))
    pen = Pen(console or Console())
    pen.line(plain(headline(circuit)), "bold")
    for sentence in sentences(edges, circuit, unit):
        pen.line(plain(sentence))
    for line in _layers(circuit):
        pen.line(cut(line, pen.console.width))
    if top and edges.ranked:
        pen.line(_about(edges, unit), "dim")
        _print_table(pen, *_strongest(edges, edges.strongest(top)), edges.supports)
    if curve is not None:
        _print_table(pen, *_faithfulness(curve, circuit.graph.n_edges))
    if lines := costs(attrs):
        pen.line(costs_line(lines), "dim")


def _layers(circuit: Circuit) -> Iterator[str]:
    """A line for each layer with a node, the last first; those without are named together."""
    graph = circuit.graph
    names = set(circuit.nodes)
    kept: dict[int, list[str]] = {layer: [] for layer in range(graph.n_layers)}
    for name, node in zip(graph.writers, graph.nodes, strict=True):
        if name in names and node.layer is not None:
            kept[node.layer].append("mlp" if node.head is None else f"h{node.head}")
    width = len(str(graph.n_layers - 1))
    for none, layers in groupby(reversed(kept), key=lambda layer: not kept[layer]):
        numbers = list(layers)
        if none:
            ends = {numbers[-1], numbers[0]}
            said = "–".join(str(layer) for layer in sorted(ends))
            yield f"layer{'s' if len(ends) > 1 else ''} {said}: none"
            continue
        for layer in numbers:
            yield f"layer {layer:>{width}}   {' '.join(kept[layer])}"


def _about(edges: Edges, unit: str) -> str:
    of = f"the mean over {edges.n_pairs:,} pairs" if edges.n_pairs > 1 else "of one pair"
    sign = sign_sentence(edges.supports, "the metric", "the edge")
    return f"Score: {of}{f', in {unit}' if unit else ''}. {sign}"


def _strongest(
    edges: Edges, found: Sequence[Edge]
) -> tuple[list[str], list[list[str]], list[float]]:
    form = NumberFormat.of(edges.largest, extra=1)
    names = ["#", "edge", "score", "in circuit"]
    if edges.has_intervals:
        names.insert(3, f"{percent(edges.level).replace('.0%', '%')} interval")
    rows = []
    for edge in found:
        row = [str(edge.rank), cut(edge.name, _LONGEST_NAME), form(edge.score)]
        row += [interval_text(edges, edge)] * edges.has_intervals
        rows.append([*row, held_by(edge, None)])
    return names, rows, [edge.score for edge in found]


def _faithfulness(
    curve: xr.Dataset, n_edges: int
) -> tuple[list[str], list[list[str]], list[float]]:
    (read,) = read_faithfulness_curves({"": curve}, n_edges)
    has_intervals = any(point.has_interval for point in read.points)
    names = ["requested", "circuit", "edges", "share", "faithfulness"]
    names += ["interval"] * has_intervals
    rows = [
        [
            f"{point.requested:,}",
            cut(point.circuit, _LONGEST_NAME),
            f"{point.edges:,}",
            share_text(point.share),
            point.value,
            *([point.interval or "–"] * has_intervals),
        ]
        for point in read.points
    ]
    return names, rows, [point.faithfulness for point in read.points]


def _print_table(
    pen: Pen,
    names: list[str],
    rows: list[list[str]],
    values: Sequence[float],
    supports: Sign | None = None,
) -> None:
    """A table with as wide a bar as there is room for; a line for each row if none fits.

    Bars have the colour of their side if `supports` says which sign it is.
    """
    widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
    room = pen.console.width - sum(widths) - 2 * len(widths)
    if room < 0:
        for row in rows:
            said = [f"{name} {cell}" for name, cell in zip(names[2:], row[2:], strict=True)]
            pen.line(f"{row[0]}. {row[1]}: {', '.join(said)}")
        return
    bar_width = next(width for width in _BAR_WIDTHS if width <= room)
    largest = float(np.nanmax(np.abs(values), initial=0.0))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, name in enumerate(names):
        table.add_column(pen.text(name), justify="left" if place == 1 else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row, value in zip(rows, values, strict=True):
        colour = "" if supports is None else TERMINAL[side(value, supports)]
        drawn = pen.text(bar(value, largest, bar_width), colour)
        table.add_row(*map(pen.text, row), drawn)
    pen.console.print(table)
