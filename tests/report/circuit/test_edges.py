"""Edges by strength: they are the data, and circuits come first where there is a limit."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mechinterp import stats
from mechinterp.circuits import Circuit, EdgeScores, Graph
from mechinterp.report.circuit.edges import N_INTERVALS, read_edges
from mechinterp.report.circuit.summary import headline, overlaps, sentences
from mechinterp.report.render.phrases import plain

GRAPH = Graph(3, 4, 2, True, False, ("S2", "end", "elsewhere"))
SMALL = Graph(2, 1, 1, False, False)


def scored(graph, n_pairs=5, seed=0) -> EdgeScores:
    rng = np.random.default_rng(seed)
    shape = (*graph.edges.shape, n_pairs)
    values = rng.laplace(size=(*shape[:3], 1)) + rng.normal(scale=0.2, size=shape)
    return EdgeScores.from_array(graph, values, unit="logits", metric="logit_diff")


def random_circuit(graph, share, seed=0) -> Circuit:
    return Circuit(
        graph, graph.edges & (np.random.default_rng(seed).random(graph.edges.shape) < share)
    )


def by_hand(**scores) -> EdgeScores:
    """A graph of two layers of one head; edges are written `input_a0q` for `input->a0.h0<q>`."""
    values = np.full((*SMALL.edges.shape, 1), np.nan)
    for name, score in scores.items():
        writer, reader = name.split("_")
        full = {"a0": "a0.h0", "a1": "a1.h0"}
        target = f"{full[reader[:2]]}<{reader[2:]}>" if reader[:2] in full else reader
        values[SMALL.edge(f"{full.get(writer, writer)}->{target}")] = score
    return EdgeScores.from_array(SMALL, values, unit="nats")


def test_edges_worked_out_by_hand():
    scores = by_hand(input_a0q=1.0, a0_a1k=-3.0, a1_logits=2.0)
    circuit = Circuit.from_edges(SMALL, ["a0.h0->a1.h0<k>", "input->a1.h0<v>"])
    edges = read_edges(scores, circuit)
    assert [edges[i].name for i in range(4)] == [
        "a0.h0->a1.h0<k>", "a1.h0->logits", "input->a0.h0<q>", "input->a1.h0<v>",
    ]  # fmt: skip
    assert [edges[i].rank for i in range(4)] == [1, 2, 3, None]
    assert [edges[i].in_first for i in range(4)] == [True, False, False, True]
    assert (len(edges), edges.ranked, edges.largest, edges.has_intervals) == (4, 3, 3.0, False)
    assert (
        plain(headline(circuit)) == "The circuit keeps 2 of 12 edges (16.7%), between 3 of 4 nodes."
    )
    assert [plain(said) for said in sentences(edges, circuit, "nats")] == [
        "The strongest edge: a0.h0 → a1.h0<k>, −3.00 nats.",
        "Of the circuit's edges 0 support the metric and 1 work against it.",
        "1 edge of the circuit has no score.",
    ]


def test_a10_an_edge_that_scores_0_neither_supports_nor_works_against():
    scores = by_hand(input_a0q=1.0, a0_a1k=-3.0, a1_logits=0.0)
    names = ["input->a0.h0<q>", "a0.h0->a1.h0<k>", "a1.h0->logits"]
    circuit = Circuit.from_edges(SMALL, names)
    said = [plain(each) for each in sentences(read_edges(scores, circuit), circuit, "nats")]
    assert said[-1] == (
        "Of the circuit's edges 1 support the metric and 1 work against it; 1 have a score of 0."
    )


@given(st.integers(0, 99), st.floats(0, 1), st.integers(1, 400))
def test_edges_are_the_data_and_a_limit_keeps_the_circuit(seed, share, most):
    scores, circuit = scored(GRAPH, 1, seed), random_circuit(GRAPH, share, seed)
    edges = read_edges(scores, circuit, most=most)
    places = tuple(edges.at.T)
    np.testing.assert_array_equal(edges.score, scores.mean[places])
    np.testing.assert_array_equal(edges.held == 1, circuit.mask[places])
    assert (np.diff(np.abs(edges.score)) <= 0).all()
    assert len(edges) == min(most, GRAPH.n_edges)
    assert len(edges) + edges.n_left_out == GRAPH.n_edges
    assert (edges.held == 1).sum() == min(most, circuit.n_edges)
    larger = (np.abs(np.nan_to_num(scores.mean)) > np.abs(edges.score[-1])).sum()
    assert edges.rank[-1] == larger + 1


def test_intervals_are_those_of_the_statistics():
    graph = Graph(6, 4, 4, True, False)
    scores = scored(graph)
    edges = read_edges(scores, Circuit.full(graph))
    assert edges.n_intervals == N_INTERVALS < len(edges)
    rows = scores.per_pair.values[tuple(edges.at[:20].T)]
    found = stats.interval(xr.DataArray(rows, dims=("edge", "pair")), dim="pair")
    np.testing.assert_allclose(edges.low[:20], found["low"])
    np.testing.assert_allclose(edges.high[:20], found["high"])
    assert np.isnan(edges.low[N_INTERVALS:]).all()


def test_two_circuits_are_told_apart():
    first, second = random_circuit(GRAPH, 0.5, 1), random_circuit(GRAPH, 0.3, 2)
    edges = read_edges(scored(GRAPH), first, second)
    places = tuple(edges.at.T)
    np.testing.assert_array_equal(edges.held & 1, first.mask[places])
    np.testing.assert_array_equal(edges.held & 2, 2 * second.mask[places])
    found, nodes = overlaps(first, second)
    both, either = (first & second).n_edges, (first | second).n_edges
    assert (found.both, found.only_first) == (both, (first - second).n_edges)
    assert found.jaccard == both / either
    assert nodes.both == len(set(first.nodes) & set(second.nodes))
    nothing = Circuit.empty(GRAPH)
    assert overlaps(nothing, nothing)[0].jaccard == 1.0


def test_circuits_of_another_graph_are_refused():
    with pytest.raises(ValueError, match=r"one Graph\.from_model\(model\)"):
        read_edges(scored(GRAPH), Circuit.full(SMALL))
    with pytest.raises(ValueError, match=r"one Graph\.from_model\(model\)"):
        read_edges(scored(GRAPH), Circuit.full(GRAPH), Circuit.full(SMALL))
