"""Swapping edges: never worse, never more of them, and better where that can be checked."""

import numpy as np
import pytest

from mechinterp.circuits import (
    Circuit,
    Contrast,
    EdgeScores,
    best_first,
    eap,
    exact,
    faithfulness,
    improve,
    top_n,
)
from mechinterp.core.metrics import Metric


def share(contrast, circuit):
    return faithfulness(contrast, {"one": circuit})["faithfulness"].item()


@pytest.mark.parametrize("absolute", [True, False], ids=["near", "high"])
@pytest.mark.parametrize("n", [3, 20, 100])
def test_never_worse_than_any_that_it_begins_with(model, pair, metric, n, absolute):
    contrast = Contrast.from_pair(model, pair, metric)
    scores = eap(contrast)
    starts = [make(scores, n, absolute=absolute) for make in (top_n, best_first)]
    found = improve(contrast, *starts, absolute=absolute)
    assert found.n_edges <= found.requested == n
    assert found == found.pruned()
    shares = np.array([share(contrast, each) for each in (found, *starts)])
    badness = np.abs(1 - shares) if absolute else -shares
    assert badness[0] <= badness[1:].min() + 1e-5


def test_a_bad_circuit_becomes_a_good_one(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    turned = EdgeScores.of(contrast.graph, -exact(contrast).per_pair.values)
    worst = top_n(turned, 40, absolute=False)
    near, high = (improve(contrast, worst, absolute=a, rounds=20) for a in (True, False))
    assert share(contrast, high) > share(contrast, worst)
    assert abs(1 - share(contrast, near)) < 0.1 < abs(1 - share(contrast, worst))


def test_free_places_are_filled(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    nothing = Circuit(contrast.graph, np.zeros_like(contrast.graph.edges), requested=25)
    found = improve(contrast, nothing, absolute=False)
    assert 0 < found.n_edges <= 25
    assert share(contrast, found) > 0.3


def test_no_round_no_change(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    start = top_n(eap(contrast), 30)
    assert improve(contrast, start, rounds=0) == start


def test_what_cannot_be_improved(absolute_model, pair, metric, refuses):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    refuses(lambda: improve(contrast), "no circuit to begin with", "top_n")
    denoised = Contrast.from_pair(absolute_model, pair, metric, direction="denoise")
    refuses(lambda: improve(denoised, Circuit.full(contrast.graph)), "noise")
    step = Metric("sign", "share", ("end",), lambda logits: (logits[:, 0, 7] > 0).float())
    stepping = Contrast.from_pair(absolute_model, pair, step)
    with pytest.raises(ValueError, match=r"no gradient|alike"):
        improve(stepping, Circuit.empty(stepping.graph))
