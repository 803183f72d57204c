"""Scores by gradients are the derivative of the run by how much of an edge is cut."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mechinterp import Site, read, run
from mechinterp.circuits import Contrast, Graph, eap, eap_ig, exact_edges
from mechinterp.circuits.evaluation.faithfulness import run_without
from mechinterp.engine.gradients import site_gradients
from mechinterp.engine.replacements import mean_of


def derivative(contrast):
    """By autograd, pair by pair, on the mask of all edges."""
    cut = torch.zeros(1, *contrast.graph.edges.shape, dtype=torch.float64, requires_grad=True)
    output, at, _ = contrast.output(run_without(contrast, cut))
    scores = contrast.metric.score(output.logits_of(contrast.metric.tokens, range(len(at))))
    gradients = [torch.autograd.grad(s, cut, retain_graph=True)[0][0] for s in scores]
    return torch.stack(gradients, -1).numpy()


def moved(contrast, point):
    """The run whose embedding stands between the two; what is changed stays the same."""
    return replace(contrast, resid=(contrast.resid[0] + point * contrast.change[0],))


def close(found, wanted, relative=1e-6):
    there = np.isfinite(found)
    tolerance = relative * np.abs(wanted[there]).max()
    np.testing.assert_allclose(found[there], wanted[there], atol=tolerance, rtol=0)


@pytest.mark.parametrize("positions", [None, ("S2", 4)], ids=["all", "named"])
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_eap_is_autograd_on_a_mask(precise, pair, metric, positions, direction):
    graph = Graph.from_model(precise, positions=positions)
    contrast = Contrast.from_pair(precise, pair, metric, graph, direction=direction)
    close(eap(contrast).per_pair.values, -contrast.sign * derivative(contrast))


@pytest.mark.parametrize("ablate", ["zero", "mean"])
def test_eap_of_other_replacements(precise, pair, metric, ablate):
    how = "zero" if ablate == "zero" else mean_of(pair.corrupt, by_position=True)
    contrast = Contrast.from_pair(precise, pair, metric, ablate=how)
    close(eap(contrast).per_pair.values, -derivative(contrast))


def test_eap_is_the_slope_of_exact_effects(precise, pair, metric):
    """A small change has the effect that the gradient says: nothing of the code is shared."""
    contrast = Contrast.from_pair(precise, pair, metric)
    small = 1e-5
    shrunk = replace(contrast, change=contrast.change * small)
    close(eap(contrast).per_pair.values, exact_edges(shrunk).per_pair.values / small, 1e-3)


def test_a_node_scores_the_sum_of_its_edges(precise, pair, metric):
    """The change of what a head writes times the gradient there, as in attribution patching."""
    found = eap(Contrast.from_pair(precise, pair, metric)).node_scores()
    sites = [Site("embed"), *(Site("z", layer) for layer in range(precise.cfg.n_layers))]
    clean, corrupt = (
        run(precise, side, read(*sites), logits_at=()).acts for side in (pair.clean, pair.corrupt)
    )
    gradients = site_gradients(precise, pair.clean, sites, metric)
    embed = ((corrupt[sites[0]] - clean[sites[0]]) * gradients[sites[0]]).sum((1, 2))
    close(found.sel(writer="input").values, -embed.numpy())
    for layer, site in enumerate(sites[1:]):
        heads = ((corrupt[site] - clean[site]) * gradients[site]).sum((1, 3))
        names = [f"a{layer}.h{head}" for head in range(precise.cfg.n_heads)]
        close(found.sel(writer=names).values, -heads.numpy().T)


def test_integrated_gradients_by_hand(precise, pair, metric):
    """The mean over points of the scores of a run whose embedding stands there."""
    contrast = Contrast.from_pair(precise, pair, metric)
    found = eap_ig(contrast, 3, rule="midpoint")
    at = [moved(contrast, point) for point in (1 / 6, 1 / 2, 5 / 6)]
    close(found.per_pair.values, np.mean([eap(b).per_pair.values for b in at], 0))


def test_the_residual_vanishes(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    scores = eap_ig(contrast, None)
    assert scores.per_pair.attrs["residual_share"] <= 0.01
    whole = metric(run(model, pair.clean)) - metric(run(model, pair.corrupt))
    carried = scores.per_pair.sel(writer="input").sum(("reader", "pos")).values
    assert abs((carried - whole.numpy()).mean()) <= 0.011 * abs(float(whole.mean()))


def test_the_published_points_hold_the_corrupt_end_and_not_the_clean_one(precise, pair, metric):
    contrast = Contrast.from_pair(precise, pair, metric)
    one = eap_ig(contrast, 1, rule="left")
    close(one.per_pair.values, eap(moved(contrast, 1.0)).per_pair.values)
    right = eap_ig(contrast, 1)
    close(right.per_pair.values, eap(contrast).per_pair.values)


def test_what_cannot_be_asked(absolute_model, pair, metric, refuses):
    contrast = Contrast.from_pair(absolute_model, pair, metric, ablate="zero")
    refuses(lambda: eap_ig(contrast), "replaced by zero", "second run")
    patched = Contrast.from_pair(absolute_model, pair, metric)
    refuses(lambda: eap_ig(patched, 0), "steps=0", "at least one")
    refuses(lambda: eap_ig(patched, rule="simpson"), "rule='simpson'", "midpoint")
