"""A circuit in words: its size, its strongest edge, what it shares with another.

plain(headline(found))
# The circuit keeps 224 of 123,211 edges (0.182%), between 66 of 302 nodes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechinterp.report.circuit.edges import FIRST, Circuit, Edge, Edges
from mechinterp.report.circuit.faithfulness_curve import share_text
from mechinterp.report.render.numbers import NumberFormat, percent
from mechinterp.report.render.phrases import Phrase, Piece
from mechinterp.report.render.support import side


@dataclass(frozen=True)
class Overlap:
    """How many edges, or nodes, two circuits share; Jaccard: those in both, of those in either."""

    what: str
    both: int
    only_first: int
    only_second: int

    @property
    def jaccard(self) -> float:
        """From 0, nothing shared, to 1, the same; two empty circuits are the same."""
        either = self.both + self.only_first + self.only_second
        return self.both / either if either else 1.0


def overlaps(first: Circuit, second: Circuit) -> tuple[Overlap, Overlap]:
    """What two circuits share, in edges and in nodes."""
    one, other = first.mask, second.mask
    nodes, others = set(first.nodes), set(second.nodes)
    return (
        Overlap(
            "edges", int((one & other).sum()), *(int(m.sum()) for m in (one & ~other, other & ~one))
        ),
        Overlap("nodes", len(nodes & others), len(nodes - others), len(others - nodes)),
    )


def headline(circuit: Circuit) -> Phrase:
    """How much of the graph the circuit is."""
    graph, n_edges = circuit.graph, int(circuit.mask.sum())
    return (
        Piece("The circuit keeps "),
        Piece(f"{n_edges:,}", "number"),
        Piece(f" of {graph.n_edges:,} edges ({share_text(n_edges / graph.n_edges)}), between "),
        Piece(f"{len(circuit.nodes):,}", "number"),
        Piece(f" of {len(graph.nodes) + 1:,} nodes."),
    )


def sentences(edges: Edges, circuit: Circuit, unit: str) -> list[Phrase]:
    """What was asked for, the strongest edge, and the signs of those in the circuit."""
    said: list[Phrase] = []
    n_edges = int(circuit.mask.sum())
    if circuit.requested is not None and circuit.requested != n_edges:
        said.append((Piece(f"{circuit.requested:,} edges were requested, {n_edges:,} were kept."),))
    if edges.ranked:
        said.append(_strongest(edges, edges[0], unit))
    held = np.flatnonzero(edges.held & FIRST)
    scored = held[held < edges.ranked]
    if len(scored):
        sides = Counter(side(score, edges.supports) for score in edges.score[scored])
        neither = f"; {sides['zero']:,} have a score of 0" if sides["zero"] else ""
        said.append(
            (
                Piece(f"Of the circuit's edges {sides['supports']:,} support the metric and "),
                Piece(f"{sides['against']:,} work against it{neither}."),
            )
        )
    if n_unscored := len(held) - len(scored):
        subject = "edge of the circuit has" if n_unscored == 1 else "edges of the circuit have"
        said.append((Piece(f"{n_unscored:,} {subject} no score."),))
    return said


def left_out(edges: Edges) -> Phrase:
    """How many edges the page leaves out; empty if it holds all."""
    if not edges.n_left_out:
        return ()
    return (
        Piece(
            f"This page holds {len(edges):,} edges, those of the circuit first and then the "
            f"strongest; {edges.n_left_out:,} weaker ones are left out."
        ),
    )


def interval_text(edges: Edges, edge: Edge, *, extra: int = 1) -> str:
    """Both ends of the interval, or `–`."""
    form = NumberFormat.of(edges.largest, extra=extra)
    return f"{form(edge.low)} to {form(edge.high)}" if edge.has_interval else "–"


def held_by(edge: Edge, names: Sequence[str] | None) -> str:
    """Which circuit an edge is in, as a word or two; `names` of two, where there are two."""
    if names is None:
        return "yes" if edge.in_first else "no"
    if edge.in_first and edge.in_second:
        return "both"
    return names[0] if edge.in_first else names[1] if edge.in_second else "neither"


def _strongest(edges: Edges, edge: Edge, unit: str) -> Phrase:
    value = f"{NumberFormat.of(edges.largest, extra=1)(edge.score)} {unit}".rstrip()
    interval = (
        f" ({percent(edges.level).replace('.0%', '%')} interval {interval_text(edges, edge)})"
    )
    return (
        Piece("The strongest edge: "),
        Piece(edge.name.replace("->", " → "), "token"),
        Piece(", "),
        Piece(value, "number"),
        Piece(f"{interval if edge.has_interval else ''}."),
    )
