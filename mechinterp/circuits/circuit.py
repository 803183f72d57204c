"""A circuit: a set of edges of a graph, as a value; and scores of edges, one for each pair.

>>> from mechinterp import load_model
>>> from mechinterp.circuits import Circuit, Graph
>>> graph = Graph.from_model(load_model("toy:induction-trained"))
>>> found = Circuit.from_edges(graph, ["input->a0.h0<v>", "a0.h0->a1.h0<k>", "a1.h0->logits"])
>>> found.n_edges, found.nodes, (Circuit.full(graph) - found).n_edges
(3, ('input', 'a0.h0', 'a1.h0', 'logits'), 9)
>>> Circuit.from_edges(graph, ["input->a0.h0<v>", "input->logits"]).pruned().names
('input->logits',)

Circuits combine as sets by `&`, `|` and `-`; every operation returns a new one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from mechinterp.circuits.graph import KINDS, Graph
from mechinterp.core.arguments import checks_arguments
from mechinterp.stats.intervals import interval


@dataclass(frozen=True, eq=False)
class Circuit:
    """A set of edges of a graph. `requested`: how many a search was asked for, if it was told."""

    graph: Graph
    mask: Bool[np.ndarray, "writer reader pos"]
    requested: int | None = None

    def __post_init__(self) -> None:
        shape = self.graph.edges.shape
        mask = np.array(self.mask, dtype=bool)
        if mask.shape != shape:
            raise ValueError(f"the mask has shape {mask.shape}, the edges of the graph {shape}.")
        if (mask & ~self.graph.edges).any():
            first = np.argwhere(mask & ~self.graph.edges)[0].tolist()
            raise ValueError(f"{self.graph.edge_name(*first)} is not an edge of this graph.")
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)

    @classmethod
    @checks_arguments
    def from_edges(cls, graph: Graph, edges: Iterable[str]) -> "Circuit":
        """The circuit of these edges, by name.

        Raises:
            ValueError: if one is not an edge of the graph.
        """
        mask = np.zeros(graph.edges.shape, dtype=bool)
        for name in edges:
            mask[graph.edge(name)] = True
        return cls(graph, mask)

    @classmethod
    @checks_arguments
    def from_nodes(cls, graph: Graph, nodes: Iterable[str]) -> "Circuit":
        """All edges among these writers, and from them to the logits.

        Raises:
            ValueError: if one is not a writer of the graph.
        """
        chosen = np.zeros(len(graph.nodes), dtype=bool)
        for name in nodes:
            chosen[graph.writer(name)] = True
        read = np.any(graph.feeds & chosen, axis=1)
        read[-1] = True  # the logits
        return cls(graph, graph.edges & chosen[:, None, None] & read[:, None])

    @classmethod
    def full(cls, graph: Graph) -> "Circuit":
        """The circuit of all edges: the model."""
        return cls(graph, graph.edges)

    @classmethod
    def empty(cls, graph: Graph) -> "Circuit":
        """The circuit without edges."""
        return cls(graph, np.zeros(graph.edges.shape, dtype=bool))

    @property
    def n_edges(self) -> int:
        """The number of edges."""
        return int(self.mask.sum())

    @property
    def share(self) -> float:
        """The share of all edges that it has, 0 to 1."""
        return self.n_edges / self.graph.n_edges

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of its edges."""
        return tuple(self.graph.edge_name(*at) for at in np.argwhere(self.mask).tolist())

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The nodes with an edge out of or into them, in the model's order."""
        out, read = np.any(self.mask, axis=(1, 2)), np.any(self.mask, axis=(0, 2))
        into = np.any(self.graph.feeds[np.flatnonzero(read)], axis=0)
        ends = ("logits",) if self.mask[:, -1].any() else ()
        named = zip(self.graph.writers, out | into, strict=True)
        return (*(name for name, is_in in named if is_in), *ends)

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """The heads among its nodes, as (layer, head)."""
        found = (self.graph.nodes[self.graph.writer_index[n]] for n in self.nodes if n != "logits")
        return tuple((n.layer, n.head) for n in found if n.layer is not None and n.head is not None)

    def pruned(self) -> "Circuit":
        """The circuit without edges on no path from the embedding to the logits.

        What the model does with the circuit alone stays the same.
        """
        mask, feeds = np.array(self.mask), self.graph.feeds
        # A key or value at one position reaches the head's output at every later one.
        spreads = np.array([r.kind in KINDS[1:] for r in self.graph.inputs])[:, None]
        while True:
            before = mask.sum()
            into = np.any(mask, axis=0)  # [reader, pos]
            reaches = np.where(spreads, into.any(1, keepdims=True), into)
            # [reader, writer] x [reader, pos] -> [writer, pos]: writers with an input
            has_input = np.einsum("rw,rp->wp", feeds, reaches)
            has_input[0] = True  # the embedding reads the tokens
            mask &= has_input[:, None]
            # [reader, writer] x [writer, pos] -> [reader, pos]: inputs of nodes that are read
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

    def _with(self, other: "Circuit", join: np.ufunc) -> "Circuit":
        if self.graph != other.graph:
            raise ValueError(
                f"the circuits have different graphs, {self.graph} and {other.graph}. Make both "
                f"from one Graph.from_model(model)."
            )
        return Circuit(self.graph, join(self.mask, other.mask))


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """A score of every edge for every pair, in the metric's unit; positive: the edge supports it.

    `per_pair` has dims (writer, reader, pos, pair), and NaN where there is no edge or it was not
    scored; its `attrs` say how the scores were computed and at what cost.
    """

    graph: Graph
    per_pair: xr.DataArray

    @classmethod
    def from_array(
        cls, graph: Graph, values: Float[np.ndarray, "writer reader pos pair"], **attrs: object
    ) -> "EdgeScores":
        """Scores from an array, with labels; NaN where there is no edge."""
        coords: dict[str, Sequence[object]] = {
            "writer": graph.writers,
            "reader": graph.readers,
            "pos": graph.positions or ("all",),
            "pair": range(values.shape[3]),
        }
        scored = np.where(graph.edges[..., None], values, np.nan)
        labels = {name: list(labels) for name, labels in coords.items()}
        return cls(graph, xr.DataArray(scored, labels, tuple(labels), "score", dict(attrs)))

    @cached_property
    def mean(self) -> Float[np.ndarray, "writer reader pos"]:
        """The mean over pairs."""
        mean: Float[np.ndarray, "writer reader pos"] = self.per_pair.values.mean(-1)
        return mean

    def __getitem__(self, edge: str) -> float:
        """The mean score of an edge, by name."""
        return float(self.mean[self.graph.edge(edge)])

    def interval(self, *, level: float = 0.95) -> xr.Dataset:
        """Mean, `low` and `high` of each edge over pairs, as `mechinterp.stats.interval`."""
        return interval(self.per_pair, dim="pair", level=level)

    def strongest(self, n: int) -> list[tuple[str, float]]:
        """The names and mean scores of the `n` edges whose mean score has the largest size."""
        sizes = np.where(np.isfinite(self.mean), np.abs(self.mean), -1.0)
        order = np.argsort(-sizes, axis=None, kind="stable")[:n]
        indices = [np.unravel_index(i, sizes.shape) for i in order if sizes.flat[i] >= 0]
        return [(self.graph.edge_name(*map(int, at)), float(self.mean[at])) for at in indices]

    def node_scores(self) -> xr.DataArray:
        """The sum of the scores of the edges out of each writer: dims (writer, pair)."""
        return self.per_pair.sum(("reader", "pos"), skipna=True, keep_attrs=True)
