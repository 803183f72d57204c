"""Edges are split into runs: each edge in one, and however many fit, the effects are the same."""

import numpy as np

from mechinterp.circuits import Contrast, exact_edges
from mechinterp.circuits.scores.edge_runs import split_edges


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)


def test_every_edge_is_in_one_chunk_of_its_readers_layer(model, pair, metric, monkeypatch):
    monkeypatch.setattr("mechinterp.circuits.scores.edge_runs._AT_ONCE", 90)
    contrast = Contrast.from_pair(model, pair, metric)
    graph, chunks = contrast.graph, list(split_edges(contrast, contrast.graph.edges))
    edges = [edge for chunk in chunks for edge in chunk.edges]
    assert sorted(edges) == [tuple(edge) for edge in np.argwhere(graph.edges).tolist()]
    assert len(chunks) > graph.n_layers + 1
    for chunk in chunks:
        layers = {graph.inputs[reader].layer for _, reader, _ in chunk.edges}
        assert layers == {None if chunk.layer == graph.n_layers else chunk.layer}


def test_more_edges_than_one_pass_holds(absolute_model, pair, metric, monkeypatch):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    whole = exact_edges(contrast).per_pair.values
    monkeypatch.setattr("mechinterp.circuits.contrast.CPU_POSITIONS", 70)
    monkeypatch.setattr("mechinterp.circuits.scores.edge_runs._AT_ONCE", 90)
    close(exact_edges(contrast).per_pair.values, whole)
