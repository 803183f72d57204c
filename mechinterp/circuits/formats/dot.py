"""A circuit as Graphviz text, layers from the bottom up: `dot -Tsvg circuit.dot` draws it.

>>> import tempfile
>>> from mechinterp.circuits import Circuit, Graph, write_dot
>>> graph = Graph(2, 2, 2, has_mlps=True, is_parallel=False)
>>> found = Circuit.from_edges(graph, ["input->a0.h1<v>", "a0.h1->logits"])
>>> with tempfile.TemporaryDirectory() as folder:
...     print(write_dot(found, f"{folder}/found.dot").read_text().splitlines()[-3])
  "input" -> "a0.h1" [label="v", color="#888888", penwidth=0.50, tooltip="input->a0.h1<v>"];

Heads of a layer stand in a row, with the MLP above them (beside them in a parallel model). The
larger the score of an edge, the thicker it is; it is red where it supports the behaviour, blue
where it works against it, and gray with a score of 0 or none. A shared key or value input is drawn
into each of its heads.
"""

from pathlib import Path

import numpy as np

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.formats.own import write_file
from mechinterp.circuits.graph import Graph, parse_node
from mechinterp.core.arguments import checks_arguments

SUPPORTS, AGAINST, UNSCORED = "#b2182b", "#2166ac", "#888888"
THIN, THICK = 0.5, 5.0


@checks_arguments
def write_dot(circuit: Circuit, file: str | Path, *, scores: EdgeScores | None = None) -> Path:
    """Write the circuit as a digraph, with edges drawn by their mean score if scores are given.

    Raises:
        ValueError: if the scores belong to another graph.
    """
    graph = circuit.graph
    if scores is not None and scores.graph != graph:
        raise ValueError(f"{file}: the scores belong to {scores.graph}, the circuit to {graph}.")
    mean = np.full(graph.edges.shape, np.nan) if scores is None else scores.mean
    indices = np.argwhere(circuit.mask).tolist()
    largest = max((abs(mean[*at]) for at in indices if np.isfinite(mean[*at])), default=0.0) or 1.0
    unit = "" if scores is None else f" {scores.per_pair.attrs.get('unit', '')}".rstrip()
    lines = ["digraph circuit {", "  rankdir=BT;", "  node [shape=box, style=rounded];"]
    for row in _rows(circuit):
        lines.append(f"  {{ rank=same; {' '.join(f'{_quote(name)};' for name in row)} }}")
    for writer, reader, pos in indices:
        score = mean[writer, reader, pos]
        name, shown = graph.edge_name(writer, reader, pos), np.isfinite(score)
        color = SUPPORTS if score > 0 else AGAINST if score < 0 else UNSCORED  # NaN: neither
        width = THIN + (THICK - THIN) * abs(score) / largest if shown else THIN
        tooltip = f"{name}: {score:+.4g}{unit}" if shown else name
        style = (
            f"label={_quote(_label(graph, reader, pos))}, color={_quote(color)}, "
            f"penwidth={width:.2f}, tooltip={_quote(tooltip)}"
        )
        for fed in _fed(graph, reader):
            lines.append(f"  {_quote(graph.writers[writer])} -> {_quote(fed)} [{style}];")
    return write_file("\n".join([*lines, "}", ""]).encode(), file)


def _rows(circuit: Circuit) -> list[list[str]]:
    rows: dict[tuple[float, bool], list[str]] = {}
    for name in circuit.nodes:
        part = None if name == "logits" else parse_node(name)
        layer = circuit.graph.n_layers if part is None else -1 if part.layer is None else part.layer
        above = part is not None and part.head is None and not circuit.graph.is_parallel
        rows.setdefault((layer, above), []).append(name)
    return [rows[key] for key in sorted(rows)]


def _fed(graph: Graph, reader: int) -> list[str]:
    return [graph.writers[i] for i in np.flatnonzero(graph.feeds[reader])] or ["logits"]


def _label(graph: Graph, reader: int, pos: int) -> str:
    kind = graph.inputs[reader].kind
    letter = kind if len(kind) == 1 else ""
    return f"{letter} @{graph.positions[pos]}".lstrip() if graph.positions else letter


def _quote(text: str) -> str:
    """A DOT string: labels interpret backslashes, quotes and HTML entities."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
    return f'"{escaped}"'.replace("\n", "\\n")
