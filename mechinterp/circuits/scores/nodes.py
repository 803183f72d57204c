"""Effects of nodes: all that one writer writes is replaced, wherever it is read.

That is all edges out of it cut together. `exact_nodes` does so; `eap_nodes` and `eap_ig_nodes`
score it to first order, all writers by one backward pass a point.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Circuit, Contrast, eap_nodes, exact_nodes
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> effects = exact_nodes(contrast).mean("pair")
>>> effects.idxmax("writer").item(), eap_nodes(contrast).dims
('input', ('writer', 'pair'))

A circuit of nodes is that of all edges among them, and from them to the logits:

>>> chosen = effects.writer[effects > 0.5].values.tolist()
>>> chosen, Circuit.from_nodes(contrast.graph, chosen).n_edges
(['input', 'a1.h0'], 5)
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp.circuits.contrast import Contrast, Resid
from mechinterp.circuits.scores.eap import integrated, unchanged
from mechinterp.circuits.scores.edge_gradients import by_label, mean_slope, slopes_written, traced
from mechinterp.circuits.scores.exact_edges import says_else
from mechinterp.models.layer_parts import Layer
from mechinterp.sweeps.options import Progress

NodeScores = Float[np.ndarray, "writer label pair"]


def exact_nodes(contrast: Contrast, *, progress: Progress | None = None) -> xr.DataArray:
    """The exact effect of each writer, by pair; in the metric's unit.

    Dims (writer, pair), or (writer, pos, pair) where the graph has positions. Of "noise": how far
    the metric falls when what replaces the writer's output is read everywhere; of "denoise": how
    far it rises. Positive: the writer supports what the metric measures.

    Raises:
        HookError: if an effect is not finite, naming the writer.

    Source: activation patching, Vig et al. 2020; Meng et al. 2022, arXiv 2202.05262.
    """
    began, graph = time.perf_counter(), contrast.graph
    effects = np.zeros((len(graph.nodes), graph.n_positions, contrast.n_pairs))
    speaks = says_else(contrast)
    most = contrast.most_arms
    for group in graph.together:
        chosen = [(w, c) for w, c in np.argwhere(speaks).tolist() if group.start <= w < group.stop]
        with torch.no_grad():
            at = onset(contrast, group)
            for begin in range(0, len(chosen), most):
                writers, labels = map(list, zip(*chosen[begin : begin + most], strict=True))
                here = torch.stack([contrast.changed_at(label) for label in labels])
                scores = at.score(contrast, contrast.change[writers] * here)
                contrast.check_finite(scores, [graph.writers[writer] for writer in writers])
                effects[writers, labels] = contrast.sign * (contrast.base_scores - scores)
        if progress is not None:
            progress(group.stop, len(graph.nodes))
    return _labelled(contrast, effects, {"method": "exact", **contrast.as_read()}, began)


def eap_nodes(contrast: Contrast) -> xr.DataArray:
    """What each writer changes, times the gradient there: the sum of `eap` over its edges.

    Dims, sign and unit as `exact_nodes`, `attrs` as `eap`; one backward pass, of no edges.

    Raises:
        ValueError: if the metric has no gradient.

    Source: attribution patching, Nanda 2023; Syed et al. 2023, arXiv 2310.10348.
    """
    began = time.perf_counter()
    return _labelled(contrast, *unchanged(contrast, node_scores), began)


def eap_ig_nodes(contrast: Contrast, steps: int | None = 5, *, rule: str = "right") -> xr.DataArray:
    """The same with the mean gradient of the points of `eap_ig`: the sum over its edges.

    `attrs["residual"]` is what the input, which carries the whole difference, misses of it.

    Raises:
        ValueError: as `eap_ig`.

    Source: Hanna et al. 2024, arXiv 2403.17806.
    """
    began = time.perf_counter()
    return _labelled(contrast, *integrated(contrast, node_scores, steps, rule), began)


@dataclass(frozen=True, eq=False)
class Onset:
    """Where a run goes on when some writers have written. `resid`: the unchanged stream there.

    `mlp`: the layer whose MLP reads it yet; `number`: the next layer.
    """

    resid: Resid
    mlp: Layer | None
    number: int

    def score(
        self, contrast: Contrast, change: Float[Tensor, "arm pair pos d_model"]
    ) -> Float[np.ndarray, "arm pair"]:
        """The metric with each change, of positions from `first` on, added there."""
        skip = change.shape[2] - self.resid.shape[1]
        resid = (self.resid + change[:, :, skip:]).flatten(0, 1)
        if self.mlp is not None:
            resid = resid + self.mlp.mlp(resid)
        return contrast.onward(self.number, resid)


def onset(contrast: Contrast, writers: slice) -> Onset:
    """Where the run goes on after writers that write at once, as in `Graph.together`."""
    node = contrast.graph.nodes[writers.start]
    if node.layer is None:
        return Onset(contrast.resid[0], None, 0)
    layer, number = contrast.layer(node.layer), node.layer + 1
    if node.head is not None and layer.has_mlp and not contrast.graph.is_parallel:
        read = contrast.run_layer(node.layer, contrast.resid[node.layer]).mlp_in
        assert read is not None
        return Onset(read, layer, number)
    return Onset(contrast.resid[number][:, contrast.skipped(node.layer) :], None, number)


def node_scores(contrast: Contrast, starts: Resid, shares: Float[Tensor, " point"]) -> NodeScores:
    """Scores by runs that start so, points as rows, each with its share, added up."""
    graph, run = contrast.graph, traced(contrast, starts)
    around, mid = slopes_written(contrast, run)
    scores = np.zeros((len(graph.nodes), graph.n_positions, contrast.n_pairs))
    for writers in graph.together:
        node = graph.nodes[writers.start]
        slope = around[0 if node.layer is None else node.layer + 1]
        if node.layer is not None and node.head is not None:
            slope = mid[node.layer]
        mean = mean_slope(contrast, slope, shares)
        skip = contrast.change.shape[2] - mean.shape[1]
        products = torch.einsum("wbpd,bpd->wbp", contrast.change[writers, :, skip:], mean)
        scores[writers] = -contrast.sign * by_label(contrast, products)
    return scores


def _labelled(
    contrast: Contrast, scores: NodeScores, attrs: dict[str, object], began: float
) -> xr.DataArray:
    graph = contrast.graph
    coords: dict[str, Any] = {"writer": list(graph.writers)}
    coords |= {"pos": list(graph.positions or ("all",)), "pair": range(contrast.n_pairs)}
    attrs = {**attrs, "seconds": time.perf_counter() - began}
    made = xr.DataArray(scores, coords, ("writer", "pos", "pair"), "score", attrs)
    return made if graph.positions else made.isel(pos=0, drop=True)
