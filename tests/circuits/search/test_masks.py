"""Learned masks: better together than the scores that they begin with."""

import numpy as np
import pytest
import torch

from mechinterp.circuits import Circuit, Contrast, EdgeScores, eap, evaluate, learned_mask, top_n
from mechinterp.core.metrics import top_token


def gap(contrast, circuit):
    (found,) = evaluate(contrast, [circuit])
    return abs(found - contrast.base_scores).mean()


@pytest.mark.parametrize("n", [25, 60])
def test_the_circuit_is_nearer_to_the_model(model, pair, metric, n):
    contrast = Contrast.from_pair(model, pair, metric)
    start = eap(contrast)
    found = learned_mask(contrast, start, n, steps=60)
    circuit = top_n(found, n, rank="signed")
    assert circuit.n_edges <= n
    assert gap(contrast, circuit) < gap(contrast, top_n(start, n))


def test_the_losses_fall(grouped_model, pair, metric):
    contrast = Contrast.from_pair(grouped_model, pair, metric)
    losses = learned_mask(contrast, eap(contrast), 40, steps=60).per_pair.attrs["losses"]
    assert len(losses) == 60
    assert np.mean(losses[-15:]) < 0.7 * np.mean(losses[:15])


def test_the_same_seed_gives_the_same(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    start = eap(contrast)
    first, again, other = (
        learned_mask(contrast, start, 20, steps=5, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.mean, again.mean)
    assert not np.array_equal(first.mean, other.mean, equal_nan=True)


def test_edges_without_a_score_stay_out(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    start = eap(contrast)
    some = start.per_pair.values.copy()
    some[1::2] = np.nan
    found = learned_mask(contrast, EdgeScores.from_array(start.graph, some), 20, steps=4)
    assert np.isnan(found.mean[1::2]).all()
    assert top_n(found, 20, rank="signed").n_edges > 0


def test_nothing_is_left_on_the_model(absolute_model, pair, metric, snapshot):
    before = snapshot(absolute_model)
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    learned_mask(contrast, eap(contrast), 10, steps=3)
    before.check()


def test_what_is_refused(absolute_model, pair, metric, refuses):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    refuses(lambda: learned_mask(contrast, eap(contrast), 9999), "n=9999")
    choice = Contrast.from_pair(absolute_model, pair, top_token())
    start = EdgeScores.from_array(
        choice.graph, torch.rand(*choice.graph.edges.shape, 2).double().numpy()
    )
    refuses(lambda: learned_mask(choice, start, 10), "top_token has no gradient", "logit_diff")
    denoise = Contrast.from_pair(absolute_model, pair, metric, direction="denoise")
    refuses(lambda: learned_mask(denoise, eap(denoise), 10), 'direction="noise"')
    assert Circuit.empty(choice.graph).n_edges == 0
