"""The edges of a circuit as a view shows them: by strength, with the circuit that holds each.

`mechinterp.circuits` makes graphs, scores and circuits, with torch; a view needs none of it, and
accepts any values that have these attributes.

    found = read_edges(scores, circuit)
    found[0]                      # the strongest edge: its name, its score, its interval
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from mechinterp import stats
from mechinterp.core.printable import escape
from mechinterp.report.render.support import Sign, supporting_sign

MOST_EDGES = 20_000
"""How many edges a page holds, the strongest ones."""

N_INTERVALS = 500
"""How many of the strongest edges get an interval, so that a page stays small."""

FIRST, SECOND = 1, 2


@runtime_checkable
class GraphNode(Protocol):
    """A head or an MLP, or with neither layer nor head the embedding."""

    @property
    def layer(self) -> int | None: ...
    @property
    def head(self) -> int | None: ...


@runtime_checkable
class GraphInput(Protocol):
    """What an edge leads into: `kind` is "q", "k" or "v" of a head."""

    @property
    def kind(self) -> str: ...


@runtime_checkable
class Graph(Protocol):
    """Writers, readers and the edges between them, as `mechinterp.circuits.Graph`."""

    @property
    def n_layers(self) -> int: ...
    @property
    def n_heads(self) -> int: ...
    @property
    def has_mlps(self) -> bool: ...
    @property
    def is_parallel(self) -> bool: ...
    @property
    def positions(self) -> tuple[str, ...]: ...
    @property
    def nodes(self) -> Sequence[GraphNode]: ...
    @property
    def inputs(self) -> Sequence[GraphInput]: ...
    @property
    def writers(self) -> tuple[str, ...]: ...
    @property
    def readers(self) -> tuple[str, ...]: ...
    @property
    def feeds(self) -> Bool[np.ndarray, "reader writer"]: ...
    @property
    def n_edges(self) -> int: ...
    def edge_name(self, writer: int, reader: int, pos: int = 0) -> str: ...


@runtime_checkable
class Circuit(Protocol):
    """A set of edges of a graph, as `mechinterp.circuits.Circuit`."""

    @property
    def graph(self) -> Graph: ...
    @property
    def mask(self) -> Bool[np.ndarray, "writer reader pos"]: ...
    @property
    def requested(self) -> int | None: ...
    @property
    def nodes(self) -> tuple[str, ...]: ...


@runtime_checkable
class EdgeScores(Protocol):
    """A score of each edge for each pair, as `mechinterp.circuits.EdgeScores`."""

    @property
    def graph(self) -> Graph: ...
    @property
    def per_pair(self) -> xr.DataArray: ...
    @property
    def mean(self) -> Float[np.ndarray, "writer reader pos"]: ...


@dataclass(frozen=True)
class Edge:
    """One edge: `rank` by |score| among all that have one (None: no score); NaN: no interval."""

    place: int
    writer: str
    reader: str
    pos: str
    score: float
    low: float
    high: float
    rank: int | None
    in_first: bool
    in_second: bool

    @property
    def has_interval(self) -> bool:
        """Whether both ends are there."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def name(self) -> str:
        """As the graph names it, a position's label made printable."""
        return f"{self.writer}->{self.reader}{f'@{self.pos}' if self.pos else ''}"


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges by |score|, those of a circuit without a score last.

    `at`: writer, reader and position; `rank` 0 where there is no score; `held`: 1 in the first
    circuit, 2 in the second, 3 in both. `n_scored`: edges of the graph that have a score,
    `n_left_out`: those among them, or in a circuit, that are not here. `supports`: which sign of a
    score supports the metric.
    """

    graph: Graph
    at: Int[np.ndarray, "edge 3"]
    score: Float[np.ndarray, " edge"]
    low: Float[np.ndarray, " edge"]
    high: Float[np.ndarray, " edge"]
    rank: Int[np.ndarray, " edge"]
    held: Int[np.ndarray, " edge"]
    n_scored: int
    n_left_out: int
    n_pairs: int
    level: float
    supports: Sign = "positive"

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, place: int) -> Edge:
        writer, reader, pos = (int(i) for i in self.at[place])
        graph = self.graph
        return Edge(
            place,
            graph.writers[writer],
            graph.readers[reader],
            escape(graph.positions[pos]) if graph.positions else "",
            float(self.score[place]),
            float(self.low[place]),
            float(self.high[place]),
            int(self.rank[place]) or None,
            bool(self.held[place] & FIRST),
            bool(self.held[place] & SECOND),
        )

    @cached_property
    def ranked(self) -> int:
        """How many edges have a score; they come first."""
        return int((self.rank > 0).sum())

    @cached_property
    def n_intervals(self) -> int:
        """The number of leading edges among which all intervals are."""
        known = np.flatnonzero(np.isfinite(self.low))
        return int(known[-1]) + 1 if len(known) else 0

    @property
    def has_intervals(self) -> bool:
        """Whether any edge has one."""
        return self.n_intervals > 0

    @cached_property
    def largest(self) -> float:
        """The largest |score|."""
        return float(np.abs(self.score[: self.ranked]).max(initial=0.0))

    @cached_property
    def reach(self) -> float:
        """The largest |score| or end of an interval."""
        ends = np.concatenate([self.low, self.high])
        return max(self.largest, float(np.abs(ends[np.isfinite(ends)]).max(initial=0.0)))

    def strongest(self, n: int) -> list[Edge]:
        """The first `n` that have a score."""
        return [self[place] for place in range(min(n, self.ranked))]


def read_edges(
    scores: EdgeScores, circuit: Circuit, other: Circuit | None = None, *, most: int = MOST_EDGES
) -> Edges:
    """The edges that have a score or are in a circuit; of more than `most`, the circuits' first.

    Raises:
        ValueError: if a circuit is of another graph than the scores.
    """
    for found in (circuit, other):
        if found is not None and found.graph != scores.graph:
            raise ValueError(
                f"a circuit is of {found.graph}, the scores of {scores.graph}. Make both from one "
                "Graph.from_model(model)."
            )
    mean = scores.mean.astype(float)
    held = FIRST * circuit.mask.astype(int)
    if other is not None:
        held = held + SECOND * other.mask
    flat, holders = mean.ravel(), held.ravel()
    size = np.where(np.isfinite(flat), np.abs(flat), -1.0)
    n_scored = int((size >= 0).sum())
    rank = np.zeros(size.size, dtype=int)
    rank[np.argsort(-size, kind="stable")[:n_scored]] = np.arange(1, n_scored + 1)
    wanted = np.flatnonzero((size >= 0) | (holders > 0))
    first = np.lexsort((-size[wanted], holders[wanted] == 0))[:most]
    chosen = wanted[first]
    chosen = chosen[np.argsort(-size[chosen], kind="stable")]
    low, high, level = _intervals(scores.per_pair, chosen, size)
    return Edges(
        graph=scores.graph,
        at=np.stack(np.unravel_index(chosen, mean.shape), axis=1),
        score=np.where(size[chosen] >= 0, flat[chosen], math.nan),
        low=low,
        high=high,
        rank=rank[chosen],
        held=holders[chosen],
        n_scored=n_scored,
        n_left_out=len(wanted) - len(chosen),
        n_pairs=int(scores.per_pair.sizes["pair"]),
        level=level,
        supports=supporting_sign(scores.per_pair.attrs),
    )


def _intervals(
    per_pair: xr.DataArray, chosen: Int[np.ndarray, " edge"], size: Float[np.ndarray, " any"]
) -> tuple[Float[np.ndarray, " edge"], Float[np.ndarray, " edge"], float]:
    """Both ends for the strongest of the edges, NaN for the others, and their level."""
    low, high = np.full(len(chosen), math.nan), np.full(len(chosen), math.nan)
    n_known = int((size[chosen[:N_INTERVALS]] >= 0).sum())
    if per_pair.sizes["pair"] < 2 or not n_known:
        return low, high, math.nan
    values = per_pair.transpose("writer", "reader", "pos", "pair").values
    rows = values.reshape(-1, values.shape[-1])[chosen[:n_known]]
    found = stats.interval(xr.DataArray(rows.astype(float), dims=("edge", "pair")), dim="pair")
    low[:n_known], high[:n_known] = found["low"], found["high"]
    return low, high, float(found.attrs["level"])
