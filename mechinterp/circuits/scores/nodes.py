"""Effects of nodes: everything that one writer writes is replaced, for all its readers.

This is the effect of cutting all edges out of the writer together. `exact_nodes` measures it;
`eap_nodes` and `eap_ig_nodes` estimate it to first order, with one backward pass a point for all
writers.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Circuit, Contrast, eap_nodes, exact_nodes
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> effects = exact_nodes(contrast).mean("pair")
>>> effects.idxmax("writer").item(), eap_nodes(contrast).dims
('input', ('writer', 'pair'))

The circuit of some nodes has all edges among them, and from them to the logits:

>>> chosen = effects.writer[effects > 0.5].values.tolist()
>>> chosen, Circuit.from_nodes(contrast.graph, chosen).n_edges
(['input', 'a1.h0'], 5)
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp.circuits.contrast import Contrast, Resid
from mechinterp.circuits.scores.eap import score_along_path, score_at_base
from mechinterp.circuits.scores.edge_gradients import (
    gradients_at_writes,
    mean_gradient,
    sum_by_position,
    trace_run,
)
from mechinterp.circuits.scores.edge_runs import changed_writers
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import gradients_off, takes_gradients
from mechinterp.models.layer_parts import Layer
from mechinterp.sweeps.options import Progress

NodeValues = Float[np.ndarray, "writer pos pair"]


@checks_arguments
def exact_nodes(contrast: Contrast, *, progress: Progress | None = None) -> xr.DataArray:
    """The exact effect of each writer, by pair; in the metric's unit.

    Dims (writer, pair), or (writer, pos, pair) where the graph has positions. With "noise": how far
    the metric falls when all readers read what replaces the writer's output; with "denoise": how
    far it rises. Positive: the writer supports what the metric measures.

    Raises:
        HookError: if an effect is not finite, naming the writer.

    Source: activation patching, Vig et al. 2020; Meng et al. 2022, arXiv 2202.05262.
    """
    began, graph = time.perf_counter(), contrast.graph
    effects = np.zeros((len(graph.nodes), graph.n_positions, contrast.n_pairs))
    changed = changed_writers(contrast)
    most = contrast.most_arms
    for group in graph.simultaneous_writers:
        chosen = [(w, p) for w, p in np.argwhere(changed).tolist() if group.start <= w < group.stop]
        with gradients_off():
            rest = continuation_after(contrast, group)
            for begin in range(0, len(chosen), most):
                writers, positions = map(list, zip(*chosen[begin : begin + most], strict=True))
                here = torch.stack([contrast.mask_of_position(pos) for pos in positions])
                scores = rest.score(contrast, contrast.change[writers] * here)
                contrast.check_finite(scores, [graph.writers[writer] for writer in writers])
                effects[writers, positions] = contrast.sign * (contrast.base_scores - scores)
        if progress is not None:
            progress(group.stop, len(graph.nodes))
    return _label_nodes(contrast, effects, {"method": "exact", **contrast.describe()}, began)


@checks_arguments
@takes_gradients
def eap_nodes(contrast: Contrast) -> xr.DataArray:
    """The change of each writer times the gradient there: the sum of `eap` over its edges.

    Dims, sign and unit as `exact_nodes`, `attrs` as `eap`; one backward pass, without edges.

    Raises:
        ValueError: if the metric has no gradient.

    Source: attribution patching, Nanda 2023; Syed et al. 2023, arXiv 2310.10348.
    """
    began = time.perf_counter()
    return _label_nodes(contrast, *score_at_base(contrast, score_nodes), began)


@checks_arguments
@takes_gradients
def eap_ig_nodes(contrast: Contrast, steps: int | None = 5, *, rule: str = "right") -> xr.DataArray:
    """`eap_nodes` with the mean gradient over the points of `eap_ig`: the sum over its edges.

    `attrs["residual"]` is by how much the input, which carries the whole difference, misses it.

    Raises:
        ValueError: as `eap_ig`.

    Source: Hanna et al. 2024, arXiv 2403.17806.
    """
    began = time.perf_counter()
    return _label_nodes(contrast, *score_along_path(contrast, score_nodes, steps, rule), began)


@dataclass(frozen=True, eq=False)
class Continuation:
    """The rest of a run after some writers have written.

    `resid`: the base run's residual stream there. `mlp`: the layer whose MLP has yet to read it.
    `number`: the next whole layer.
    """

    resid: Resid
    mlp: Layer | None
    number: int

    def score(
        self, contrast: Contrast, change: Float[Tensor, "arm pair token d_model"]
    ) -> Float[np.ndarray, "arm pair"]:
        """The metric with each change, over tokens from `first` on, added there."""
        skip = change.shape[2] - self.resid.shape[1]
        resid = (self.resid + change[:, :, skip:]).flatten(0, 1)
        if self.mlp is not None:
            resid = resid + self.mlp.mlp(resid)
        return contrast.run_from(self.number, resid)


def continuation_after(contrast: Contrast, writers: slice) -> Continuation:
    """The rest of the run after one of the groups of `Graph.simultaneous_writers`."""
    node = contrast.graph.nodes[writers.start]
    if node.layer is None:
        return Continuation(contrast.resid[0], None, 0)
    layer, number = contrast.layer(node.layer), node.layer + 1
    if node.head is not None and layer.has_mlp and not contrast.graph.is_parallel:
        read = contrast.run_layer(node.layer, contrast.resid[node.layer]).mlp_in
        assert read is not None
        return Continuation(read, layer, number)
    return Continuation(contrast.resid[number][:, contrast.n_skipped(node.layer) :], None, number)


def score_nodes(contrast: Contrast, starts: Resid, shares: Float[Tensor, " point"]) -> NodeValues:
    """Scores of all writers by runs that start at `starts`: a `Scorer`."""
    graph, run = contrast.graph, trace_run(contrast, starts)
    around, mid = gradients_at_writes(contrast, run)
    scores = np.zeros((len(graph.nodes), graph.n_positions, contrast.n_pairs))
    for writers in graph.simultaneous_writers:
        node = graph.nodes[writers.start]
        gradient = around[0 if node.layer is None else node.layer + 1]
        if node.layer is not None and node.head is not None:
            gradient = mid[node.layer]
        mean = mean_gradient(contrast, gradient, shares)  # [pair, token, d_model]
        skip = contrast.change.shape[2] - mean.shape[1]
        products = torch.einsum("wbtd,btd->wbt", contrast.change[writers, :, skip:], mean)
        scores[writers] = -contrast.sign * sum_by_position(contrast, products)
    return scores


def _label_nodes(
    contrast: Contrast, scores: NodeValues, attrs: dict[str, object], began: float
) -> xr.DataArray:
    graph = contrast.graph
    coords: dict[str, Sequence[object]] = {
        "writer": list(graph.writers),
        "pos": list(graph.positions or ("all",)),
        "pair": range(contrast.n_pairs),
    }
    attrs = {**attrs, "seconds": time.perf_counter() - began}
    table = xr.DataArray(scores, coords, tuple(coords), "score", attrs)
    return table if graph.positions else table.isel(pos=0, drop=True)
