"""Circuits are sets of edges; what dangles is pruned to a fixed point, and carries nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.circuits import Circuit, Contrast, EdgeScores, Graph, evaluate

GRAPH = Graph(3, 2, 2, has_mlps=True, is_parallel=False)
AT_POSITIONS = Graph(3, 2, 2, has_mlps=True, is_parallel=False, positions=("end", "elsewhere"))


def some_edges(graph, seed, share):
    draw = np.random.default_rng(seed)
    return Circuit(graph, graph.edges & (draw.random(graph.edges.shape) < share), requested=7)


def pruned_slowly(circuit):
    """Edge by edge, by name, until nothing goes: no position, no shared keys."""
    edges = {tuple(name.split("->")) for name in circuit.names}
    while True:
        kept = {
            (writer, reader)
            for writer, reader in edges
            if (writer == "input" or any(r.split("<")[0] == writer for _, r in edges))
            and (reader == "logits" or any(w == reader.split("<")[0] for w, _ in edges))
        }
        if kept == edges:
            return kept
        edges = kept


@given(st.integers(0, 10_000), st.floats(0.02, 0.5))
def test_pruning_reaches_the_fixed_point(seed, share):
    circuit = some_edges(GRAPH, seed, share)
    before = circuit.mask.copy()
    found = circuit.pruned()
    assert {tuple(name.split("->")) for name in found.names} == pruned_slowly(circuit)
    assert found.pruned() == found
    assert found.requested == 7
    np.testing.assert_array_equal(circuit.mask, before)


@pytest.mark.parametrize("positions", [None, ("S2", "end")], ids=["all", "named"])
def test_pruning_does_not_change_what_the_model_does(model, pair, metric, positions):
    graph = Graph.from_model(model, positions=positions)
    circuits = [some_edges(graph, seed, share) for seed, share in enumerate([0.03, 0.06, 0.1])]
    pruned = [circuit.pruned() for circuit in circuits]
    assert any(a.n_edges > b.n_edges for a, b in zip(circuits, pruned, strict=True))
    contrast = Contrast.from_pair(model, pair, metric, graph)
    np.testing.assert_allclose(
        evaluate(contrast, circuits), evaluate(contrast, pruned), atol=1e-5, rtol=0
    )


def test_sets():
    a, b = some_edges(GRAPH, 0, 0.5), some_edges(GRAPH, 1, 0.5)
    names = [set(c.names) for c in (a & b, a | b, a - b)]
    assert names == [
        set(a.names) & set(b.names),
        set(a.names) | set(b.names),
        set(a.names) - set(b.names),
    ]
    assert a & a == a
    assert len({a, a & a, b}) == 2
    assert a.names[0] in a
    assert a.names[0] not in Circuit.empty(GRAPH)


def test_a_circuit_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        some_edges(GRAPH, 0, 0.5).mask[0, 0, 0] = False


def test_of_nodes():
    found = Circuit.from_nodes(GRAPH, ["input", "a0.h1", "m1"])
    assert found.nodes == ("input", "a0.h1", "m1", "logits")
    assert set(found.names) == {
        *("input->a0.h1<q>", "input->a0.h1<k>", "input->a0.h1<v>", "input->m1", "input->logits"),
        *("a0.h1->m1", "a0.h1->logits", "m1->logits"),
    }


def test_heads():
    assert Circuit.from_edges(GRAPH, ["a0.h1->m2", "m2->a1.h0<q>"][:1]).heads == ((0, 1),)


def test_what_is_refused(refuses):
    refuses(lambda: Circuit.from_edges(GRAPH, ["m2->m1"]), "m2 does not write before m1 reads")
    refuses(lambda: Circuit.from_nodes(GRAPH, ["logits"]), "'logits' is not a writer")
    refuses(lambda: Circuit(GRAPH, ~GRAPH.edges), "is not an edge")
    refuses(lambda: Circuit(GRAPH, GRAPH.edges[:-1]), "shape")
    refuses(
        lambda: Circuit.full(GRAPH) & Circuit.full(AT_POSITIONS),
        "different graphs",
        "Graph.from_model",
    )


def test_scores_are_means_over_pairs():
    values = np.arange(np.prod(GRAPH.edges.shape) * 2, dtype=float).reshape(*GRAPH.edges.shape, 2)
    found = EdgeScores.from_array(GRAPH, values, method="test")
    at = GRAPH.edge("m0->m1")
    assert found["m0->m1"] == values[at].mean()
    assert np.isnan(found.mean[~GRAPH.edges]).all()
    names = [name for name, _ in found.strongest(3)]
    assert names == list(Circuit.full(GRAPH).names)[::-1][:3]
    assert (
        float(found.interval()["mean"].sel(writer="m0", reader="m1", pos="all")) == found["m0->m1"]
    )
