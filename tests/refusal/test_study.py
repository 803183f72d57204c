"""The whole study on models whose rule is known; a stopped one goes on, with the same bytes."""

from dataclasses import replace

import pytest

from mechinterp import load_model
from mechinterp.refusal.cues import CUES, Cue
from mechinterp.refusal.files import to_json
from mechinterp.refusal.held_out import set_aside
from mechinterp.refusal.options import QUICK
from mechinterp.refusal.study import explain_refusals
from mechinterp.tasks.planted import planted_requests
from mechinterp.tasks.request_families import Request
from mechinterp.toys.refusers import planted_refuser

FAST = {"stages": False, "n_replies": 0, "n_flips": 0}


@pytest.fixture(scope="module")
def planted():
    """Mechanism and seed -> what is true, the model and its requests."""

    def get(mechanism, seed=3, n_families=12):
        refuser = planted_refuser(mechanism, seed, n_families=n_families)
        requests = planted_requests(refuser, n_families=n_families, seed=seed)
        return refuser, load_model(refuser.toy), requests

    return get


@pytest.mark.parametrize(
    "mechanism",
    [
        "trigger",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("content and cue", "random")),
    ],
)
def test_the_rule_is_found(planted, mechanism):
    refuser, model, requests = planted(mechanism)
    found = explain_refusals(model, requests, **FAST)
    assert refuser.accepts(found.verdict.rule), found.verdict
    if refuser.triggers and "trigger" in found.verdict.rule:
        assert set(map(frozenset, found.verdict.triggers)) == set(map(frozenset, refuser.triggers))
    if found.verdict.rule is not None:
        assert found.held_out.n_happened >= 0.9 * found.held_out.n_predicted > 0
        assert found.held_out.n_random_happened <= 0.1 * found.held_out.n_random


def test_a_first_look_tries_less_and_says_so(planted):
    refuser, model, requests = planted("trigger", n_families=12)
    found = explain_refusals(model, requests, **QUICK)
    assert found.verdict.rule == "trigger"
    assert set(found.verdict.triggers) == set(refuser.triggers)
    assert found.crossing.sizes["family"] + len(found.held_out.families) == QUICK["n_families"]
    assert len([one for one in found.words if len(one.words) == 1]) <= QUICK["n_words"]
    untried = len(CUES) - len(QUICK["cues"])
    said = f"Of the {len(CUES)} cues of the battery {untried} were not tried."
    assert said in found.verdict.not_tested
    assert found.stages is None


@pytest.mark.parametrize(("mechanism", "rule"), [("always", "always"), ("never", "never")])
def test_nothing_else_is_run_where_all_answers_are_alike(planted, mechanism, rule):
    _, model, requests = planted(mechanism, n_families=4)
    found = explain_refusals(model, requests)
    assert found.verdict.rule == rule
    assert found.verdict.probability == pytest.approx(5 / 6)
    assert not found.words
    n = len(requests)
    assert found.verdict.evidence_for == (
        f"The model refuses {n if rule == 'always' else 0} of {n} requests.",
    )


def test_a_stopped_study_goes_on_with_the_same_bytes(planted, tmp_path):
    refuser, model, requests = planted("trigger", n_families=6)
    tried = [word for words in refuser.triggers for word in words]
    options = {**FAST, "n_flips": 1, "seed": 2, "candidates": tried, "cues": [Cue.final("now")]}
    whole = to_json(explain_refusals(model, requests, **options, out=tmp_path / "whole"))

    class StoppedError(Exception):
        pass

    def stop(done, total):
        if done > 0.4 * total:
            raise StoppedError

    with pytest.raises(StoppedError):
        explain_refusals(model, requests, **options, out=tmp_path / "two", progress=stop)
    told = []
    again = explain_refusals(
        model,
        requests,
        **options,
        out=tmp_path / "two",
        progress=lambda *at: told.append(at),
    )
    assert to_json(again) == whole
    assert all(0 <= done <= total for done, total in told)


def test_a_trigger_that_stands_in_no_request_is_found_in_the_vocabulary(refusing):
    model, _ = refusing("toy:either")
    requests = [
        Request(f"{verb} the {adjective} {thing}", harmful=verb == "open", family=thing)
        for thing in ("door", "box", "letter", "book")
        for verb in ("open", "bring", "paint")
        for adjective in ("old", "new")
    ]
    assert explain_refusals(model, requests, **FAST).verdict.rule == "never"
    found = explain_refusals(model, requests, **FAST, vocabulary=True)
    assert found.verdict.rule == "trigger"
    assert set(found.verdict.triggers) == {("copper",), ("lantern",)}


def test_families_set_aside_are_seen_by_nothing(planted):
    _, _, requests = planted("content")
    used, kept = set_aside(requests, 0)
    assert len({r.family for r in kept}) == 3
    assert not {r.family for r in used} & {r.family for r in kept}
    assert {*used, *kept} == set(requests)


def test_bad_input_is_a_sentence(planted, refuses):
    _, model, requests = planted("trigger", n_families=4)
    benign = [r for r in requests if not r.harmful]
    refuses(lambda: explain_refusals(model, benign), "harmful")
    refuses(lambda: explain_refusals(model, [r for r in requests if r.harmful]), "benign")
    alone = [replace(r, family=f"{n}") for n, r in enumerate(requests)]
    refuses(lambda: explain_refusals(model, alone), "famil")
    refuses(lambda: explain_refusals(model, requests, n_families=99), "n_families")
    refuses(lambda: explain_refusals(model, requests, stage=True), "stages", kind=TypeError)
    unknown = ["zebra"]
    refuses(lambda: explain_refusals(model, requests, candidates=unknown), "zebra")
