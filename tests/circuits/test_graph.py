"""How many edges a graph has, by name and by number."""

import itertools

import numpy as np
import pytest

from mechinterp import Pair, Prompts
from mechinterp.circuits import Circuit, Graph


def sizes(n_layers, n_heads, **more):
    given = {"n_key_readers": n_heads, "has_mlps": True, "is_parallel": False, **more}
    return Graph(n_layers, n_heads, **given)


@pytest.mark.parametrize(
    ("graph", "n_edges"),
    [
        (sizes(12, 12), 32_491),  # GPT-2 small
        (sizes(30, 9), 123_211),  # SmolLM2-135M
        (sizes(4, 4), 479),
    ],
    ids=["gpt2", "smollm2", "4x4"],
)
def test_published_counts(graph, n_edges):
    assert graph.n_edges == n_edges
    assert len(graph.writers) == 1 + graph.n_layers * (graph.n_heads + 1)
    assert len(graph.readers) == graph.n_layers * (3 * graph.n_heads + 1) + 1


def test_order_of_published_files():
    assert sizes(2, 2).readers == (
        *("a0.h0<q>", "a0.h1<q>", "a0.h0<k>", "a0.h1<k>", "a0.h0<v>", "a0.h1<v>", "m0"),
        *("a1.h0<q>", "a1.h1<q>", "a1.h0<k>", "a1.h1<k>", "a1.h0<v>", "a1.h1<v>", "m1"),
        "logits",
    )
    assert sizes(2, 2).writers == ("input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1")


def earlier(writer, reader, parallel):
    """Whether a writer comes before a reader, worked out from the names alone."""
    if writer == "input" or reader == "logits":
        return True
    at, to = (int(name[1:].split(".")[0]) for name in (writer, reader.split("<")[0]))
    feeds = at == to and writer[0] == "a" and reader[0] == "m" and not parallel
    return at < to or feeds


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("mlps", [False, True])
def test_edges_go_from_earlier_to_later(parallel, mlps):
    graph = sizes(3, 2, has_mlps=mlps, is_parallel=parallel and mlps)
    for (i, writer), (j, reader) in itertools.product(
        enumerate(graph.writers), enumerate(graph.readers)
    ):
        assert graph.edges[i, j, 0] == earlier(writer, reader, parallel), (writer, reader)


def test_of_a_model_with_shared_keys(grouped_model):
    by_query, by_key = (
        Graph.from_model(grouped_model),
        Graph.from_model(grouped_model, by_kv_head=True),
    )
    assert (by_query.n_key_readers, by_key.n_key_readers) == (6, 2)
    assert "a2.g1<k>" in by_key.readers
    fed = by_key.feeds[by_key.reader_index["a1.g1<v>"]]
    assert [by_key.writers[i] for i in np.flatnonzero(fed)] == ["a1.h3", "a1.h4", "a1.h5"]


def test_names_go_both_ways():
    for graph in (sizes(2, 3), sizes(2, 3, positions=("S2", "4", "elsewhere"))):
        for at in np.argwhere(graph.edges).tolist():
            assert graph.edge(graph.edge_name(*at)) == tuple(at)


def test_wrong_names_say_what_is_right(refuses):
    graph = sizes(2, 2)
    refuses(lambda: graph.edge("a9.h0->logits"), "'a9.h0'", "input", "m1")
    refuses(lambda: graph.edge("m1->a0.h0<q>"), "m1 does not write before a0.h0<q> reads")
    refuses(lambda: graph.edge("m0->m1@end"), "at all positions")
    refuses(lambda: graph.edge("m0"), "Write an edge as")
    refuses(lambda: sizes(2, 2, positions=("end", "elsewhere")).edge("m0->m1"), "end, elsewhere")


def test_a_token_with_two_labels_is_refused(refuses):
    prompts = Prompts.from_ids([[1, 2, 3], [4, 5, 6]]).named(last=[1, 2])
    graph = sizes(2, 2, positions=("last", "2", "elsewhere"))
    refuses(lambda: graph.position_of(prompts), "'last' and '2'", "prompt 1")


def test_labels_of_positions():
    prompts = Prompts.from_ids([[1, 2, 3, 4], [4, 5, 6, 7]]).named(name=[1, 2])
    graph = sizes(2, 2, positions=("name", "0", "elsewhere"))
    assert graph.position_of(prompts).tolist() == [[1, 0, 2, 2], [1, 2, 0, 2]]


def test_post_norm_has_no_heads(absolute_model, refuses, monkeypatch):
    monkeypatch.setattr(absolute_model.cfg, "use_normalization_before_and_after", True)
    refuses(lambda: Graph.from_model(absolute_model), "puts a norm", "attn_out")


def pairs_of(n):
    return Pair(Prompts.from_ids([[1, 2]] * n), Prompts.from_ids([[1, 3]] * n))


def test_the_full_circuit_prunes_to_itself():
    for graph in (sizes(3, 2), sizes(2, 3, positions=("end", "elsewhere"))):
        assert Circuit.full(graph).pruned() == Circuit.full(graph)
