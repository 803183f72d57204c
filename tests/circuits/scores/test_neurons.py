"""Neurons score what hooks say: the change at `mlp_post` times the gradient there."""

import numpy as np
import pytest
import torch
from torch import nn

from mechinterp import Site, edit, read, run
from mechinterp.circuits import (
    Contrast,
    Graph,
    eap_ig_neurons,
    eap_ig_nodes,
    eap_neurons,
    eap_nodes,
    exact_neurons,
)
from mechinterp.engine.gradients import site_gradients

MLPS = ["absolute", "grouped", "parallel"]


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=1e-6 * np.abs(wanted).max(), rtol=0)


def of_layers(nodes, layers):
    return nodes.sel(writer=[f"m{layer}" for layer in layers]).values


@pytest.mark.parametrize("model", MLPS, indirect=True)
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_the_change_times_the_gradient(precise, pair, metric, direction):
    base, other, sign = pair.clean, pair.corrupt, 1
    if direction == "denoise":
        base, other, sign = other, base, -1
    sites = [Site("mlp_post", layer) for layer in range(precise.cfg.n_layers)]
    here, there = (run(precise, p, read(*sites), logits_at=()).acts for p in (base, other))
    gradients = site_gradients(precise, base, sites, metric)
    wanted = [((there[s] - here[s]) * gradients[s]).sum(1).T.numpy() for s in sites]
    found = eap_neurons(Contrast.from_pair(precise, pair, metric, direction=direction))
    assert found.dims == ("layer", "neuron", "pair")
    close(found.values, -sign * np.stack(wanted))


@pytest.mark.parametrize("model", MLPS, indirect=True)
@pytest.mark.parametrize("positions", [None, ("S2", 4)], ids=["all", "named"])
def test_together_they_score_what_their_mlp_does(precise, pair, metric, positions):
    graph = Graph.from_model(precise, positions=positions)
    contrast, layers = Contrast.from_pair(precise, pair, metric, graph), [2, 0]
    once = eap_neurons(contrast, layers)
    assert once.layer.values.tolist() == layers
    close(once.sum("neuron").values, of_layers(eap_nodes(contrast), layers))
    on_way, nodes = eap_ig_neurons(contrast, layers, 3), eap_ig_nodes(contrast, 3)
    close(on_way.sum("neuron").values, of_layers(nodes, layers))
    assert on_way.attrs["residual"] == pytest.approx(nodes.attrs["residual"], abs=1e-9)


@pytest.mark.parametrize("model", MLPS, indirect=True)
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_exact_effects_are_those_of_hooks(model, pair, metric, direction):
    base, other, sign = pair.clean, pair.corrupt, 1
    if direction == "denoise":
        base, other, sign = other, base, -1
    chosen = {2: [0, 5, 9], 0: [3]}
    graph = Graph.from_model(model, positions=["S2", "end"])
    whole = exact_neurons(Contrast.from_pair(model, pair, metric, direction=direction), chosen)
    placed = exact_neurons(
        Contrast.from_pair(model, pair, metric, graph, direction=direction), chosen
    )
    score_at_base = metric(run(model, base, logits_at=metric.at)).numpy()
    at_end = torch.arange(base.width) == base.width - 1
    for layer, neurons in chosen.items():
        site = Site("mlp_post", layer)
        there = run(model, other, read(site), logits_at=()).acts[site]
        for neuron in neurons:
            for found, where in (
                (whole.sel(layer=layer, neuron=neuron), slice(None)),
                (placed.sel(layer=layer, neuron=neuron, pos="end"), at_end),
            ):

                def put(value, at, where=where, neuron=neuron, there=there):
                    value[:, where, neuron] = there[:, where, neuron]
                    return value

                cut = metric(run(model, base, edit(site, put), logits_at=metric.at)).numpy()
                np.testing.assert_allclose(found.values, sign * (score_at_base - cut), atol=1e-5)
    assert int(np.isfinite(whole.isel(pair=0)).sum()) == 4


def test_all_neurons_unless_some_are_chosen(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    every = exact_neurons(contrast)
    assert every.shape == (3, absolute_model.cfg.d_mlp, 2)
    few = exact_neurons(contrast, {1: [4]})
    np.testing.assert_allclose(
        few.sel(layer=1, neuron=4).values, every.sel(layer=1, neuron=4).values, atol=1e-6
    )


def test_what_cannot_be_asked(grouped_model, attention_only_model, pair, metric, refuses):
    refuses(
        lambda: eap_neurons(Contrast.from_pair(attention_only_model, pair, metric)),
        "no MLPs",
        "heads",
    )
    contrast = Contrast.from_pair(grouped_model, pair, metric)
    refuses(lambda: eap_neurons(contrast, [3]), "layer 3", "has 3")
    refuses(lambda: eap_ig_neurons(contrast, steps=0), "steps=0")
    n = grouped_model.cfg.d_mlp
    refuses(lambda: exact_neurons(contrast, {0: [n]}), f"neurons are 0 to {n - 1}", str(n))
    zeroed = Contrast.from_pair(grouped_model, pair, metric, ablate="zero")
    refuses(lambda: eap_neurons(zeroed), "replaced by zero", "eap_nodes")


def test_an_mlp_that_does_something_else_is_refused(grouped_model, pair, metric, refuses):
    contrast = Contrast.from_pair(grouped_model, pair, metric)
    own = grouped_model.blocks[1].mlp
    try:
        grouped_model.blocks[1].mlp = Doubled(own)
        refuses(lambda: eap_neurons(contrast), "neurons of layer 1", "not known")
    finally:
        grouped_model.blocks[1].mlp = own


class Doubled(nn.Module):
    """An MLP that writes twice what its neurons say."""

    def __init__(self, own):
        super().__init__()
        self.__dict__.update({n: getattr(own, n) for n in ("W_in", "W_gate", "W_out", "b_in")})
        self.__dict__.update(own=[own], act_fn=own.act_fn, b_out=own.b_out)

    def forward(self, x):
        return 2 * self.own[0](x)
