"""Runs in which one edge is cut, many of them together.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast
>>> from mechinterp.circuits.scores.edge_runs import score_chunk, split_edges
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> chunks = list(split_edges(contrast, contrast.graph.edges))
>>> [(chunk.layer, len(chunk.edges)) for chunk in chunks]
[(0, 9), (1, 36), (2, 7)]
>>> score_chunk(contrast, chunks[2]).shape  # the metric with each edge cut, by pair
(7, 1)

Cutting an edge changes the input of one reader. Only that reader is run again, for many writers at
once, and the change of what it writes is added to the residual stream of the base run. From there
the rows of many edges run through the rest of the model together, from the first token that changes
to the tokens that the metric reads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.circuits.circuit import Circuit
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.graph import Reader
from mechinterp.core.modes import gradients_off
from mechinterp.models.layer_parts import append_keys_values
from mechinterp.sweeps.planner import CPU_POSITIONS

_AT_ONCE = 4 * CPU_POSITIONS
"""Tokens in one run of the heads of a layer, summed over sources and pairs."""

Edge = tuple[int, int, int]
"""The indices of a writer, a reader and a position."""

Rows = Float[Tensor, "arm pair token d_model"]
"""Residual streams; an arm is one edge that is cut, in all pairs."""

ArmValues = Float[np.ndarray, "arm *found pair"]
"""The metric of each arm, or what a `Downstream` records of it."""

EdgeResults = dict[Edge, Float[np.ndarray, "*found pair"]]


@runtime_checkable
class Downstream(Protocol):
    """What takes the place of the rest of the model after a reader's layer.

    `where`: where the reader writes, "mid" (what the MLP of its layer reads) or "after" (the stream
    after the layer). `base`: the base run's residual stream there. `rows`: the changed ones.
    """

    def __call__(
        self,
        where: str,
        base: Float[Tensor, "pair token d_model"],
        rows: Float[Tensor, "row token d_model"],
        /,
    ) -> ArmValues:
        """What to record for each arm."""
        ...


def chosen_edges(
    contrast: Contrast, edges: Circuit | None
) -> Bool[np.ndarray, "writer reader pos"]:
    """The mask of the edges to score: all unless some are given.

    Raises:
        ValueError: if they belong to another graph.
    """
    if edges is not None and edges.graph != contrast.graph:
        raise ValueError(f"the edges belong to {edges.graph}, the two runs to {contrast.graph}.")
    return contrast.graph.edges if edges is None else edges.mask


@dataclass(frozen=True)
class EdgeChunk:
    """Edges into the readers of one layer, from some sources: writers at positions."""

    layer: int
    edges: list[Edge]

    @property
    def sources(self) -> list[tuple[int, int]]:
        """The writers and positions from which the edges come, each once."""
        return list(dict.fromkeys((writer, pos) for writer, _, pos in self.edges))

    @property
    def cost(self) -> int:
        """Roughly how long it takes, in no unit."""
        return len(self.edges)


def split_edges(
    contrast: Contrast, wanted: Bool[np.ndarray, "writer reader pos"]
) -> Iterator[EdgeChunk]:
    """Split edges by the layer of their reader, and by what fits one run of that layer's heads."""
    graph = contrast.graph
    size = max(1, _AT_ONCE // (contrast.n_pairs * contrast.change.shape[2]))
    layers = np.array([graph.n_layers if r.layer is None else r.layer for r in graph.inputs])
    for layer in range(graph.n_layers + 1):
        here = wanted & (layers == layer)[:, None]
        sources = np.argwhere(here.any(1))
        for begin in range(0, len(sources), size):
            writers, positions = sources[begin : begin + size].T
            part = np.zeros_like(here)
            part[writers, :, positions] = here[writers, :, positions]
            yield EdgeChunk(layer, [(w, r, p) for w, r, p in np.argwhere(part).tolist()])


def score_chunk(
    contrast: Contrast, chunk: EdgeChunk, downstream: Downstream | None = None
) -> ArmValues:
    """The metric with each edge of a chunk cut, or what `downstream` records in its place.

    Edges into the logits have nothing after them, so that it is always the metric.
    """
    scores: EdgeResults = {}
    with gradients_off():
        if chunk.layer == contrast.graph.n_layers:
            after = _ArmBatches(contrast, scores, contrast.score)
            after.add(chunk.edges, contrast.resid[-1] + _change_of(contrast, chunk.sources))
            after.flush()
        else:
            _LayerRun(contrast, chunk, scores, downstream).run()
    return np.stack([scores[edge] for edge in chunk.edges])


def _change_of(contrast: Contrast, sources: Sequence[tuple[int, int]]) -> Rows:
    """How each source changes the residual stream that its readers read."""
    change = contrast.change[[writer for writer, _ in sources]]
    if contrast.graph.n_positions == 1:
        return change
    return change * torch.stack([contrast.mask_of_position(pos) for _, pos in sources])


@dataclass(eq=False)
class _ArmBatches:
    """Collects rows and runs them in full batches; the results are stored by edge."""

    contrast: Contrast
    scores: EdgeResults
    run_rows: Callable[[Float[Tensor, "row token d_model"]], ArmValues]
    _edges: list[Edge] = field(default_factory=list)
    _rows: list[Rows] = field(default_factory=list)

    def add(self, edges: Sequence[Edge], rows: Rows) -> None:
        """Add one arm for each edge; run a batch whenever one is full."""
        most = self.contrast.most_arms
        for begin in range(0, len(edges), most):
            room = most - len(self._edges)
            for some in (slice(begin, begin + room), slice(begin + room, begin + most)):
                self._edges += edges[some]
                self._rows.append(rows[some])
                if len(self._edges) >= most:
                    self.flush()

    def flush(self) -> None:
        """Run the rows that are waiting."""
        if self._edges:
            found = self.run_rows(torch.cat(self._rows).flatten(0, 1))
            self.scores.update(zip(self._edges, found, strict=True))
        self._edges, self._rows = [], []


class _LayerRun:
    """One layer of the base run, in which one reader at a time reads a changed input.

    Shapes: `_keys` and `_values` [pair, src, head, d_head], with the tokens before `first`; `_dots`
    [pair, head, query, src], the products of queries and keys before scaling and mask.
    """

    def __init__(
        self,
        contrast: Contrast,
        chunk: EdgeChunk,
        scores: EdgeResults,
        downstream: Downstream | None,
    ) -> None:
        self._contrast, self._chunk, number = contrast, chunk, chunk.layer
        self._layer, self._skip = contrast.layer(number), contrast.n_skipped(number)
        self._resid, self._first = contrast.resid[number], contrast.first
        self._own = contrast.run_layer(number, self._resid)
        self._keys, self._values = append_keys_values(
            contrast.prefix[number], self._own.k, self._own.v
        )
        self._dots = torch.einsum("bqhe,bshe->bhqs", self._own.q, self._keys)
        after = partial(downstream, "after", self._own.resid) if downstream else self._run_rest
        self._after = _ArmBatches(contrast, scores, after)
        # Heads write into what the MLP reads ("mid"), or, where the MLP reads beside them or there
        # is none, into the stream after the layer.
        self._mid, self._mid_resid = self._after, self._own.resid
        if self._own.mlp_in is not None and not contrast.graph.is_parallel:
            self._mid_resid = self._own.mlp_in
            mid = partial(downstream, "mid", self._mid_resid) if downstream else self._run_mlp
            self._mid = _ArmBatches(contrast, scores, mid)

    def run(self) -> None:
        """Run all edges of the chunk, reader by reader.

        Readers are in the order of the graph: all queries of the layer, then keys, values and the
        MLP. So the change of `z` is computed once for each kind, for all heads and sources.
        """
        sources = self._chunk.sources
        row_of = {source: at for at, source in enumerate(sources)}
        change = _change_of(self._contrast, sources)
        by_reader: dict[int, list[Edge]] = {}
        for edge in self._chunk.edges:
            by_reader.setdefault(edge[1], []).append(edge)
        z: dict[str, Tensor] = {}
        for at, edges in sorted(by_reader.items()):
            reader = self._contrast.graph.inputs[at]
            chosen = torch.tensor([row_of[writer, pos] for writer, _, pos in edges])
            if reader.kind == "mlp":
                self._add_mlp_arms(edges, change[chosen])
                continue
            if reader.kind not in z:
                z = {reader.kind: self._z_change(reader.kind, change)}
            self._add_head_arms(reader, edges, z[reader.kind][chosen])
        self._mid.flush()
        self._after.flush()

    def _add_head_arms(
        self,
        reader: Reader,
        edges: Sequence[Edge],
        z: Float[Tensor, "arm pair query head d_head"],
    ) -> None:
        """Add arms in which one head, or the heads of a key-value group, write something else."""
        graph = self._contrast.graph
        n = 1 if reader.kind == "q" else graph.n_heads // graph.n_key_readers
        heads = slice((reader.head or 0) * n, ((reader.head or 0) + 1) * n)
        weights = self._layer.output_weights[heads].flatten(0, 1)  # [head * d_head, d_model]
        self._mid.add(edges, self._mid_resid + z[:, :, :, heads].flatten(3) @ weights)

    def _add_mlp_arms(self, edges: Sequence[Edge], change: Rows) -> None:
        """Add arms in which the MLP reads a changed input."""
        mlp_in, mlp_out = self._own.mlp_in, self._own.mlp_out
        assert mlp_in is not None
        assert mlp_out is not None
        most = max(1, CPU_POSITIONS // mlp_in[..., 0].numel())
        for begin in range(0, len(edges), most):
            some = slice(begin, begin + most)
            read = mlp_in + change[some, :, self._skip :]
            written = self._layer.mlp(read.flatten(0, 1)).reshape(read.shape)
            self._after.add(edges[some], self._own.resid + (written - mlp_out))

    def _z_change(self, kind: str, change: Rows) -> Float[Tensor, "arm pair query head d_head"]:
        """The change of each head's `z`, as if it alone read the change.

        Heads do not affect one another within a layer, so all are computed at once.
        """
        n_prefix = self._keys.shape[1] - self._own.k.shape[1]
        if kind == "q":
            q = self._project("q", change[:, :, self._skip :], self._first + self._skip)
            dots = torch.einsum("abqhe,bshe->abhqs", q, self._keys)
        elif kind == "k":
            k = self._project("k", change, self._first)
            new = torch.einsum("bqhe,abshe->abhqs", self._own.q, k)
            old = self._dots[..., :n_prefix].expand(len(new), *self._dots.shape[:-1], n_prefix)
            dots = torch.cat([old, new], -1)
        else:
            # The pattern stays, and so do the values of the tokens before `first`.
            pattern = self._layer.pattern(self._dots)[..., n_prefix:]
            v = self._project("v", change, self._first) - self._own.v
            return torch.einsum("bhqs,abshe->abqhe", pattern, v)
        pattern = self._layer.pattern(dots)
        return torch.einsum("abhqs,bshe->abqhe", pattern, self._values) - self._own.z

    def _project(
        self, kind: str, change: Rows, first: int
    ) -> Float[Tensor, "arm pair token head d_head"]:
        """Queries, keys or values of the layer's input with the change of each arm."""
        read = self._resid[:, self._resid.shape[1] - change.shape[2] :] + change
        flat = self._layer.project(kind, read.flatten(0, 1), first)
        return flat.reshape(*read.shape[:3], *flat.shape[2:])

    def _run_mlp(self, resid: Float[Tensor, "row token d_model"]) -> ArmValues:
        return self._run_rest(resid + self._layer.mlp(resid))

    def _run_rest(self, resid: Float[Tensor, "row token d_model"]) -> ArmValues:
        return self._contrast.run_from(self._chunk.layer + 1, resid)


def changed_writers(contrast: Contrast) -> Bool[np.ndarray, "writer pos"]:
    """Which writers write something else at a position, in any pair."""
    differs = (contrast.change != 0).any(-1)  # [writer, pair, token]
    positions = range(contrast.graph.n_positions)
    by_pos = [(differs & (contrast.graph_pos == pos)).flatten(1).any(1) for pos in positions]
    return torch.stack(by_pos, 1).cpu().numpy()
