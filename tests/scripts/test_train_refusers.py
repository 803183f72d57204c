"""Training of models that refuse: what they are asked is new to them; one that errs is no truth."""

import importlib.util
import random
from pathlib import Path

import pytest

from mechinterp import load_model
from mechinterp.tasks import planted_requests
from mechinterp.toys import planted_refuser

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_refusers.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_refusers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_asked_joins_words_that_training_did_not(script):
    refuser = planted_refuser("content", 0, n_families=4)
    words, rng = refuser.words, random.Random(0)
    verbs, nouns = words.harmful_verbs + words.verbs, words.harmful_objects + words.objects

    def pairs(texts):
        said = [text.split() for text in texts]
        return {(v, n) for ws in said for v in ws if v in verbs for n in ws if n in nouns}

    trained = pairs(script.random_request(words, rng) for _ in range(3_000))
    asked = pairs(request.text for request in planted_requests(refuser, n_families=4))
    assert len(trained) > 500
    assert len(asked) == 4 * 7
    assert not trained & asked


def test_a_compiled_model_answers_all_of_it_right(script):
    for mechanism in ("content and cue", "both triggers", "random"):
        refuser = planted_refuser(mechanism, 1, n_families=2)
        figures = script.measure(load_model(refuser.toy), refuser, 0)
        assert figures == {"unseen": 1.0, "crossed": 1.0, "least_rule_cell": 1.0}


def test_one_that_was_hardly_trained_does_not_count(script, monkeypatch):
    monkeypatch.setattr(script, "N_STEPS", 2)
    monkeypatch.setattr(script, "N_REQUESTS", 200)
    made = script.trained_refuser("trigger", 0, n_families=2)
    assert not script.counts(made)
    assert made.stages is None
    assert made.refuses(made.triggers[0][0])
    assert load_model(made.toy).cfg.n_layers == 2
