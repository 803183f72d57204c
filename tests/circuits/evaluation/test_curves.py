"""The areas of MIB, and the rank AUC, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mechinterp.circuits import (
    Circuit,
    Contrast,
    EdgeScores,
    Graph,
    eap,
    evaluate,
    faithfulness_curve,
    rank_auc,
)
from mechinterp.circuits.evaluation.curves import MIB_SIZES
from mechinterp.circuits.selection import best_first, top_n

GRAPH = Graph(3, 2, 2, has_mlps=True, is_parallel=False)


def test_a_curve_is_its_circuits(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    scores = eap(contrast)
    found = faithfulness_curve(contrast, scores, sizes=(0.02, 0.1, 0.4, 1.0))
    n_edges = contrast.graph.n_edges
    circuits = [top_n(scores, int(size * n_edges)) for size in (0.02, 0.1, 0.4, 1)]
    values = evaluate(contrast, circuits)
    empty = evaluate(contrast, [Circuit.empty(contrast.graph)])[0].mean()
    f = (values.mean(1) - empty) / (contrast.base_scores.mean() - empty)
    np.testing.assert_allclose(found["faithfulness"].values, f, rtol=1e-4)
    assert found["edges"].values.tolist() == [circuit.n_edges for circuit in circuits]
    assert found["requested"].values.tolist() == [int(s * n_edges) for s in (0.02, 0.1, 0.4, 1)]
    widths = np.array([0.08, 0.3, 0.6])
    heights = (f[1:] + f[:-1]) / 2
    assert found.attrs["CPR"] == pytest.approx(float((widths * heights).sum()), rel=1e-4)
    misses = abs(1 - f)
    area = float((widths * (misses[1:] + misses[:-1]) / 2).sum())
    assert found.attrs["CMD"] == pytest.approx(area, rel=1e-4)
    kept = np.array([circuit.n_edges for circuit in circuits]) / n_edges
    area = float((np.diff(kept) * heights).sum())
    assert found.attrs["CPR by edges kept"] == pytest.approx(area, rel=1e-4)


def test_the_full_circuit_is_the_last_point(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    found = faithfulness_curve(contrast, eap(contrast), select=best_first, rank="signed")
    assert found["faithfulness"].values[-1] == pytest.approx(1, abs=1e-5)
    assert len(found["faithfulness"]) == len(MIB_SIZES)
    assert found.attrs["ranked_by"] == "signed"


@given(st.integers(0, 999), st.sampled_from(["size", "signed"]))
def test_rank_auc_is_the_exact_area(seed, rank):
    draw = np.random.default_rng(seed)
    values = draw.integers(-3, 4, (*GRAPH.edges.shape, 1)).astype(float)  # with ties
    scores = EdgeScores.from_array(GRAPH, values)
    truth = Circuit(GRAPH, GRAPH.edges & (draw.random(GRAPH.edges.shape) < 0.2))
    flat = scores.mean[GRAPH.edges]
    wanted = roc_auc_score(truth.mask[GRAPH.edges], abs(flat) if rank == "size" else flat)
    assert rank_auc(scores, truth, rank=rank) == pytest.approx(wanted)


def test_nothing_to_tell_apart(refuses):
    scores = EdgeScores.from_array(GRAPH, np.zeros((*GRAPH.edges.shape, 1)))
    refuses(lambda: rank_auc(scores, Circuit.empty(GRAPH)), "an AUC needs edges")


def test_no_behaviour_is_refused(absolute_model, pair, refuses):
    from mechinterp.core.metrics import Metric

    constant = Metric("constant", "logits", ("end",), lambda logits: 0 * logits[:, 0].sum(-1))
    contrast = Contrast.from_pair(absolute_model, pair, constant)
    scores = EdgeScores.from_array(contrast.graph, np.zeros((*contrast.graph.edges.shape, 2)))
    refuses(lambda: faithfulness_curve(contrast, scores), "no behaviour to be a share of")
