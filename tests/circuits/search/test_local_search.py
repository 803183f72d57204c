"""Swapping edges: never worse, never more of them, and better where that can be checked."""

import numpy as np
import pytest

from mechinterp.circuits import (
    Circuit,
    EdgeScores,
    best_first,
    contrast,
    eap,
    exact,
    faithfulness,
    improve,
    top_n,
)
from mechinterp.core.metrics import Metric


def share(between, circuit):
    return faithfulness(between, {"one": circuit})["faithfulness"].item()


@pytest.mark.parametrize("absolute", [True, False], ids=["near", "high"])
@pytest.mark.parametrize("n", [3, 20, 100])
def test_never_worse_than_any_that_it_begins_with(model, pair, metric, n, absolute):
    between = contrast(model, pair, metric)
    scores = eap(between)
    starts = [make(scores, n, absolute=absolute) for make in (top_n, best_first)]
    found = improve(between, *starts, absolute=absolute)
    assert found.n_edges <= found.requested == n
    assert found == found.pruned()
    shares = np.array([share(between, each) for each in (found, *starts)])
    badness = np.abs(1 - shares) if absolute else -shares
    assert badness[0] <= badness[1:].min() + 1e-5


def test_a_bad_circuit_becomes_a_good_one(model, pair, metric):
    between = contrast(model, pair, metric)
    turned = EdgeScores.of(between.graph, -exact(between).per_pair.values)
    worst = top_n(turned, 40, absolute=False)
    near, high = (improve(between, worst, absolute=a, rounds=20) for a in (True, False))
    assert share(between, high) > share(between, worst)
    assert abs(1 - share(between, near)) < 0.1 < abs(1 - share(between, worst))


def test_free_places_are_filled(model, pair, metric):
    between = contrast(model, pair, metric)
    nothing = Circuit(between.graph, np.zeros_like(between.graph.edges), requested=25)
    found = improve(between, nothing, absolute=False)
    assert 0 < found.n_edges <= 25
    assert share(between, found) > 0.3


def test_no_round_no_change(absolute_model, pair, metric):
    between = contrast(absolute_model, pair, metric)
    start = top_n(eap(between), 30)
    assert improve(between, start, rounds=0) == start


def test_what_cannot_be_improved(model, pair, metric, refuses):
    between = contrast(model, pair, metric)
    refuses(lambda: improve(between), "no circuit to begin with", "top_n")
    denoised = contrast(model, pair, metric, direction="denoise")
    refuses(lambda: improve(denoised, Circuit.full(between.graph)), "noise")
    step = Metric("sign", "share", ("end",), lambda logits: (logits[:, 0, 7] > 0).float())
    stepping = contrast(model, pair, step)
    with pytest.raises(ValueError, match=r"no gradient|alike"):
        improve(stepping, Circuit.empty(stepping.graph))
