"""A circuit's run is that of hooks which make every reader's input anew."""

import numpy as np
import pytest

from mechinterp import run
from mechinterp.circuits import Circuit, Contrast, Graph, evaluate


def close(found, wanted, atol=1e-5):
    np.testing.assert_allclose(found, wanted, atol=atol, rtol=0)


def random_circuits(graph, n, seed=0):
    draw = np.random.default_rng(seed)
    shares = draw.uniform(0.1, 0.9, n)
    return [Circuit(graph, graph.edges & (draw.random(graph.edges.shape) < p)) for p in shares]


@pytest.mark.parametrize("positions", [None, ("S2", "end")], ids=["all", "named"])
def test_circuits_are_those_of_hooks(model, pair, metric, naive, positions):
    graph = Graph.from_model(model, positions=positions)
    circuits = random_circuits(graph, 3)
    slow = naive(model, pair, metric, graph)
    found = evaluate(Contrast.from_pair(model, pair, metric, graph), circuits)
    close(found, [slow.scores_of(circuit.mask) for circuit in circuits])


def test_full_is_the_model_and_empty_the_other_run(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    full, empty = Circuit.full(contrast.graph), Circuit.empty(contrast.graph)
    found = evaluate(contrast, [full, empty])
    close(found[0], metric(run(model, pair.clean)))
    close(found[1], metric(run(model, pair.corrupt)))
