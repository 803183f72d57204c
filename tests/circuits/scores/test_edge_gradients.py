"""A run that can be differentiated is the run itself, from any layer on."""

import pytest
import torch

from mechinterp.circuits import Contrast
from mechinterp.circuits.scores.edge_gradients import gradients_at, trace_run


def begun(contrast, layer):
    return trace_run(contrast, contrast.resid[layer].clone().requires_grad_(), layer)


def test_the_total_is_the_metric_and_the_gradient_that_of_the_whole_run(precise, pair, metric):
    contrast = Contrast.from_pair(precise, pair, metric)
    whole = begun(contrast, 0)
    gradients = gradients_at(whole.total, whole.resids)
    for layer in range(precise.cfg.n_layers):
        part = begun(contrast, layer)
        assert float(part.total.detach()) == pytest.approx(contrast.base_scores.sum())
        assert len(part.resids) == precise.cfg.n_layers + 1 - layer
        torch.testing.assert_close(gradients_at(part.total, part.resids[:1])[0], gradients[layer])


def test_readers_are_those_of_the_graph_in_its_order(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    seen = [(read.layer, read.kind) for read in begun(contrast, 0).reads]
    known = [(reader.layer, reader.kind) for reader in contrast.graph.inputs]
    assert seen == list(dict.fromkeys(known))


def test_writers_that_write_at_once_follow_one_another(model, pair, metric):
    graph = Contrast.from_pair(model, pair, metric).graph
    places = [range(len(graph.nodes))[group] for group in graph.simultaneous_writers]
    assert [w for group in places for w in group] == list(range(len(graph.nodes)))
    for group in places:
        assert len({(graph.nodes[w].layer, graph.nodes[w].head is None) for w in group}) == 1
