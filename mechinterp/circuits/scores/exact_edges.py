"""The exact effect of each edge: cut it alone, let everything after its reader answer to that.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, exact_edges
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> scores = exact_edges(Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE"))))
>>> [name for name, score in scores.strongest(3)]
['input->a1.h0<v>', 'a1.h0->logits', 'input->a1.h0<k>']

One reader is run again for many writers at once: of a head only what it writes changes, which is
added to the residual stream of the unchanged run; from there on, layer by layer, rows go on
together, from the first position that changes, to the positions that the metric reads.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.graph import Reader
from mechinterp.models.layer_parts import append_keys_values
from mechinterp.sweeps.options import Progress
from mechinterp.sweeps.planner import CPU_POSITIONS
from mechinterp.sweeps.resumable import SweepFolder, sweep_facts

_AT_ONCE = 4 * CPU_POSITIONS
"""Positions of one run of the heads of a layer, of which one writes at a time."""

Edge = tuple[int, int, int]
"""Writer, reader and label of a position, by their places."""

Rows = Float[Tensor, "arm pair pos d_model"]
"""Residual streams; an arm is one edge that is cut, in all pairs."""

Ahead = Callable[[str, Tensor, Tensor], Any]
"""In place of the rest of the model: what becomes of a reader's layer, by arm.

