"""Corrected gradients of edges, against hooks that run a reader again, and what it then writes."""

import numpy as np
import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from mechinterp import Site, edit, load_model, read, run
from mechinterp.circuits import (
    Circuit,
    Contrast,
    Graph,
    atp_star_edges,
    eap,
    exact_edges,
    qk_fixed_edges,
)
from mechinterp.engine.gradients import site_gradients


@pytest.fixture
def model(few_heads_model):
    return few_heads_model


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=3e-5, rtol=0)


class BySlope:
    """What the reader of one edge writes when that is cut, times the gradient where it writes."""

    def __init__(self, slow, dropped=None):
        self.slow, self.dropped, self.gradients = slow, dropped, {}
        cfg = slow.model.cfg
        acts = ("attn_out",) if cfg.attn_only else ("attn_out", "mlp_out")
        sites = [Site(act, layer) for layer in range(cfg.n_layers) for act in acts]
        self.wrote = run(slow.model, slow.base, read(*sites), logits_at=()).acts
        cut = ()
        for act in acts if dropped is not None else ():
            cut += edit(Site(act, dropped), lambda value, at: value.detach())
        self.gradients = site_gradients(slow.model, slow.base, sites, slow.metric, cut)

    def effect(self, edge):
        writer, number, pos = edge
        reader = self.slow.graph.inputs[number]
        if reader.kind == "logits":
            return self.slow.base_scores - self.slow.scores_with([edge])
        change = self.slow.change[writer] * (self.slow.place == pos)[..., None]
        into = edit(self.slow.reader_site(reader), lambda value, at: value + change)
        site = Site("mlp_out" if reader.kind == "mlp" else "attn_out", reader.layer)
        there = run(self.slow.model, self.slow.base, into + read(site), logits_at=()).acts[site]
        return -((there - self.wrote[site]) * self.gradients[site]).sum((1, 2)).numpy()


def some_edges(graph, n=60):
    every = np.argwhere(graph.edges)
    return [tuple(e) for e in np.random.default_rng(0).permutation(every)[:n].tolist()]


@pytest.mark.parametrize("positions", [None, ("S2", 4)], ids=["all", "named"])
def test_the_readers_change_times_the_gradient_where_it_writes(
    model, pair, metric, naive, positions
):
    graph = Graph.from_model(model, positions=positions)
    found = qk_fixed_edges(Contrast.from_pair(model, pair, metric, graph)).per_pair.values
    slow = BySlope(naive(model, pair, metric, graph))
    for edge in some_edges(graph):
        close(found[edge], slow.effect(edge))


def test_sizes_with_each_layer_but_the_readers_own_dropped(model, pair, metric, naive):
    graph = Graph.from_model(model)
    scores = atp_star_edges(Contrast.from_pair(model, pair, metric, graph))
    slow = naive(model, pair, metric, graph)
    gradients = [BySlope(slow, layer) for layer in range(graph.n_layers)]
    for edge in some_edges(graph, 30):
        own = graph.inputs[edge[1]].layer
        sizes = [np.abs(each.effect(edge)) for each in gradients if each.dropped != own]
        close(scores.per_pair.values[edge], np.mean(sizes, 0))
    assert scores.per_pair.attrs["supports"] == "none"


def test_edges_into_the_logits_are_exact_and_denoising_has_its_sign(grouped_model, pair, metric):
    contrast = Contrast.from_pair(grouped_model, pair, metric, direction="denoise")
    found, whole = qk_fixed_edges(contrast).per_pair, exact_edges(contrast).per_pair
    close(found.values[:, -1], whole.values[:, -1])
    strongest = np.abs(np.nan_to_num(whole.values)) > 0.05
    assert strongest.sum() > 10
    assert np.corrcoef(found.values[strongest], whole.values[strongest])[0, 1] > 0.8


def test_nearer_to_exact_effects_than_the_gradient_alone(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    there = contrast.graph.edges
    whole, fixed, plain = (
        made(contrast).per_pair.values[there] for made in (exact_edges, qk_fixed_edges, eap)
    )
    assert np.abs(fixed - whole).mean() < np.abs(plain - whole).mean()


def test_chosen_edges_alone(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    edges = contrast.graph.edges & (
        np.random.default_rng(0).random(contrast.graph.edges.shape) < 0.1
    )
    found = qk_fixed_edges(contrast, Circuit(contrast.graph, edges)).per_pair.values
    close(found[edges], qk_fixed_edges(contrast).per_pair.values[edges])
    assert np.isnan(found[~edges]).all()


def test_what_cannot_be_asked(absolute_model, grouped_model, pair, metric, refuses):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    other = Circuit.full(Graph.from_model(grouped_model))
    refuses(lambda: qk_fixed_edges(contrast, other), "the edges belong to")
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, n_positions=16, vocab_size=50)
    single = load_model(GPT2LMHeadModel(config).eval(), device="cpu")
    refuses(lambda: atp_star_edges(Contrast.from_pair(single, pair, metric)), "one layer")
