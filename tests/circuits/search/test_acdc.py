"""ACDC with speculative batches keeps exactly what the sequential algorithm keeps."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mechinterp import kl, run
from mechinterp.circuits import Circuit, Contrast, Graph, acdc, acdc_scores, evaluate


@pytest.fixture
def model(few_heads_model):
    return few_heads_model


def acdc_by_hand(contrast, tau, target="above"):
    """Algorithm 1, one evaluation an edge, in the order that is documented."""
    graph = contrast.graph
    mask = np.array(graph.edges)

    def mean():
        (scores,) = evaluate(contrast, [Circuit(graph, mask.copy())])
        return (-abs(scores - contrast.base_scores) if target == "model" else scores).mean()

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


@pytest.mark.parametrize("tau", [pytest.param(0.003, marks=pytest.mark.slow), 0.03])
def test_it_is_the_sequential_algorithm(model, pair, metric, tau):
    contrast = Contrast.from_pair(model, pair, metric)
    wanted = acdc_by_hand(contrast, tau)
    assert acdc(contrast, tau) == wanted
    for at_once in (1, 5) if tau == 0.03 else ():
        assert acdc(contrast, tau, at_once=at_once) == wanted
    assert 0 < wanted.n_edges < contrast.graph.n_edges


@pytest.mark.parametrize("tau", [0.003, 0.01])
@pytest.mark.parametrize("few_heads_model", ["attention_only"], indirect=True)
def test_near_to_the_model(few_heads_model, pair, metric, tau):
    contrast = Contrast.from_pair(few_heads_model, pair, metric)
    found = acdc(contrast, tau, target="model")
    assert found == acdc_by_hand(contrast, tau, target="model")
    assert found != acdc(contrast, tau)


@pytest.mark.slow
@pytest.mark.parametrize("few_heads_model", ["grouped"], indirect=True)
def test_at_positions(few_heads_model, pair, metric):
    graph = Graph.from_model(few_heads_model, positions=["S2", "end"], by_kv_head=True)
    contrast = Contrast.from_pair(few_heads_model, pair, metric, graph)
    assert acdc(contrast, 0.05) == acdc_by_hand(contrast, 0.05)


def test_from_some_edges(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    draw = np.random.default_rng(0)
    some = Circuit(
        contrast.graph, contrast.graph.edges & (draw.random(contrast.graph.edges.shape) < 0.4)
    )
    found = acdc(contrast, 0.02, some)
    assert found == acdc(contrast, 0.02, some, at_once=1)
    assert (found - some).n_edges == 0
    assert found.n_edges < some.n_edges


def test_a_distance_may_grow(absolute_model, pair):
    base = run(absolute_model, pair.clean).logits[:, 0]
    contrast = Contrast.from_pair(absolute_model, pair, kl(base))
    kept = acdc(contrast, 0.01)
    assert 0 < kept.n_edges < contrast.graph.n_edges
    divergence = evaluate(contrast, [kept, Circuit.empty(contrast.graph)]).mean(1)
    assert divergence[0] < divergence[1]


def test_scores_are_the_largest_tau(absolute_model, pair, metric):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    found = acdc_scores(contrast, [0.3, 0.01])
    loose, tight = acdc(contrast, 0.01), acdc(contrast, 0.3)
    assert set(found.mean[tight.mask]) == {0.3}
    assert set(found.mean[(loose - tight).mask]) == {0.01}


def test_progress(absolute_model, pair, metric):
    seen = []
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    acdc(contrast, 0.05, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (contrast.graph.n_edges, contrast.graph.n_edges)


def test_what_is_refused(absolute_model, pair, metric, refuses):
    contrast = Contrast.from_pair(absolute_model, pair, metric)
    refuses(lambda: acdc(contrast, -0.1), "tau=-0.1", "0 or more")
    refuses(lambda: acdc_scores(contrast, []), "taus is empty")
    denoise = Contrast.from_pair(absolute_model, pair, metric, direction="denoise")
    refuses(lambda: acdc(denoise, 0.1), 'direction="noise"')


SCRIPT = """
from mechinterp import Pair, load_model, log_prob, token_id, tokenize
from mechinterp.circuits import Contrast, acdc
model = load_model("toy:and")
texts = "bring the copper lantern", "bring the garden lantern"
pair = Pair(*(tokenize(model, text) for text in texts))
print(acdc(Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE"))), 0.01).names)
"""


@pytest.mark.slow
def test_the_same_on_every_hash_seed(capsys):
    """Here, and in a process of another seed."""
    exec(SCRIPT, {})
    found = capsys.readouterr().out
    assert "->logits" in found
    other = {"PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | other,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == found
