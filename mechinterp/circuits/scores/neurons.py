"""Scores of neurons by gradients: what each changes, times the gradient there.

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

A layer's neurons together score what its MLP does: a change of theirs is a change of what it
writes, without its bias. Of a gated MLP a neuron is the product.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.circuits.contrast import Contrast, Resid
from mechinterp.circuits.scores.eap import Scored, integrated, unchanged
from mechinterp.circuits.scores.edge_gradients import by_label, mean_slope, slopes_at, traced
from mechinterp.circuits.scores.nodes import Onset
from mechinterp.models.layer_parts import Layer
from mechinterp.sweeps.axes import layers as chosen_layers
from mechinterp.sweeps.options import Progress

Changes = Mapping[int, Float[Tensor, "pair pos neuron"]]


def eap_neurons(contrast: Contrast, layers: Iterable[int] | None = None) -> xr.DataArray:
    """The change of each neuron (after its activation) times its gradient in the unchanged run.

    Dims (layer, neuron, pair), or (layer, neuron, pos, pair) where the graph has positions; in the
    metric's unit, positive where the neuron supports the metric; `attrs` as `eap`. `layers`: all
    unless given.

    Raises:
        ValueError: if the model has no MLPs or not these layers, the metric has no gradient, or
            neurons are replaced by something else than the other run.
        HookError: if an MLP is not known: its neurons do not give what it writes.

    Source: attribution patching, Nanda 2023; of neurons, Kramár et al. 2024, arXiv 2403.00745.
    """
    began = time.perf_counter()
    changes = _changes(contrast, layers)
    scores, attrs = unchanged(contrast, _scored(changes))
    return _labelled(contrast, changes, scores[1:], attrs, began)


def exact_neurons(
    contrast: Contrast,
    chosen: Mapping[int, Sequence[int]] | None = None,
    *,
    progress: Progress | None = None,
) -> xr.DataArray:
    """The exact effect of each neuron (after its activation) that alone is as in the other run.

    Dims, sign and unit as `eap_neurons`. `chosen`: neurons by layer, such as the best by a
    gradient, the others of these layers being NaN; all unless given, each of which is a row through
    the rest of the model.

    Raises:
        ValueError: if there is no such neuron, or as `eap_neurons`.
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
        cells += [(at, number, label, list(neurons)) for label in range(graph.n_positions)]
    done, total = 0, sum(len(neurons) for *_, neurons in cells)
    for at, number, label, neurons in cells:
        writes = models.mlp_output(contrast.model, number)[0]
        change = (changes[number] * contrast.changed_at(label))[:, contrast.skipped(number) :]
        after = Onset(contrast.resid[number + 1][:, contrast.skipped(number) :], None, number + 1)
        for begin in range(0, len(neurons), contrast.most_arms):
            if progress is not None:
                progress(done, total)
            some = neurons[begin : begin + contrast.most_arms]
            written = torch.einsum("bpn,nd->nbpd", change[..., some], writes[some])
            with torch.no_grad():
                scores = after.score(contrast, written)
            contrast.check_finite(scores, [f"neuron {each} of layer {number}" for each in some])
            effects[at, some, label] = contrast.sign * (contrast.base_scores - scores)
            done += len(some)
    if progress is not None:
        progress(total, total)
    attrs: dict[str, object] = {"method": "exact", **contrast.as_read()}
    return _labelled(contrast, changes, effects.reshape(-1, *effects.shape[2:]), attrs, began)


def eap_ig_neurons(
    contrast: Contrast,
    layers: Iterable[int] | None = None,
    steps: int | None = 5,
    *,
    rule: str = "right",
) -> xr.DataArray:
    """The same with the mean gradient of the points of `eap_ig`.

    `attrs["residual"]` is what the input misses of the whole difference at these points.

    Raises:
        ValueError: as `eap_neurons` and `eap_ig`.
        HookError: as `eap_neurons`.

    Source: Hanna et al. 2024, arXiv 2403.17806.
    """
    began = time.perf_counter()
    changes = _changes(contrast, layers)
    scores, attrs = integrated(contrast, _scored(changes), steps, rule)
    return _labelled(contrast, changes, scores[1:], attrs, began)


def _changes(contrast: Contrast, layers: Iterable[int] | None) -> Changes:
    """What the neurons of each layer are in the other run, minus what they are."""
    chosen = chosen_layers(contrast.model, layers)
    if contrast.model.cfg.attn_only:
        raise ValueError("this model has no MLPs, and no neurons: score heads by eap_nodes.")
    for layer in chosen:
        if not 0 <= layer < contrast.graph.n_layers:
            raise ValueError(f"layer {layer}: the model has {contrast.graph.n_layers}, from 0 on.")
    if not contrast.is_patched:
        raise ValueError(
            f"MLPs are replaced by {contrast.ablate}, which says nothing of single neurons. Use "
            f"eap_nodes, or runs made without ablate=."
        )
    made = {}
    with torch.no_grad():
        other = contrast.resid[0] + contrast.change[0]
        for number in range(max(chosen, default=-1) + 1):
            ours = contrast.run_layer(number, contrast.resid[number])
            theirs = contrast.run_layer(number, other)
            other = theirs.resid
            if number in chosen:
                made[number] = _neurons(contrast, number, theirs.mlp_in) - _neurons(
                    contrast, number, ours.mlp_in
                )
    return {number: made[number] for number in chosen}


def _neurons(
    contrast: Contrast, number: int, mlp_in: Resid | None
) -> Float[Tensor, "pair pos neuron"]:
    assert mlp_in is not None
    return Layer(contrast.model, number).neurons(mlp_in)


def _scored(changes: Changes) -> Scored:
    """Scores as the integration asks for them: the input's first, then neurons by layer."""

    def scored(contrast: Contrast, starts: Resid, shares: Float[Tensor, " point"]) -> Any:
        run = traced(contrast, starts)
        slopes = slopes_at(run.total, [run.resids[0], *(run.resids[n + 1] for n in changes)])
        into_input = mean_slope(contrast, slopes[0], shares) * contrast.change[0]
        scores = [by_label(contrast, into_input.sum(-1))[None]]
        for (number, change), slope in zip(changes.items(), slopes[1:], strict=True):
            weights = models.mlp_output(contrast.model, number)[0]
            mean = mean_slope(contrast, slope, shares) @ weights.T
            products = change[:, change.shape[1] - mean.shape[1] :] * mean
            scores.append(by_label(contrast, products.permute(2, 0, 1)))
        return -contrast.sign * np.concatenate(scores)

    return scored


def _labelled(
    contrast: Contrast, changes: Changes, scores: Any, attrs: dict[str, object], began: float
) -> xr.DataArray:
    graph = contrast.graph
    by_layer = scores.reshape(len(changes), -1, *scores.shape[1:])
    coords: dict[str, Any] = {"layer": list(changes), "neuron": range(by_layer.shape[1])}
    coords |= {"pos": list(graph.positions or ("all",)), "pair": range(contrast.n_pairs)}
    attrs = {**attrs, "seconds": time.perf_counter() - began}
    made = xr.DataArray(by_layer, coords, tuple(coords), "score", attrs)
    return made if graph.positions else made.isel(pos=0, drop=True)
