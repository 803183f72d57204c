"""Effects of neurons, exactly and by gradients: the change of each times the gradient there.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, eap_ig_neurons, eap_ig_nodes
>>> model = load_model("toy:and")
>>> texts = "please bring the copper lantern", "please bring the copper letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> found = eap_ig_neurons(contrast, steps=20).sel(layer=0).mean("pair")
>>> int(found.idxmax("neuron"))
3
>>> mlp = eap_ig_nodes(contrast, steps=20).sel(writer="m0").item()
>>> abs(found.sum().item() - mlp) < 1e-5
True

The scores of a layer's neurons add up to that of its MLP, since their change is the change of what
it writes. A neuron of a gated MLP is the product of gate and input.
"""

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.circuits.contrast import Contrast, Resid
from mechinterp.circuits.scores.eap import PartScores, Scorer, score_along_path, score_at_base
from mechinterp.circuits.scores.edge_gradients import (
    gradients_at,
    mean_gradient,
    sum_by_position,
    trace_run,
)
from mechinterp.circuits.scores.nodes import Continuation
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import gradients_off, takes_gradients
from mechinterp.models.layer_parts import Layer
from mechinterp.sweeps.axes import layers as chosen_layers
from mechinterp.sweeps.options import Progress

Changes = Mapping[int, Float[Tensor, "pair token neuron"]]
"""What the neurons of each layer are in the other run, minus what they are in the base run."""

NeuronValues = Float[np.ndarray, "cell pos pair"]
"""Scores of neurons; a cell is one neuron of one layer, layer by layer."""


@checks_arguments
@takes_gradients
def eap_neurons(contrast: Contrast, layers: Iterable[int] | None = None) -> xr.DataArray:
    """The change of each neuron (after its activation) times its gradient in the base run.

    Dims (layer, neuron, pair), or (layer, neuron, pos, pair) where the graph has positions; in the
    metric's unit; positive where the neuron supports the metric. `attrs` as `eap`. `layers`: all
    unless given.

    Raises:
        ValueError: if the model has no MLPs or lacks one of these layers, the metric has no
            gradient, or edges are replaced by something else than the other run.
        HookError: if the kind of MLP is unknown, so that its neurons do not give what it writes.

    Source: attribution patching, Nanda 2023; of neurons, Kramár et al. 2024, arXiv 2403.00745.
    """
    began = time.perf_counter()
    changes = _changes(contrast, layers)
    scores, attrs = score_at_base(contrast, _neuron_scorer(changes))
    return _label_neurons(contrast, changes, scores[1:], attrs, began)


@checks_arguments
def exact_neurons(
    contrast: Contrast,
    chosen: Mapping[int, Sequence[int]] | None = None,
    *,
    progress: Progress | None = None,
) -> xr.DataArray:
    """The exact effect of giving one neuron (after its activation) its value in the other run.

    Dims, sign and unit as `eap_neurons`. `chosen`: neurons by layer, such as the best by a
    gradient; the others of these layers are NaN. All unless given, which is costly: each neuron is
    a row through the rest of the model.

    Raises:
        ValueError: if a neuron is out of range, or as `eap_neurons`.
        HookError: as `eap_neurons`, or if an effect is not finite.
    """
    began, graph = time.perf_counter(), contrast.graph
    changes = _changes(contrast, chosen)
    n_neurons = contrast.model.cfg.d_mlp
    effects = np.full((len(changes), n_neurons, graph.n_positions, contrast.n_pairs), np.nan)
    cells = []
    for at, number in enumerate(changes):
        neurons = range(n_neurons) if chosen is None else chosen[number]
        if not all(0 <= neuron < n_neurons for neuron in neurons):
            raise ValueError(f"layer {number}: neurons are 0 to {n_neurons - 1}, not {neurons}.")
        cells += [(at, number, pos, list(neurons)) for pos in range(graph.n_positions)]
    done, total = 0, sum(len(neurons) for *_, neurons in cells)
    for at, number, pos, neurons in cells:
        writes = models.mlp_output(contrast.model, number)[0]
        change = (changes[number] * contrast.mask_of_position(pos))[:, contrast.n_skipped(number) :]
        rest = Continuation(
            contrast.resid[number + 1][:, contrast.n_skipped(number) :], None, number + 1
        )
        for begin in range(0, len(neurons), contrast.most_arms):
            if progress is not None:
                progress(done, total)
            some = neurons[begin : begin + contrast.most_arms]
            # [pair, token, neuron] x [neuron, d_model]: one arm a neuron
            written = torch.einsum("btn,nd->nbtd", change[..., some], writes[some])
            with gradients_off():
                scores = rest.score(contrast, written)
            contrast.check_finite(scores, [f"neuron {each} of layer {number}" for each in some])
            effects[at, some, pos] = contrast.sign * (contrast.base_scores - scores)
            done += len(some)
    if progress is not None:
        progress(total, total)
    attrs: dict[str, object] = {"method": "exact", **contrast.describe()}
    cells_first = effects.reshape(-1, *effects.shape[2:])
    return _label_neurons(contrast, changes, cells_first, attrs, began)


