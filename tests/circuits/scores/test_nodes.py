"""What a node does is what hooks on its output say; its scores add up those of its edges."""

import numpy as np
import pytest

from mechinterp import Pair, Prompts, Site, edit, put, read, run
from mechinterp.circuits import Contrast, Graph, eap, eap_ig, eap_ig_nodes, eap_nodes, exact_nodes
from mechinterp.engine.replacements import mean_of


def close(found, wanted, atol=1e-5):
    np.testing.assert_allclose(found, wanted, atol=atol, rtol=0)


def site_of(node):
    if node.layer is None:
        return Site("embed")
    return Site("mlp_out", node.layer) if node.head is None else Site("z", node.layer, node.head)


def by_hooks(model, pair, metric, graph, direction="noise", value=None):
    """The effect of each writer by one run in which a hook puts something else there."""
    base, other = pair.clean, pair.corrupt
    if direction == "denoise":
        base, other = other, base
    sites = [site_of(node) for node in graph.nodes]
    there = run(model, other, read(*sites), logits_at=()).acts
    before = metric(run(model, base, logits_at=metric.at))
    place, sign = graph.position_of(base), 1 if direction == "noise" else -1
    found = np.zeros((len(sites), graph.n_positions, len(base)))
    for row, site in enumerate(sites):
        for pos in range(graph.n_positions):

            def written(old, at, site=site, pos=pos):
                new, here = there[site] if value is None else value, place == pos
                old[here] = new[here] if value is None else new
                return old

            after = metric(run(model, base, edit(site, written), logits_at=metric.at))
            found[row, pos] = sign * (before - after).numpy()
    return found


@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_exact_effects_are_those_of_hooks(model, pair, metric, direction):
    graph = Graph.from_model(model)
    found = exact_nodes(Contrast.from_pair(model, pair, metric, graph, direction=direction))
    assert found.dims == ("writer", "pair")
    close(found.values, by_hooks(model, pair, metric, graph, direction)[:, 0])


@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_at_named_positions(model, pair, metric, direction):
    graph = Graph.from_model(model, positions=["S2", "end"])
    found = exact_nodes(Contrast.from_pair(model, pair, metric, graph, direction=direction))
    assert found.dims == ("writer", "pos", "pair")
    assert found.pos.values.tolist() == ["S2", "end", "elsewhere"]
    close(found.values, by_hooks(model, pair, metric, graph, direction))


def test_zero_in_place_of_the_other_run(model, pair, metric):
    found = exact_nodes(Contrast.from_pair(model, pair, metric, ablate="zero"))
    close(found.values, by_hooks(model, pair, metric, Graph.from_model(model), value=0.0)[:, 0])


def test_the_mean_in_place_of_the_other_run(grouped_model, pair, metric):
    how = mean_of(pair.corrupt, by_position=True)
    found = exact_nodes(Contrast.from_pair(grouped_model, pair, metric, ablate=how))
    site = Site("mlp_out", 1)
    there = run(grouped_model, pair.corrupt, read(site), logits_at=()).acts[site].mean(0)
    after = metric(run(grouped_model, pair.clean, put(site, there)))
    before = metric(run(grouped_model, pair.clean))
    close(found.sel(writer="m1").values, (before - after).numpy())


def test_prompts_of_different_lengths(model, metric):
    clean = Prompts.from_ids([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5]])
    corrupt = Prompts.from_ids([[3, 1, 4, 8, 5, 9, 2], [6, 5, 7, 5]])
    ragged, graph = Pair(clean, corrupt), Graph.from_model(model)
    found = exact_nodes(Contrast.from_pair(model, ragged, metric, graph))
    close(found.values, by_hooks(model, ragged, metric, graph)[:, 0])


def test_the_progress_ends(model, pair, metric):
    seen = []
    contrast = Contrast.from_pair(model, pair, metric)
    exact_nodes(contrast, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(contrast.graph.nodes),) * 2


@pytest.mark.parametrize("positions", [None, ("S2", 4)], ids=["all", "named"])
@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_a_gradient_at_what_is_written_is_the_sum_over_edges(
    precise, pair, metric, positions, direction
):
    graph = Graph.from_model(precise, positions=positions)
    contrast = Contrast.from_pair(precise, pair, metric, graph, direction=direction)
    edges, found = eap(contrast).per_pair.sum("reader"), eap_nodes(contrast)
    wanted = edges.values if positions else edges.values[:, 0]
    close(found.values, wanted, 1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("steps", [3, None])
def test_integrated_it_is_the_sum_over_edges_too(precise, pair, metric, steps):
    contrast = Contrast.from_pair(precise, pair, metric)
    edges, found = eap_ig(contrast, steps), eap_ig_nodes(contrast, steps)
    wanted = edges.node_scores().values
    close(found.values, wanted, 1e-6 * np.abs(wanted).max())
    for name in ("steps", "method", "unit"):
        assert found.attrs[name] == edges.per_pair.attrs[name]
    assert found.attrs["residual"] == pytest.approx(edges.per_pair.attrs["residual"], abs=1e-9)


def test_other_replacements_have_a_gradient_and_no_way(precise, pair, metric, refuses):
    contrast = Contrast.from_pair(precise, pair, metric, ablate="zero")
    wanted = eap(contrast).node_scores().values
    close(eap_nodes(contrast).values, wanted, 1e-6 * np.abs(wanted).max())
    refuses(lambda: eap_ig_nodes(contrast), "replaced by zero", "a second run")
