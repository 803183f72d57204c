"""Every edge's effect is that of a hook on its reader's input."""

import numpy as np
import pytest

from mechinterp import Pair, Prompts
from mechinterp.circuits import Circuit, Contrast, Graph, exact_edges
from mechinterp.core.metrics import Metric
from mechinterp.engine.replacements import mean_of


@pytest.fixture
def model(few_heads_model):
    return few_heads_model


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)


def close_where_known(found, wanted):
    """With all edges at a few positions, or other runs, some that are drawn are enough."""
    known = ~np.isnan(wanted)
    assert known.sum() > 30
    assert not np.isnan(found[known]).any()
    close(found[known], wanted[known])


def test_exact_effects_are_those_of_hooks(model, pair, metric, naive):
    graph = Graph.from_model(model)
    found = exact_edges(Contrast.from_pair(model, pair, metric, graph))
    close(found.per_pair.values, naive(model, pair, metric, graph).effects())


@pytest.mark.slow
def test_at_named_positions(model, pair, metric, naive):
    graph = Graph.from_model(model, positions=["S2", "end"])
    found = exact_edges(Contrast.from_pair(model, pair, metric, graph))
    close_where_known(found.per_pair.values, naive(model, pair, metric, graph).effects(0.4))


@pytest.mark.slow
@pytest.mark.parametrize("few_heads_model", ["attention_only"], indirect=True)
def test_at_every_position(few_heads_model, pair, metric, naive):
    graph = Graph.from_model(few_heads_model, positions=range(7))
    found = exact_edges(Contrast.from_pair(few_heads_model, pair, metric, graph))
    close_where_known(
        found.per_pair.values, naive(few_heads_model, pair, metric, graph).effects(0.4)
    )


@pytest.mark.parametrize("few_heads_model", ["grouped"], indirect=True)
def test_denoising_restores(few_heads_model, pair, metric, naive):
    graph = Graph.from_model(few_heads_model)
    found = exact_edges(
        Contrast.from_pair(few_heads_model, pair, metric, graph, direction="denoise")
    )
    slow = naive(few_heads_model, pair, metric, graph, direction="denoise")
    close_where_known(found.per_pair.values, slow.effects(0.4))


@pytest.mark.parametrize("few_heads_model", ["grouped"], indirect=True)
def test_key_value_heads_as_readers(few_heads_model, pair, metric, naive):
    graph = Graph.from_model(few_heads_model, by_kv_head=True)
    found = exact_edges(Contrast.from_pair(few_heads_model, pair, metric, graph))
    close_where_known(
        found.per_pair.values, naive(few_heads_model, pair, metric, graph).effects(0.4)
    )


@pytest.mark.slow
def test_zero_and_mean_in_place_of_the_other_run(model, pair, metric, naive):
    graph = Graph.from_model(model)
    found = exact_edges(Contrast.from_pair(model, pair, metric, graph, ablate="zero"))
    zeros = naive(model, pair, metric, graph, instead=lambda here: [0 * x for x in here])
    close_where_known(found.per_pair.values, zeros.effects(0.4))
    how = mean_of(pair.corrupt, by_position=True)
    found = exact_edges(Contrast.from_pair(model, pair, metric, graph, ablate=how))
    means = naive(model, pair, metric, graph, instead="mean of the corrupt run")
    close_where_known(found.per_pair.values, means.effects(0.4))


def test_prompts_of_different_lengths(model, metric, naive):
    clean = Prompts.from_ids([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5]])
    corrupt = Prompts.from_ids([[3, 1, 4, 8, 5, 9, 2], [6, 5, 7, 5]])
    graph, ragged = Graph.from_model(model), Pair(clean, corrupt)
    found = exact_edges(Contrast.from_pair(model, ragged, metric, graph))
    close_where_known(found.per_pair.values, naive(model, ragged, metric, graph).effects(0.4))


def test_chosen_edges_alone(model, pair, metric):
    contrast = Contrast.from_pair(model, pair, metric)
    whole = exact_edges(contrast).per_pair.values
    draw = np.random.default_rng(0)
    edges = contrast.graph.edges & (draw.random(contrast.graph.edges.shape) < 0.1)
    found = exact_edges(contrast, Circuit(contrast.graph, edges)).per_pair.values
    close(found[edges], whole[edges])
    assert np.isnan(found[~edges]).all()


def test_it_goes_on_from_finished_parts(absolute_model, pair, metric, tmp_path, monkeypatch):
    monkeypatch.setattr("mechinterp.circuits.scores.edge_runs._AT_ONCE", 90)
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    seen = []

    def stop_half_way(done, total):
        seen.append((done, total))
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exact_edges(contrast, out=tmp_path, progress=stop_half_way)
    kept = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("part-*")}
    assert kept
    again = exact_edges(contrast, out=tmp_path)
    assert {f.name: f.stat().st_mtime_ns for f in tmp_path.glob("part-*")}.items() >= kept.items()
    np.testing.assert_array_equal(again.per_pair.values, exact_edges(contrast).per_pair.values)


def test_another_run_in_the_folder_is_refused(absolute_model, pair, metric, tmp_path, refuses):
    exact_edges(Contrast.from_pair(absolute_model, pair, metric), out=tmp_path)
    denoise = Contrast.from_pair(absolute_model, pair, metric, direction="denoise")
    refuses(lambda: exact_edges(denoise, out=tmp_path), "holds another sweep")


def test_what_is_not_finite_names_the_edge(absolute_model, pair, refuses):
    def breaks(logits):
        return logits[:, 0].sum(-1) * float("inf")

    metric = Metric("broken", "logits", ("end",), breaks)
    refuses(
        lambda: Contrast.from_pair(absolute_model, pair, metric), "broken", "not finite", "prompt 0"
    )


def test_nothing_stays_on_the_model(model, pair, metric, snapshot):
    before = snapshot(model)
    exact_edges(Contrast.from_pair(model, pair, metric))
    before.check()