@checks_arguments
@takes_gradients
def eap_ig_neurons(
    contrast: Contrast,
    layers: Iterable[int] | None = None,
    steps: int | None = 5,
    *,
    rule: str = "right",
) -> xr.DataArray:
    """`eap_neurons` with the mean gradient over the points of `eap_ig`.

    `attrs["residual"]` is by how much the input misses the whole difference at these points.

    Raises:
        ValueError: as `eap_neurons` and `eap_ig`.
        HookError: as `eap_neurons`.

    Source: Hanna et al. 2024, arXiv 2403.17806.
    """
    began = time.perf_counter()
    changes = _changes(contrast, layers)
    scores, attrs = score_along_path(contrast, _neuron_scorer(changes), steps, rule)
    return _label_neurons(contrast, changes, scores[1:], attrs, began)


def _changes(contrast: Contrast, layers: Iterable[int] | None) -> Changes:
    """The change of the neurons of each layer, from the base run to the other."""
    chosen = chosen_layers(contrast.model, layers)
    if contrast.model.cfg.attn_only:
        raise ValueError("this model has no MLPs and so no neurons: score heads by eap_nodes.")
    for layer in chosen:
        if not 0 <= layer < contrast.graph.n_layers:
            raise ValueError(f"layer {layer}: the model has {contrast.graph.n_layers}, from 0 on.")
    if not contrast.is_patched:
        raise ValueError(
            f"MLPs are replaced by {contrast.ablate}, which has no value for single neurons. Use "
            f"eap_nodes, or runs made without ablate=."
        )
    changes = {}
    with gradients_off():
        other = contrast.resid[0] + contrast.change[0]
        for number in range(max(chosen, default=-1) + 1):
            ours = contrast.run_layer(number, contrast.resid[number])
            theirs = contrast.run_layer(number, other)
            other = theirs.resid
            if number in chosen:
                changed, base = (_neurons(contrast, number, p.mlp_in) for p in (theirs, ours))
                changes[number] = changed - base
    return {number: changes[number] for number in chosen}


def _neurons(
    contrast: Contrast, number: int, mlp_in: Resid | None
) -> Float[Tensor, "pair token neuron"]:
    assert mlp_in is not None
    return Layer(contrast.model, number).neurons(mlp_in)


def _neuron_scorer(changes: Changes) -> Scorer:
    """A `Scorer` of the input and, after it, of the neurons layer by layer."""

    def score(contrast: Contrast, starts: Resid, shares: Float[Tensor, " point"]) -> NeuronValues:
        run = trace_run(contrast, starts)
        gradients = gradients_at(run.total, [run.resids[0], *(run.resids[n + 1] for n in changes)])
        into_input = mean_gradient(contrast, gradients[0], shares) * contrast.change[0]
        scores = [sum_by_position(contrast, into_input.sum(-1))[None]]
        for (number, change), gradient in zip(changes.items(), gradients[1:], strict=True):
            # What a neuron writes is its activation times its row of W_out, so that its gradient is
            # that at the stream after the layer, [pair, token, d_model], times the same row.
            weights = models.mlp_output(contrast.model, number)[0]
            mean = mean_gradient(contrast, gradient, shares) @ weights.T
            products = change[:, change.shape[1] - mean.shape[1] :] * mean
            scores.append(sum_by_position(contrast, products.permute(2, 0, 1)))
        found: NeuronValues = -contrast.sign * np.concatenate(scores)
        return found

    return score


def _label_neurons(
    contrast: Contrast,
    changes: Changes,
    scores: PartScores,
    attrs: dict[str, object],
    began: float,
) -> xr.DataArray:
    graph = contrast.graph
    by_layer = scores.reshape(len(changes), -1, *scores.shape[1:])
    coords: dict[str, Sequence[object]] = {
        "layer": list(changes),
        "neuron": range(by_layer.shape[1]),
        "pos": list(graph.positions or ("all",)),
        "pair": range(contrast.n_pairs),
    }
    attrs = {**attrs, "seconds": time.perf_counter() - began}
    table = xr.DataArray(by_layer, coords, tuple(coords), "score", attrs)
    return table if graph.positions else table.isel(pos=0, drop=True)
