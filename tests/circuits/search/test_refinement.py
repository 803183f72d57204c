"""Screening and measuring: what is exact, what is estimated, what is left."""

import numpy as np
import pytest

from mechinterp.circuits import Contrast, acdc, eap, exact_edges, refine, top_n


@pytest.mark.parametrize("k", [40, 150])
def test_the_best_are_exact_and_the_rest_as_given(model, pair, metric, k):
    contrast = Contrast.from_pair(model, pair, metric)
    estimated, whole = eap(contrast), exact_edges(contrast).per_pair.values
    scores, circuit = refine(contrast, estimated, k=k, tau=0.02)
    best = top_n(estimated, k).mask
    found = scores.per_pair.values
    np.testing.assert_allclose(found[best], whole[best], atol=1e-5)
    np.testing.assert_array_equal(found[~best], estimated.per_pair.values[~best])
    assert scores.per_pair.attrs["exact_edges"] == best.sum()
    assert not (circuit.mask & ~best).any()


@pytest.mark.slow
def test_all_edges_measured_and_none_too_small_is_acdc(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    _, circuit = refine(contrast, eap(contrast), k=contrast.graph.n_edges, tau=0.0)
    every = top_n(eap(contrast), contrast.graph.n_edges)
    assert circuit == acdc(contrast, 0.0, every, target="model")
    _, signed = refine(contrast, eap(contrast), k=contrast.graph.n_edges, tau=0.0, target="above")
    assert signed == acdc(contrast, 0.0, every)


def test_too_many_edges(absolute_model, pair, metric, refuses):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    refuses(lambda: refine(contrast, eap(contrast), k=9999, tau=0.1), "n=9999")
