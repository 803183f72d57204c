"""Swapping edges: never worse, never more of them, and better where that can be checked."""

import numpy as np
import pytest

from mechinterp.circuits import (
    Circuit,
    Contrast,
    EdgeScores,
    acdc,
    acdc_scores,
    best_first,
    eap,
    exact_edges,
    faithfulness,
    refine,
    swap_edges,
    top_n,
)
from mechinterp.core.metrics import Metric


def share(contrast, circuit):
    return faithfulness(contrast, {"one": circuit})["faithfulness"].item()


@pytest.mark.parametrize("target", ["model", "above"])
@pytest.mark.parametrize("n", [3, 20, 100])
def test_never_worse_than_any_that_it_begins_with(model, pair, metric, n, target):
    contrast = Contrast.from_pair(model, pair, metric)
    scores = eap(contrast)
    starts = [
        make(scores, n, rank="size" if target == "model" else "signed")
        for make in (top_n, best_first)
    ]
    found = swap_edges(contrast, *starts, target=target)
    assert found.n_edges <= found.requested == n
    assert found == found.pruned()
    shares = np.array([share(contrast, each) for each in (found, *starts)])
    badness = np.abs(1 - shares) if target == "model" else -shares
    assert badness[0] <= badness[1:].min() + 1e-5


def test_a_bad_circuit_becomes_a_good_one(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    turned = EdgeScores.from_array(contrast.graph, -exact_edges(contrast).per_pair.values)
    worst = top_n(turned, 40, rank="signed")
    near, high = (swap_edges(contrast, worst, target=t, rounds=20) for t in ("model", "above"))
    assert share(contrast, high) > share(contrast, worst)
    assert abs(1 - share(contrast, near)) < 0.1 < abs(1 - share(contrast, worst))


def test_free_places_are_filled(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    nothing = Circuit(contrast.graph, np.zeros_like(contrast.graph.edges), requested=25)
    found = swap_edges(contrast, nothing, target="above")
    assert 0 < found.n_edges <= 25
    assert share(contrast, found) > 0.3


def test_no_round_no_change(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    start = top_n(eap(contrast), 30)
    assert swap_edges(contrast, start, rounds=0) == start


def test_what_cannot_be_improved(absolute_model, pair, metric, refuses):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    refuses(lambda: swap_edges(contrast), "no circuit to begin with", "top_n")
    denoised = Contrast.from_pair(absolute_model, pair, metric, direction="denoise")
    refuses(lambda: swap_edges(denoised, Circuit.full(contrast.graph)), "noise")
    step = Metric("sign", "share", ("end",), lambda logits: (logits[:, 0, 7] > 0).float())
    stepping = Contrast.from_pair(absolute_model, pair, step)
    with pytest.raises(ValueError, match=r"no gradient|no behaviour"):
        swap_edges(stepping, Circuit.empty(stepping.graph))


@pytest.mark.usefixtures("as_users_call_it")
def test_an_unknown_target_is_refused_with_the_choices(absolute_model, pair, metric, refuses):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    scores = EdgeScores.from_array(contrast.graph, np.zeros((*contrast.graph.edges.shape, 1)))
    for search in (
        lambda: swap_edges(contrast, target="best"),
        lambda: acdc(contrast, 0.1, target="best"),
        lambda: acdc_scores(contrast, [0.1], target="best"),
        lambda: refine(contrast, scores, tau=0.1, target="best"),
    ):
        refuses(search, "'best'", "'model', 'above'")
