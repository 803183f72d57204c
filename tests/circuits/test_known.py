"""Where the circuit is known, edge scores rank its edges above all others."""

import pytest

from mechinterp import Pair, load_model, run, tokenize
from mechinterp.circuits import (
    Circuit,
    Contrast,
    Graph,
    acdc_scores,
    eap_ig,
    exact_edges,
    known_circuit,
    rank_auc,
)
from mechinterp.core.metrics import Metric
from mechinterp.toys import example_inputs, random_circuit, toy

PROGRAMS = ["reverse", "x-proportion", "sort", "histogram", "dyck"]


def runs_of(planted, n=24, seed=0):
    """Random pairs; at all positions, the answer's logit minus that of the other prompt's."""
    model = load_model(planted)
    texts = [" ".join(words) for words in example_inputs(planted, 2 * n, seed)]
    clean, corrupt = tokenize(model, texts[:n]), tokenize(model, texts[n:])
    at = tuple(range(1, clean.width))
    right, wrong = (run(model, s, logits_at=at).logits.argmax(-1) for s in (clean, corrupt))

    def score(logits):
        chosen = [logits.gather(2, ids[..., None])[..., 0] for ids in (right, wrong)]
        return (chosen[0] - chosen[1]).sum(1)

    metric = Metric("answer - other", "logits", at, score)
    return Contrast.from_pair(model, Pair(clean, corrupt), metric)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_programs(name):
    planted = toy(f"rasp-{name}")
    contrast = runs_of(planted)
    truth = known_circuit(contrast.graph, planted.truth)
    scores = exact_edges(contrast)
    assert rank_auc(scores, truth) >= 0.999
    largest = scores.strongest(1)[0][1]
    taus = [abs(largest) * share for share in (1e-4, 1e-2)]
    assert rank_auc(acdc_scores(contrast, taus), truth) >= 0.999
    assert rank_auc(eap_ig(contrast), truth) >= 0.95


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_mlps", [2, 0])
def test_random_circuits(seed, n_mlps):
    planted = random_circuit(seed, n_circuit_mlps=n_mlps)
    contrast = runs_of(planted)
    truth = known_circuit(contrast.graph, planted.truth)
    assert rank_auc(exact_edges(contrast), truth) >= 0.99
    assert rank_auc(eap_ig(contrast), truth) >= 0.99


def test_names_of_toys_become_those_of_graphs():
    planted = toy("and")
    found = known_circuit(Graph.from_model(load_model(planted)), planted.truth)
    assert set(found.names) == {
        *(f"input->a0.h{head}<{kind}>" for head in (1, 2) for kind in "kv"),
        *("a0.h1->m0", "a0.h2->m0", "m0->logits"),
    }


def test_what_is_constant_is_left_out():
    planted = toy("rasp-reverse")
    assert planted.truth.constant
    found = known_circuit(Graph.from_model(load_model(planted)), planted.truth)
    assert found.n_edges == len(planted.truth.edges) - len(planted.truth.constant)
    at = Graph.from_model(load_model(planted), positions=["end"])
    assert known_circuit(at, planted.truth).n_edges == 2 * found.n_edges
    assert isinstance(found, Circuit)
