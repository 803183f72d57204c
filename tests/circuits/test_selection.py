"""Choosing edges by their scores, against slow obvious choices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.circuits import (
    Circuit,
    EdgeScores,
    Graph,
    above_threshold,
    best_first,
    optimal_circuit,
    rank_auc,
    top_n,
)

GRAPH = Graph(3, 2, 2, has_mlps=True, is_parallel=False)
PARALLEL = Graph(2, 3, 3, has_mlps=True, is_parallel=True)


def random_scores(graph, seed, ties=False):
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(*graph.edges.shape, 2))
    return EdgeScores.from_array(graph, values.round(1) if ties else values)


def named(scores):
    return {
        scores.graph.edge_name(*at): scores.mean[tuple(at)]
        for at in np.argwhere(scores.graph.edges).tolist()
    }


def greedy_by_hand(scores, n, size):
    """Add the best edge into what is in the circuit; then what it comes from is in too."""
    left, nodes, chosen = dict(named(scores)), {"logits"}, []
    while len(chosen) < n:
        ready = [name for name in left if name.split("->")[1].split("<")[0] in nodes]
        best = max(ready, key=lambda name: size(left[name]))
        del left[best]
        chosen.append(best)
        nodes.add(best.split("->")[0])
    return chosen


@pytest.mark.parametrize("rank", ["size", "signed"])
@given(seed=st.integers(0, 999), n=st.integers(1, 80))
def test_best_first_by_hand(rank, seed, n):
    scores = random_scores(GRAPH, seed)
    chosen = greedy_by_hand(scores, n, abs if rank == "size" else lambda score: score)
    found = best_first(scores, n, rank=rank)
    assert found == Circuit.from_edges(GRAPH, chosen).pruned()
    assert found.requested == n


@pytest.mark.parametrize("graph", [GRAPH, PARALLEL], ids=["serial", "parallel"])
@given(seed=st.integers(0, 999), n=st.integers(0, 60))
def test_the_best_n(graph, seed, n):
    scores = random_scores(graph, seed)
    ordered = sorted(named(scores).items(), key=lambda item: -abs(item[1]))
    chosen = [name for name, _ in ordered[:n]]
    assert top_n(scores, n) == Circuit.from_edges(graph, chosen).pruned()
    signed = sorted(named(scores).items(), key=lambda item: -item[1])
    wanted = Circuit.from_edges(graph, [name for name, _ in signed[:n]]).pruned()
    assert top_n(scores, n, rank="signed") == wanted


def test_equal_scores_go_by_the_order_of_the_graph():
    scores = random_scores(GRAPH, 0, ties=True)
    sizes = [top_n(scores, n).requested for n in range(5)]
    assert sizes == [0, 1, 2, 3, 4]
    assert top_n(scores, 20) == top_n(scores, 20)


def test_over_a_threshold():
    scores = random_scores(GRAPH, 1)
    wanted = [name for name, score in named(scores).items() if abs(score) > 0.7]
    assert above_threshold(scores, 0.7) == Circuit.from_edges(GRAPH, wanted).pruned()
    assert above_threshold(scores, 0.7).requested == len(wanted)
    signed = [name for name, score in named(scores).items() if score > 0.7]
    assert above_threshold(scores, 0.7, rank="signed") == Circuit.from_edges(GRAPH, signed).pruned()


def test_more_than_there_are(refuses):
    scores = random_scores(GRAPH, 0)
    refuses(lambda: top_n(scores, 10_000), "n=10000", f"{GRAPH.n_edges} edges")
    refuses(lambda: best_first(scores, -1), "n=-1")


def test_every_edge():
    scores = random_scores(GRAPH, 0)
    assert best_first(scores, GRAPH.n_edges) == Circuit.full(GRAPH)
    assert top_n(scores, GRAPH.n_edges) == Circuit.full(GRAPH)


@pytest.mark.usefixtures("as_users_call_it")
def test_an_unknown_rank_is_refused_with_the_choices(refuses):
    scores = random_scores(GRAPH, 0)
    for choose in (top_n, above_threshold, best_first, optimal_circuit):
        refuses(lambda choose=choose: choose(scores, 3, rank="big"), "'big'", "'size', 'signed'")
    refuses(lambda: rank_auc(scores, top_n(scores, 3), rank="big"), "'size', 'signed'")