Given where it has written, "mid" (what the MLP of its layer reads) or "after" the layer; the
residual stream of the unchanged run there; and the rows.
"""


def exact_edges(
    contrast: Contrast,
    edges: Circuit | None = None,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> EdgeScores:
    """The exact effect of every edge, or of those chosen, by pair; in the metric's unit.

    Of "noise": how far the metric falls when the edge alone carries what replaces it. Of "denoise":
    how far it rises. Positive: the edge supports what the metric measures. The others are NaN.
    `out`: a folder for finished parts, from which a run that was stopped goes on. `progress`: a
    function of (done, all), such as `progress_bar("edges")`.

    Raises:
        HookError: if an effect is not finite, naming the edge.
        ValueError: if the edges are of another graph, or `out` holds something else.

    Source: path patching of single edges, Goldowsky-Dill et al. 2023, arXiv 2304.05969.
    """
    began = time.perf_counter()
    graph = contrast.graph
    wanted = edges_of(contrast, edges)
    parts = None if out is None else SweepFolder(out, _facts(contrast, wanted), None, CPU_POSITIONS)
    effects = np.full((*wanted.shape, contrast.n_pairs), np.nan)
    speaks = says_else(contrast)
    effects[wanted & ~speaks[:, None]] = 0.0  # what is replaced by itself
    chunks = list(chunked(contrast, wanted & speaks[:, None]))
    done, total = 0, sum(chunk.cost for chunk in chunks)
    for number, chunk in enumerate(chunks):
        if progress is not None:
            progress(done, total)
        places = tuple(np.array(chunk.edges).T)
        at = [int(i) for i in np.ravel_multi_index(places, wanted.shape)]
        found = None if parts is None else parts.load_part(number, at)
        if found is None:
            found = patched(contrast, chunk)[None]
            contrast.check_finite(found[0], [graph.edge_name(*edge) for edge in chunk.edges])
            if parts is not None:
                parts.save_part(number, at, found)
        effects[places] = contrast.sign * (contrast.base_scores - found[0])
        done += chunk.cost
    if progress is not None:
        progress(done, total)
    attrs = {"method": "exact", "n_edges": int(wanted.sum()), **contrast.as_read()}
    if parts is not None:
        parts.finish(len(chunks), {"attrs": attrs})
    return EdgeScores.from_array(graph, effects, **attrs, seconds=time.perf_counter() - began)


def edges_of(contrast: Contrast, edges: Circuit | None) -> Bool[np.ndarray, "writer reader pos"]:
    """Which edges are asked for: all unless some are given.

    Raises:
        ValueError: if they are of another graph.
    """
    if edges is not None and edges.graph != contrast.graph:
        raise ValueError(f"the edges are of {edges.graph}, the two runs of {contrast.graph}.")
    return contrast.graph.edges if edges is None else edges.mask


@dataclass(frozen=True)
class Chunk:
    """Edges into the readers of one layer, from some sources: a writer at a label."""

    layer: int
    edges: list[Edge]

    @property
    def sources(self) -> list[tuple[int, int]]:
        """Writers with labels."""
        return list(dict.fromkeys((writer, pos) for writer, _, pos in self.edges))

    @property
    def cost(self) -> int:
        """About how long it takes, in no unit."""
        return len(self.edges)


def chunked(contrast: Contrast, wanted: Bool[np.ndarray, "writer reader pos"]) -> Iterator[Chunk]:
    """These edges, as many at a time as the readers of a layer are replayed for."""
    graph = contrast.graph
    size = max(1, _AT_ONCE // (contrast.n_pairs * contrast.change.shape[2]))
    layers = np.array([graph.n_layers if r.layer is None else r.layer for r in graph.inputs])
    for layer in range(graph.n_layers + 1):
        here = wanted & (layers == layer)[:, None]
        sources = np.argwhere(here.any(1))
        for begin in range(0, len(sources), size):
            writers, labels = sources[begin : begin + size].T
            part = np.zeros_like(here)
            part[writers, :, labels] = here[writers, :, labels]
            yield Chunk(layer, [(w, r, c) for w, r, c in np.argwhere(part).tolist()])


def patched(
    contrast: Contrast, chunk: Chunk, ahead: Ahead | None = None
) -> Float[np.ndarray, "edge *found pair"]:
    """The metric with each edge of a chunk cut; or what `ahead` makes of it, but for the logits."""
    scores: dict[Edge, Any] = {}
    with torch.no_grad():
        if chunk.layer == contrast.graph.n_layers:
            after = _Batches(contrast, scores, contrast.scored)
            after.add(chunk.edges, contrast.resid[-1] + _change_of(contrast, chunk.sources))
            after.end()
        else:
            _LayerReplay(contrast, chunk, scores, ahead).run()
    return np.stack([scores[edge] for edge in chunk.edges])


def _change_of(contrast: Contrast, sources: Sequence[tuple[int, int]]) -> Rows:
    """What each source changes in the sum that its readers read."""
    change = contrast.change[[writer for writer, _ in sources]]
    if contrast.graph.n_positions == 1:
        return change
    return change * torch.stack([contrast.changed_at(pos) for _, pos in sources])


@dataclass(eq=False)
class _Batches:
    """Rows that go on together, as many at a time as is best; the scores are kept by edge."""

    contrast: Contrast
    scores: dict[Edge, Any]
    go_on: Callable[[Float[Tensor, "row pos d_model"]], Float[np.ndarray, "arm pair"]]
    _edges: list[Edge] = field(default_factory=list)
    _rows: list[Rows] = field(default_factory=list)

    def add(self, edges: Sequence[Edge], rows: Rows) -> None:
        """One arm for each edge."""
        most = self.contrast.most_arms
        for begin in range(0, len(edges), most):
            room = most - len(self._edges)
            for some in (slice(begin, begin + room), slice(begin + room, begin + most)):
                self._edges += edges[some]
                self._rows.append(rows[some])
                if len(self._edges) >= most:
                    self.end()

    def end(self) -> None:
        """Run what is left."""
        if self._edges:
            found = self.go_on(torch.cat(self._rows).flatten(0, 1))
            self.scores.update(zip(self._edges, found, strict=True))
        self._edges, self._rows = [], []


class _LayerReplay:
    """One layer of the unchanged run, in which one reader at a time reads something else."""

    def __init__(
        self,
        contrast: Contrast,
        chunk: Chunk,
        scores: dict[Edge, Any],
        ahead: Ahead | None,
    ) -> None:
        self._contrast, self._chunk, number = contrast, chunk, chunk.layer
        self._layer, self._skip = contrast.layer(number), contrast.skipped(number)
        self._resid, self._first = contrast.resid[number], contrast.first
        self._own = contrast.run_layer(number, self._resid)
        self._keys, self._values = append_keys_values(
            contrast.before[number], self._own.k, self._own.v
        )
        self._dots = torch.einsum("bphe,bthe->bhpt", self._own.q, self._keys)
        go_on = partial(ahead, "after", self._own.resid) if ahead else self._onward
        self._after = _Batches(contrast, scores, go_on)
        # Where heads write: what the MLP reads, or the stream after the layer.
        self._mid, self._unchanged = self._after, self._own.resid
        if self._own.mlp_in is not None and not contrast.graph.is_parallel:
            self._unchanged = self._own.mlp_in
            go_on = partial(ahead, "mid", self._unchanged) if ahead else self._through_mlp
            self._mid = _Batches(contrast, scores, go_on)

    def run(self) -> None:
        """All edges of the chunk."""
        sources = self._chunk.sources
        place = {source: at for at, source in enumerate(sources)}
        change = _change_of(self._contrast, sources)
        by_reader: dict[int, list[Edge]] = {}
        for edge in self._chunk.edges:
            by_reader.setdefault(edge[1], []).append(edge)
        z: dict[str, Tensor] = {}
        for at, edges in sorted(by_reader.items()):
            reader = self._contrast.graph.inputs[at]
            chosen = torch.tensor([place[writer, pos] for writer, _, pos in edges])
            if reader.kind == "mlp":
                self._mlp_reads(edges, change[chosen])
                continue
            if reader.kind not in z:
                z = {reader.kind: self._z_change(reader.kind, change)}
            self._head_reads(reader, edges, z[reader.kind][chosen])
        self._mid.end()
        self._after.end()

    def _head_reads(self, reader: Reader, edges: Sequence[Edge], z: Tensor) -> None:
        """Rows in which what a head, or those of a key group, writes is changed."""
        graph = self._contrast.graph
        n = 1 if reader.kind == "q" else graph.n_heads // graph.n_key_readers
        heads = slice((reader.head or 0) * n, ((reader.head or 0) + 1) * n)
        weights = self._layer.output_weights[heads].flatten(0, 1)
        self._mid.add(edges, self._unchanged + z[:, :, :, heads].flatten(3) @ weights)

    def _mlp_reads(self, edges: Sequence[Edge], change: Rows) -> None:
        """Rows in which what the MLP writes is changed."""
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
        """What each head takes from the values, changed, as if it alone read the change."""
        n_old = self._keys.shape[1] - self._own.k.shape[1]
        if kind == "q":
            q = self._projected("q", change[:, :, self._skip :], self._first + self._skip)
            dots = torch.einsum("sbphe,bthe->sbhpt", q, self._keys)
        elif kind == "k":
            k = self._projected("k", change, self._first)
            new = torch.einsum("bphe,sbthe->sbhpt", self._own.q, k)
            old = self._dots[..., :n_old].expand(len(new), *self._dots.shape[:-1], n_old)
            dots = torch.cat([old, new], -1)
        else:
            pattern = self._layer.pattern(self._dots)[..., n_old:]
            v = self._projected("v", change, self._first) - self._own.v
            return torch.einsum("bhpt,sbthe->sbphe", pattern, v)
        return (
            torch.einsum("sbhpt,bthe->sbphe", self._layer.pattern(dots), self._values) - self._own.z
        )

    def _projected(self, kind: str, change: Rows, first: int) -> Tensor:
        read = self._resid[:, self._resid.shape[1] - change.shape[2] :] + change
        made = self._layer.project(kind, read.flatten(0, 1), first)
        return made.reshape(*read.shape[:3], *made.shape[2:])

    def _through_mlp(self, resid: Float[Tensor, "row pos d_model"]) -> Any:
        return self._onward(resid + self._layer.mlp(resid))

    def _onward(self, resid: Float[Tensor, "row pos d_model"]) -> Any:
        return self._contrast.onward(self._chunk.layer + 1, resid)


def says_else(contrast: Contrast) -> Bool[np.ndarray, "writer pos"]:
    """Whether a writer says anything else at a label, in any pair."""
    differs = (contrast.change != 0).any(-1)
    labels = range(contrast.graph.n_positions)
    by_label = [(differs & (contrast.place == c)).flatten(1).any(1) for c in labels]
    return torch.stack(by_label, 1).cpu().numpy()


def _facts(contrast: Contrast, wanted: Bool[np.ndarray, "writer reader pos"]) -> dict[str, Any]:
    """What has to be the same for a run to go on from another's parts."""
    specs = ["edges", contrast.graph, contrast.direction, contrast.change]
    return sweep_facts(contrast.model, contrast.prompts, specs, [contrast.metric], wanted)
