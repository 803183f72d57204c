"""The optimal choice, against all choices of a small graph."""

import itertools

import numpy as np
import pytest

from mechinterp.circuits import Circuit, EdgeScores, Graph, best_first, optimal_circuit, top_n
from mechinterp.circuits.search.integer_programme import NotOptimalWarning

SMALL = Graph(2, 1, 1, has_mlps=True, is_parallel=False)
SHARED = Graph(2, 2, 1, has_mlps=False, is_parallel=False)
LARGE = Graph(4, 4, 4, has_mlps=True, is_parallel=False)


def random_scores(graph, seed):
    values = np.random.default_rng(seed).normal(size=(*graph.edges.shape, 1))
    return EdgeScores.from_array(graph, values)


def total(scores, circuit):
    return float(scores.mean[circuit.mask].sum())


def largest_sums(scores, most):
    """The largest total of a circuit of up to n edges that prunes to itself, tried one by one."""
    graph, found = scores.graph, {}
    places = np.argwhere(graph.edges)
    for n in range(1, most + 1):
        best = found.get(n - 1, 0.0)
        for chosen in itertools.combinations(range(len(places)), n):
            mask = np.zeros(graph.edges.shape, dtype=bool)
            mask[tuple(places[list(chosen)].T)] = True
            circuit = Circuit(graph, mask)
            value = total(scores, circuit)
            if value > best and circuit.pruned() == circuit:
                best = value
        found[n] = best
    return found


@pytest.mark.parametrize("graph", [SMALL, SHARED], ids=["serial", "shared keys"])
@pytest.mark.parametrize("seed", range(3))
def test_no_connected_choice_has_a_larger_sum(graph, seed):
    scores = random_scores(graph, seed)
    for n, wanted in largest_sums(scores, 4).items():
        found = optimal_circuit(scores, n)
        assert total(scores, found) == pytest.approx(wanted)
        assert found.n_edges <= n
        assert found.pruned() == found
        assert found.requested == n


@pytest.mark.parametrize("n", [5, 20, 100])
def test_at_least_the_sum_of_best_first(n):
    scores = random_scores(LARGE, n)
    found, greedy = optimal_circuit(scores, n), best_first(scores, n, rank="signed")
    assert total(scores, found) >= total(scores, greedy) - 1e-9
    assert found.pruned() == found


def test_by_size():
    scores = random_scores(LARGE, 0)
    sizes = EdgeScores.from_array(LARGE, np.abs(scores.per_pair.values))
    assert optimal_circuit(scores, 30, rank="size") == optimal_circuit(sizes, 30)


def test_without_time_it_says_so_and_takes_the_best_there_is():
    scores = random_scores(LARGE, 1)
    with pytest.warns(NotOptimalWarning, match="may be larger by"):
        found = optimal_circuit(scores, 60, seconds=1e-9)
    assert 0 < total(scores, found) <= total(scores, optimal_circuit(scores, 60))
    assert found == found.pruned()


def test_the_largest_where_they_are_connected_need_no_programme():
    scores = EdgeScores.from_array(LARGE, 1 + np.abs(random_scores(LARGE, 2).per_pair.values))
    n = LARGE.n_edges - 3
    assert optimal_circuit(scores, n, seconds=1e-9) == top_n(scores, n)


def test_what_is_refused(refuses):
    at_positions = Graph(2, 1, 1, has_mlps=True, is_parallel=False, positions=("end", "elsewhere"))
    refuses(
        lambda: optimal_circuit(random_scores(at_positions, 0), 3),
        "without positions",
        "best_first",
    )
    refuses(lambda: optimal_circuit(random_scores(SMALL, 0), 99), "n=99")
    assert optimal_circuit(random_scores(SMALL, 0), 0) == Circuit.empty(SMALL)
