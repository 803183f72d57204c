"""Integrated gradients of activations: small cuts, by hooks, in runs whose writers hooks move."""

import numpy as np
import pytest

from mechinterp import edit, run
from mechinterp.circuits import Contrast, Graph, eap_ig, eap_ig_activations, exact_nodes
from mechinterp.engine.replacements import mean_of


def simultaneous_writers(graph, writer):
    """The writers that are moved with one: the heads of its layer, or itself alone."""
    node = graph.nodes[writer]
    if node.head is None:
        return [writer]
    return [w for w, n in enumerate(graph.nodes) if n.head is not None and n.layer == node.layer]


def slope_by_hooks(slow, edge, point, small=1e-4):
    """How the metric changes with a cut of the edge, its writers and those beside them moved."""
    writer, reader, pos = edge
    specs = ()
    for other in simultaneous_writers(slow.graph, writer):
        moved = point * slow.change[other]
        specs += edit(slow.sites()[other], lambda value, at, moved=moved: value + moved)
    scores = []
    for step in (small, -small):
        cut = step * slow.change[writer] * (slow.place == pos)[..., None]
        site = slow.reader_site(slow.graph.inputs[reader])
        at_reader = edit(site, lambda value, at, cut=cut: value + cut)
        done = run(slow.model, slow.base, specs + at_reader, logits_at=slow.metric.at)
        scores.append(slow.metric(done).numpy())
    return (scores[0] - scores[1]) / (2 * small)


@pytest.mark.parametrize(
    ("direction", "instead", "positions"),
    [("noise", None, None), ("denoise", None, ("S2", 4)), ("noise", "zero", None)],
)
def test_edges_score_the_mean_slope_of_a_cut(
    precise, pair, metric, naive, direction, instead, positions
):
    graph = Graph.from_model(precise, positions=positions)
    zeros = (lambda here: [0 * x for x in here]) if instead else None
    slow = naive(precise, pair, metric, graph, direction=direction, instead=zeros)
    options = {"ablate": instead} if instead else {}
    contrast = Contrast.from_pair(precise, pair, metric, graph, direction=direction, **options)
    found = eap_ig_activations(contrast, 2, rule="midpoint").per_pair.values
    edges = np.argwhere(graph.edges)
    draw = np.random.default_rng(0).choice(len(edges), 12, replace=False)
    for edge in edges[draw].tolist():
        gradients = [slope_by_hooks(slow, edge, point) for point in (0.25, 0.75)]
        wanted = -slow.sign * np.mean(gradients, 0)
        np.testing.assert_allclose(found[tuple(edge)], wanted, atol=2e-7, rtol=1e-5)


@pytest.mark.parametrize("rule", ["left", "right"])
def test_the_edges_out_of_the_input_are_those_of_eap_ig(precise, pair, metric, rule):
    contrast = Contrast.from_pair(precise, pair, metric)
    found, inputs = eap_ig_activations(contrast, 3, rule=rule), eap_ig(contrast, 3, rule=rule)
    np.testing.assert_allclose(found.per_pair[0], inputs.per_pair[0], atol=1e-9)


def test_in_many_points_edges_add_up_to_what_their_writers_do(precise, pair, metric):
    contrast = Contrast.from_pair(
        precise, pair, metric, ablate=mean_of(pair.corrupt, by_position=True)
    )
    found = eap_ig_activations(contrast, 40, rule="midpoint")
    alone = exact_nodes(contrast).mean("pair")
    sums = found.node_scores().mean("pair")
    ones = [n for n in contrast.graph.writers if "h" not in n]
    np.testing.assert_allclose(sums.sel(writer=ones), alone.sel(writer=ones), atol=5e-3)
    attrs = found.per_pair.attrs
    assert abs(attrs["residual"]) < 5e-3
    assert attrs["residual_at"] in contrast.graph.writers


def test_what_cannot_be_asked(absolute_model, pair, metric, refuses):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    refuses(lambda: eap_ig_activations(contrast, 0), "steps=0", "at least one")
    refuses(lambda: eap_ig_activations(contrast, rule="simpson"), "rule='simpson'", "midpoint")
