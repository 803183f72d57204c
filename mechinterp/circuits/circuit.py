"""A circuit: a set of edges of a graph, as a value. And scores over all edges, one for each pair.

>>> from mechinterp import load_model
>>> from mechinterp.circuits import Circuit, Graph
>>> graph = Graph.from_model(load_model("toy:induction-trained"))
>>> found = Circuit.from_edges(graph, ["input->a0.h0<v>", "a0.h0->a1.h0<k>", "a1.h0->logits"])
>>> found.n_edges, found.nodes, (Circuit.full(graph) - found).n_edges
(3, ('input', 'a0.h0', 'a1.h0', 'logits'), 9)
>>> Circuit.from_edges(graph, ["input->a0.h0<v>", "input->logits"]).pruned().names
('input->logits',)

Sets compose by `&`, `|` and `-`; nothing here changes what it is given.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from mechinterp.circuits.graph import KINDS, Graph
from mechinterp.stats.intervals import interval


@dataclass(frozen=True, eq=False)
class Circuit:
    """Edges of a graph. `requested`: how many were asked for, where a search was told a number."""

    graph: Graph
    mask: Bool[np.ndarray, "writer reader pos"]
    requested: int | None = None

    def __post_init__(self) -> None:
        shape = self.graph.edges.shape
        mask: Any = np.array(self.mask, dtype=bool)
        if mask.shape != shape:
            raise ValueError(f"mask has shape {mask.shape}, the graph's edges {shape}.")
        if (mask & ~self.graph.edges).any():
            first = np.argwhere(mask & ~self.graph.edges)[0].tolist()
            raise ValueError(f"{self.graph.edge_name(*first)} is no edge of this graph.")
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)

    @classmethod
    def from_edges(cls, graph: Graph, edges: Iterable[str]) -> "Circuit":
        """The circuit of these edges, by name.

        Raises:
            ValueError: if one is no edge of the graph.
        """
        mask: Any = np.zeros(graph.edges.shape, dtype=bool)
        for name in edges:
            mask[graph.edge(name)] = True
        return cls(graph, mask)

    @classmethod
    def from_nodes(cls, graph: Graph, nodes: Iterable[str]) -> "Circuit":
        """All edges among these writers, and from them to the logits.

        Raises:
            ValueError: if one is no writer of the graph.
        """
        chosen: Any = np.zeros(len(graph.nodes), dtype=bool)
        for name in nodes:
            chosen[graph.writer(name)] = True
        read: Any = (graph.feeds & chosen).any(1)
        read[-1] = True  # the logits
        return cls(graph, graph.edges & chosen[:, None, None] & read[:, None])

    @classmethod
    def full(cls, graph: Graph) -> "Circuit":
        """All edges: the model."""
        return cls(graph, graph.edges)

    @classmethod
    def empty(cls, graph: Graph) -> "Circuit":
        """No edge."""
        return cls(graph, np.zeros(graph.edges.shape, dtype=bool))

    @property
    def n_edges(self) -> int:
        """Edges in it."""
        return int(self.mask.sum())

    @property
    def share(self) -> float:
        """The part of all edges that is in it, 0 to 1."""
        return self.n_edges / self.graph.n_edges

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The edges by name."""
        return tuple(self.graph.edge_name(*at) for at in np.argwhere(self.mask).tolist())

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that an edge goes out of or into, in the model's order."""
        out, read = np.any(self.mask, axis=(1, 2)), np.any(self.mask, axis=(0, 2))
        into = np.any(self.graph.feeds[np.flatnonzero(read)], axis=0)
        ends = ("logits",) if self.mask[:, -1].any() else ()
        named = zip(self.graph.writers, out | into, strict=True)
        return (*(name for name, there in named if there), *ends)

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """The heads among its nodes, as (layer, head)."""
        found = (self.graph.nodes[self.graph.writer_index[n]] for n in self.nodes if n != "logits")
        return tuple((n.layer, n.head) for n in found if n.layer is not None and n.head is not None)

    def pruned(self) -> "Circuit":
        """Without the edges that carry nothing: into a part that nobody reads, out of one cut off.

        A new circuit, to a fixed point. What the model does with the circuit stays the same.
        """
        mask, feeds = np.array(self.mask), self.graph.feeds
        spreads = np.array([r.kind in KINDS[1:] for r in self.graph.inputs])[:, None]
        while True:
            before = mask.sum()
            into = np.any(mask, axis=0)  # [reader, pos]
            reaches = np.where(spreads, into.any(1, keepdims=True), into)
            reads = np.einsum("rw,rp->wp", feeds, reaches)
            reads[0] = True  # the embedding reads the tokens
            mask &= reads[:, None]
            goes_on = np.einsum("rw,wp->rp", feeds, mask.any(1))
            goes_on[-1] = True  # the logits are read
            mask &= np.where(spreads, goes_on.any(1, keepdims=True), goes_on)
            if mask.sum() == before:
                return Circuit(self.graph, mask, self.requested)

    def __and__(self, other: "Circuit") -> "Circuit":
        return self._with(other, np.logical_and)

    def __or__(self, other: "Circuit") -> "Circuit":
        return self._with(other, np.logical_or)

    def __sub__(self, other: "Circuit") -> "Circuit":
        return self._with(other, np.greater)

    def __contains__(self, name: str) -> bool:
        return bool(self.mask[self.graph.edge(name)])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Circuit):
            return NotImplemented
        return self.graph == other.graph and bool((self.mask == other.mask).all())

    def __hash__(self) -> int:
        return hash((self.graph, self.mask.tobytes()))

    def __repr__(self) -> str:
        asked = "" if self.requested is None else f" of {self.requested} requested"
        return f"Circuit({self.n_edges}{asked}, of {self.graph.n_edges} edges)"

    def _with(self, other: "Circuit", join: Callable[..., Any]) -> "Circuit":
        if self.graph != other.graph:
            raise ValueError(
                f"two circuits of different graphs: {self.graph} and {other.graph}. Make both from "
                f"one Graph.from_model(model)."
            )
        return Circuit(self.graph, join(self.mask, other.mask))


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """A score of every edge for every pair, in the metric's unit; positive: the edge supports it.

    `per_pair` has dims (writer, reader, pos, pair), NaN where there is no edge or none was asked
    for; `attrs` say how they were made and what that cost.
    """

    graph: Graph
    per_pair: xr.DataArray

    @classmethod
    def from_array(
        cls, graph: Graph, values: Float[np.ndarray, "writer reader pos pair"], **attrs: object
    ) -> "EdgeScores":
        """Scores from an array, labelled; what is no edge becomes NaN."""
        coords: dict[str, Sequence[object]] = {
            "writer": graph.writers,
            "reader": graph.readers,
            "pos": graph.positions or ("all",),
            "pair": range(values.shape[3]),
        }
        there = np.where(graph.edges[..., None], values, np.nan)
        labels = {name: list(labels) for name, labels in coords.items()}
        return cls(graph, xr.DataArray(there, labels, tuple(labels), "score", dict(attrs)))

    @cached_property
    def mean(self) -> Float[np.ndarray, "writer reader pos"]:
        """The mean over pairs: the sum over pairs, divided by their number once."""
        mean: Float[np.ndarray, "writer reader pos"] = self.per_pair.values.mean(-1)
        return mean

    def __getitem__(self, edge: str) -> float:
        """The mean score of an edge, by its name."""
        return float(self.mean[self.graph.edge(edge)])

    def interval(self, **options: object) -> xr.Dataset:
        """Mean, `low` and `high` of each edge over pairs, as `mechinterp.stats.interval`."""
        return interval(self.per_pair, dim="pair", **options)  # type: ignore[arg-type]

    def strongest(self, n: int) -> list[tuple[str, float]]:
        """The `n` edges of the largest absolute mean, with it."""
        sizes = np.where(np.isfinite(self.mean), np.abs(self.mean), -1.0)
        order = np.argsort(-sizes, axis=None, kind="stable")[:n]
        places = [np.unravel_index(i, sizes.shape) for i in order if sizes.flat[i] >= 0]
        return [(self.graph.edge_name(*map(int, at)), float(self.mean[at])) for at in places]

    def node_scores(self) -> xr.DataArray:
        """The sum of the scores of the edges out of each writer: dims (writer, pair)."""
        return self.per_pair.sum(("reader", "pos"), skipna=True, keep_attrs=True)
