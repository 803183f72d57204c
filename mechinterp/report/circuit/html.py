"""A circuit as one HTML file: its graph layer by layer, its edges by strength, its faithfulness.

The page draws the graph itself; all else it says is in the markup. Names of nodes are those of the
graph; tokens, positions and titles are text everywhere, as in `attribution_page`.

>>> import numpy as np
>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Circuit, Contrast, eap
>>> from mechinterp.report import circuit_page
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> scores = eap(Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE"))))
>>> strong = np.nan_to_num(np.abs(scores.mean)) > 0.1
>>> html = circuit_page(scores, Circuit(scores.graph, strong), title="The trigger")
>>> "a1.h0" in html, html.count("<script")
(True, 2)
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.report.attention.patterns import Patterns, read_patterns
from mechinterp.report.circuit.edges import Circuit, Edges, EdgeScores, Graph, read_edges
from mechinterp.report.circuit.faithfulness_curve import (
    faithfulness_chart,
    read_faithfulness_curves,
    share_text,
)
from mechinterp.report.circuit.summary import (
    headline,
    held_by,
    interval_text,
    left_out,
    overlaps,
    sentences,
)
from mechinterp.report.render.chart import short
from mechinterp.report.render.costs import costs
from mechinterp.report.render.numbers import NumberFormat, percent
from mechinterp.report.render.page_shell import page
from mechinterp.report.render.support import sign_sentence
from mechinterp.report.render.tables import Rows, captioned

_SCRIPTS = (
    *("words.js", "geometry.js", "marks.js", "pattern.js", "panel.js", "ranking.js", "save.js"),
    "circuit.js",
)
_N_STRONGEST = 40
_DIGITS = 5
_EXTRA = 2  # digits of a score beyond the two that show its size


@checks_arguments
def circuit_page(
    scores: EdgeScores,
    circuit: Circuit | Mapping[str, Circuit],
    *,
    title: str,
    notes: Sequence[str] = (),
    curves: Mapping[str, xr.Dataset] | None = None,
    patterns: xr.DataArray | None = None,
    tokens: Sequence[str] | None = None,
    tables: Mapping[str, Rows] | None = None,
) -> str:
    """The whole page: the graph, what a node reads and writes, faithfulness, strongest edges.

    `circuit`: the edges shown at first, or two circuits by name, to be compared. `scores`: how wide
    edges are, and all others on demand.
    `curves`: results of `mechinterp.circuits.faithfulness` by name. `patterns`: attention of one
    prompt, dims (layer, head, pos, src), shown for the circuit's heads; its `tokens`, or the
    coordinate `token`. `tables` holds rows for each caption, as column to value.

    Raises:
        ValueError: if the circuits are of another graph than the scores or more than two, or the
            curves or patterns are not what they should be.
    """
    names, circuits = _named(circuit)
    edges = read_edges(scores, *circuits)
    graph, attrs = scores.graph, scores.per_pair.attrs
    unit = escape(str(attrs.get("unit", "")))
    shown = None
    if patterns is not None:
        shown = read_patterns(patterns, tokens, _heads(edges, circuits))
    kept = read_faithfulness_curves(curves or {}, graph.n_edges)
    return page(
        "circuit.html",
        ["page.css", "circuit.css", "pattern.css"],
        _SCRIPTS,
        title=title,
        payload=_payload(edges, names, unit, shown),
        graph=graph,
        edges=edges,
        attrs=attrs,
        unit=unit,
        names=names,
        headline=headline(circuits[0]),
        sentences=[*sentences(edges, circuits[0], unit), *filter(None, [left_out(edges)])],
        overlaps=overlaps(*circuits) if names else [],
        kept=kept,
        kept_chart=faithfulness_chart(kept),
        shares=any(reader.kind in "kv" for reader in graph.inputs)
        and graph.feeds[:-1].sum(1).max(initial=0) > 1,
        patterns=shown,
        strongest=edges.strongest(_N_STRONGEST),
        held_by=lambda edge: held_by(edge, names),
        interval=lambda edge: interval_text(edges, edge, extra=_EXTRA),
        exact=NumberFormat.of(edges.largest, extra=_EXTRA),
        short=short,
        level=percent(edges.level).replace(".0%", "%"),
        share_text=share_text,
        sign=sign_sentence(edges.supports, "the metric", "the edge"),
        tables=captioned(tables),
        notes=[escape(note) for note in notes],
        costs=costs(attrs),
    )


def _named(
    circuit: Circuit | Mapping[str, Circuit],
) -> tuple[tuple[str, str] | None, Sequence[Circuit]]:
    """The names of two circuits, and the circuits; no names of one that stands alone."""
    if not isinstance(circuit, Mapping):
        return None, [circuit]
    if len(circuit) != 2:
        raise ValueError(
            f"circuit names {list(circuit)}: a page shows one circuit, or compares two by name."
        )
    first, second = map(escape, circuit)
    return (first, second), list(circuit.values())


def _heads(edges: Edges, circuits: Sequence[Circuit]) -> list[tuple[int, int]]:
    """The heads of the circuits as (layer, head), those with the most |score| first."""
    weight = _weights(edges)
    names = {name for circuit in circuits for name in circuit.nodes}
    places = [i for i, name in enumerate(edges.graph.writers) if name in names]
    places.sort(key=lambda place: -weight[place])
    nodes = (edges.graph.nodes[place] for place in places)
    return [
        (node.layer, node.head)
        for node in nodes
        if node.layer is not None and node.head is not None
    ]


def _weights(edges: Edges) -> Float[np.ndarray, " writer"]:
    """The |score| of all edges of a circuit out of each writer or into it."""
    held = edges.held > 0
    size = np.where(held & (edges.rank > 0), np.abs(np.nan_to_num(edges.score)), 0.0)
    out = np.bincount(edges.at[:, 0], size, minlength=len(edges.graph.writers))
    read = np.bincount(edges.at[:, 1], size, minlength=len(edges.graph.readers))
    weights: Float[np.ndarray, " writer"] = out + read @ edges.graph.feeds
    return weights


def _payload(
    edges: Edges, names: tuple[str, str] | None, unit: str, patterns: Patterns | None
) -> dict[str, object]:
    """What the script draws: for each edge a number in each list."""
    exact = NumberFormat.of(edges.largest, extra=_EXTRA)
    columns = {"w": edges.at[:, 0], "r": edges.at[:, 1], "held": edges.held}
    if edges.graph.positions:
        columns["p"] = edges.at[:, 2]
    if edges.n_left_out:
        columns["rank"] = edges.rank
    n = edges.n_intervals
    return {
        "graph": _graph(edges.graph),
        "edges": {name: column.tolist() for name, column in columns.items()}
        | {
            "s": _rounded(edges.score[: edges.ranked]),
            "low": _rounded(edges.low[:n]),
            "high": _rounded(edges.high[:n]),
        },
        "largest": edges.largest,
        "reach": edges.reach,
        "supports": edges.supports,
        "unit": unit,
        "names": names,
        "digits": int(exact.spec[2:-1]),
        "is_power": exact.spec.endswith("e"),
        "n_strongest": _N_STRONGEST,
        "patterns": None if patterns is None else _pattern_payload(patterns),
    }


def _graph(graph: Graph) -> dict[str, object]:
    """Nodes and readers; -1: no layer, or no head."""
    return {
        "writers": graph.writers,
        "layer": [_number(node.layer) for node in graph.nodes],
        "head": [_number(node.head) for node in graph.nodes],
        "readers": graph.readers,
        "kind": [reader.kind for reader in graph.inputs],
        "feeds": [np.flatnonzero(row).tolist() for row in graph.feeds],
        "positions": [escape(label) for label in graph.positions],
        "n_layers": graph.n_layers,
        "n_heads": graph.n_heads,
        "has_mlps": graph.has_mlps,
        "is_parallel": graph.is_parallel,
    }


def _number(number: int | None) -> int:
    return -1 if number is None else number


def _pattern_payload(patterns: Patterns) -> dict[str, object]:
    named = {f"a{layer}.h{head}": rows for (layer, head), rows in patterns.heads.items()}
    return {"tokens": patterns.tokens, "heads": named}


def _rounded(values: Float[np.ndarray, " edge"]) -> list[float | None]:
    """So many digits as can be seen; None where there is no number."""
    return [float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None for value in values]
