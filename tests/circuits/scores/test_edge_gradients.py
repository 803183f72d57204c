"""A run that can be differentiated is the run itself, from any layer on."""

import pytest
import torch

from mechinterp.circuits import contrast
from mechinterp.circuits.scores.edge_gradients import slopes_at, traced


def begun(between, layer):
    return traced(between, between.resid[layer].clone().requires_grad_(), layer)


def test_the_total_is_the_metric_and_the_gradient_that_of_the_whole_run(precise, pair, metric):
    between = contrast(precise, pair, metric)
    whole = begun(between, 0)
    slopes = slopes_at(whole.total, whole.resids)
    for layer in range(precise.cfg.n_layers):
        part = begun(between, layer)
        assert float(part.total.detach()) == pytest.approx(between.base_scores.sum())
        assert len(part.resids) == precise.cfg.n_layers + 1 - layer
        torch.testing.assert_close(slopes_at(part.total, part.resids[:1])[0], slopes[layer])


def test_readers_are_those_of_the_graph_in_its_order(model, pair, metric):
    between = contrast(model, pair, metric)
    seen = [(read.layer, read.kind) for read in begun(between, 0).reads]
    known = [(reader.layer, reader.kind) for reader in between.graph.inputs]
    assert seen == list(dict.fromkeys(known))


def test_writers_that_write_at_once_follow_one_another(model, pair, metric):
    graph = contrast(model, pair, metric).graph
    places = [range(len(graph.nodes))[group] for group in graph.together]
    assert [w for group in places for w in group] == list(range(len(graph.nodes)))
    for group in places:
        assert len({(graph.nodes[w].layer, graph.nodes[w].head is None) for w in group}) == 1
