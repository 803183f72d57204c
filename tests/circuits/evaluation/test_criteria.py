"""Edges one by one out of a circuit, and in twos out of the model."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from mechinterp import Pair, load_model, log_prob, token_id, tokenize
from mechinterp.circuits import (
    Circuit,
    Contrast,
    completeness,
    eap,
    evaluate,
    exact_edges,
    known_circuit,
    minimality,
    redundancy,
    top_n,
)
from mechinterp.toys import toy


def test_minimality_is_one_evaluation_an_edge(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    circuit = top_n(eap(contrast), 12)
    found = minimality(contrast, circuit)
    (whole,) = evaluate(contrast, [circuit])
    for name in circuit.names:
        (less,) = evaluate(contrast, [circuit - Circuit.from_edges(circuit.graph, [name])])
        np.testing.assert_allclose(found.sel(edge=name), whole - less, atol=2e-5)


def test_completeness_compares_circuit_and_model(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    circuit = top_n(eap(contrast), 40)
    found = completeness(contrast, circuit)
    assert found.sizes["knocked"] == 11
    assert float(found["circuit"][0]) == pytest.approx(0, abs=1e-4)  # nothing is left of it
    full = Circuit.full(circuit.graph)
    values = evaluate(contrast, [full - circuit, Circuit.empty(circuit.graph)]).mean(1)
    whole = contrast.base_scores.mean() - values[1]
    assert float(found["model"][0]) == pytest.approx((values[0] - values[1]) / whole, rel=1e-3)
    np.testing.assert_allclose(found["gap"], found["model"] - found["circuit"])
    everything = completeness(contrast, full)
    np.testing.assert_allclose(everything["gap"], 0, atol=1e-4)


def test_redundancy_is_two_cuts(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    edges = top_n(eap(contrast), 6)
    found, full = redundancy(contrast, edges), Circuit.full(edges.graph)
    for a, b in itertools.combinations(edges.names, 2):
        values = evaluate(
            contrast,
            [full - Circuit.from_edges(edges.graph, chosen) for chosen in ([a], [b], [a, b])],
        )
        alone_a, alone_b, joint = contrast.base_scores - values
        at = found.sel(edge=a, other=b)
        np.testing.assert_allclose(at["joint"], joint, atol=1e-5)
        np.testing.assert_allclose(at["interaction"], joint - alone_a - alone_b, atol=2e-5)


def refusal(name, clean, corrupt):
    planted = toy(name)
    model = load_model(planted)
    pair = Pair(tokenize(model, clean), tokenize(model, corrupt))
    return planted, pair, model, log_prob(token_id(model, "REFUSE"))


def test_an_or_gate_is_seen_in_twos_and_missed_one_by_one():
    planted, pair, model, metric = refusal(
        "either", "bring the copper lantern", "bring the garden letter"
    )
    contrast = Contrast.from_pair(model, pair, metric)
    truth = known_circuit(contrast.graph, planted.truth)
    alone = exact_edges(contrast, truth)
    found = redundancy(contrast, truth)["interaction"].isel(pair=0)
    branches = [[n for n in truth.names if f"a0.h{head}" in n] for head in (0, 3)]
    for first, second in itertools.product(*branches):
        assert alone[first] < 0.2
        assert alone[second] < 0.2
        assert float(found.sel(edge=first, other=second)) > 5
    assert alone["m0->logits"] > 5
    restored = exact_edges(Contrast.from_pair(model, pair, metric, direction="denoise"), truth)
    assert all(restored[name] > 5 for name in ("a0.h0->m0", "a0.h3->m0"))


def test_an_and_gate_needs_both():
    planted, pair, model, metric = refusal(
        "and", "bring the copper lantern", "bring the garden letter"
    )
    contrast = Contrast.from_pair(model, pair, metric)
    truth = known_circuit(contrast.graph, planted.truth)
    found = redundancy(contrast, truth)["interaction"].isel(pair=0)
    assert float(found.sel(edge="a0.h1->m0", other="a0.h2->m0")) < -5


@pytest.mark.parametrize("name", ["redundant", "backup"])
def test_planted_redundancy_is_found(name):
    planted, pair, model, metric = refusal(name, "bring the sesame", "bring the letter")
    contrast = Contrast.from_pair(model, pair, metric)
    truth = known_circuit(contrast.graph, planted.truth)
    found = redundancy(contrast, truth)["interaction"].isel(pair=0)
    graph = contrast.graph
    for group in planted.truth.redundant:
        names = known_circuit(graph, replace(planted.truth, edges=group)).names
        for first, second in itertools.combinations(names, 2):
            assert float(found.sel(edge=first, other=second)) > 3, (first, second)


def test_no_edges(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    assert redundancy(contrast, Circuit.empty(contrast.graph)).sizes["edge"] == 0
