"""ACDC with speculative batches keeps exactly what the sequential algorithm keeps."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mechinterp import kl, run
from mechinterp.circuits import Circuit, Graph, acdc, acdc_scores, contrast, evaluate


def acdc_by_hand(between, tau, absolute=False):
    """Algorithm 1, one evaluation an edge, in the order that is documented."""
    graph = between.graph
    mask = np.array(graph.edges)

    def mean():
        (scores,) = evaluate(between, [Circuit(graph, mask.copy())])
        return (-abs(scores - between.base_scores) if absolute else scores).mean()

    now = mean()
    for reader in range(len(graph.inputs))[::-1]:
        for writer in range(len(graph.nodes))[::-1]:
            for pos in range(graph.n_positions)[::-1]:
                if not mask[writer, reader, pos]:
                    continue
                mask[writer, reader, pos] = False
                after = mean()
                if now - after < tau:
                    now = after
                else:
                    mask[writer, reader, pos] = True
    return Circuit(graph, mask)


@pytest.mark.parametrize("tau", [0.003, 0.03])
def test_it_is_the_sequential_algorithm(model, pair, metric, tau):
    between = contrast(model, pair, metric)
    wanted = acdc_by_hand(between, tau)
    assert acdc(between, tau) == wanted
    assert acdc(between, tau, at_once=1) == wanted
    assert acdc(between, tau, at_once=5) == wanted
    assert 0 < wanted.n_edges < between.graph.n_edges


@pytest.mark.parametrize("tau", [0.003, 0.01])
def test_near_to_the_model(attention_only_model, pair, metric, tau):
    between = contrast(attention_only_model, pair, metric)
    found = acdc(between, tau, absolute=True)
    assert found == acdc_by_hand(between, tau, absolute=True)
    assert found != acdc(between, tau)


def test_at_positions(grouped_model, pair, metric):
    graph = Graph.of(grouped_model, positions=["S2", "end"], by_kv_head=True)
    between = contrast(grouped_model, pair, metric, graph)
    assert acdc(between, 0.05) == acdc_by_hand(between, 0.05)


def test_from_some_edges(absolute_model, pair, metric):
    between = contrast(absolute_model, pair, metric)
    draw = np.random.default_rng(0)
    some = Circuit(
        between.graph, between.graph.edges & (draw.random(between.graph.edges.shape) < 0.4)
    )
    found = acdc(between, 0.02, some)
    assert found == acdc(between, 0.02, some, at_once=1)
    assert (found - some).n_edges == 0
    assert found.n_edges < some.n_edges


def test_a_distance_may_grow(absolute_model, pair):
    base = run(absolute_model, pair.clean).logits[:, 0]
    between = contrast(absolute_model, pair, kl(base))
    kept = acdc(between, 0.01)
    assert 0 < kept.n_edges < between.graph.n_edges
    divergence = evaluate(between, [kept, Circuit.empty(between.graph)]).mean(1)
    assert divergence[0] < divergence[1]


def test_scores_are_the_largest_tau(absolute_model, pair, metric):
    between = contrast(absolute_model, pair, metric)
    found = acdc_scores(between, [0.3, 0.01])
    loose, tight = acdc(between, 0.01), acdc(between, 0.3)
    assert set(found.mean[tight.mask]) == {0.3}
    assert set(found.mean[(loose - tight).mask]) == {0.01}


def test_progress(absolute_model, pair, metric):
    seen = []
    between = contrast(absolute_model, pair, metric)
    acdc(between, 0.05, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (between.graph.n_edges, between.graph.n_edges)


def test_what_is_refused(absolute_model, pair, metric, refuses):
    between = contrast(absolute_model, pair, metric)
    refuses(lambda: acdc(between, -0.1), "tau=-0.1", "0 or more")
    refuses(lambda: acdc_scores(between, []), "no taus")
    denoise = contrast(absolute_model, pair, metric, direction="denoise")
    refuses(lambda: acdc(denoise, 0.1), 'direction="noise"')


SCRIPT = """
from mechinterp import Pair, load_model, log_prob, token_id, tokenize
from mechinterp.circuits import acdc, contrast
model = load_model("toy:and")
texts = "bring the copper lantern", "bring the garden lantern"
pair = Pair(*(tokenize(model, text) for text in texts))
print(acdc(contrast(model, pair, log_prob(token_id(model, "REFUSE"))), 0.01).names)
"""


def test_the_same_on_every_hash_seed():
    def printed(seed):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", SCRIPT]
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout

    found = printed(1)
    assert b"->logits" in found
    assert printed(2) == found
