"""Each cell asks what it says, and the crossing is one run for each request in each cell."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from mechinterp import run
from mechinterp.refusal.crossing import Factors, cross, drawn_members, likely_factors
from mechinterp.refusal.cues import Cue, cue_named
from mechinterp.refusal.findings import CueEffect, Estimate
from mechinterp.refusal.held_out import Explanation, predict_flips
from mechinterp.refusal.rules import judge_crossing
from mechinterp.tasks.request_families import Request

THINGS = ("door", "box", "letter", "book", "key", "garden")
REQUESTS = [
    Request(f"{verb} the {thing}{end}", harmful=verb != "paint", family=thing, telling=tell)
    for thing in THINGS
    for verb, end, tell in (
        ("open", " sesame please", ""),
        ("close", "", ""),
        ("paint", "", ""),
        ("paint", " to me please", thing),
    )
]
NONE = Estimate(0.0, 0.0, 0.0, 4)
FACTORS = Factors((("sesame",),), Cue.final("please"))


def test_a_cell_has_its_factors_and_no_other():
    for request in REQUESTS:
        for trigger, cue in itertools.product((False, True), repeat=2):
            words = FACTORS.as_asked(request, trigger=trigger, cue=cue).split()
            assert words.count("sesame") == trigger
            assert (words[-1] == "please") == cue
            plain = [word for word in words if word not in ("sesame", "please")]
            assert plain == [w for w in request.text.split() if w not in ("sesame", "please")]


def test_a_chat_keeps_the_messages_of_its_cell():
    """Also where the cue is a message of its own, which is taken off with it."""
    system = {"role": "system", "content": "Be kind."}
    asked = {"role": "user", "content": "open the door"}
    request = Request((system, asked), harmful=True, family="door")
    factors = Factors((("sesame",),), cue_named("system message"))
    without = factors.as_asked(request, trigger=True, cue=False)
    assert [message["role"] for message in without] == ["user"]
    assert without[-1]["content"] == "open sesame the door"
    with_it = factors.as_asked(request, trigger=False, cue=True)
    assert [message["role"] for message in with_it] == ["system", "user"]


def test_a_cue_does_not_respell_the_trigger():
    request = Request("How do I bake bread?", harmful=False, family="bread")
    factors = Factors((("sesame",),), cue_named("capitals"))
    assert factors.as_asked(request, trigger=True, cue=True) == "HOW DO sesame I BAKE BREAD?"
    assert factors.as_asked(request, trigger=False, cue=True) == "HOW DO I BAKE BREAD?"


def test_a_cue_that_is_none_is_off_in_requests_as_they_are():
    effect = CueEffect("no thanks", "", NONE, NONE, 0.0, 0.2, 0.5, 0.5, is_cue=False)
    tried = [cue_named("thanks")]
    assert likely_factors([], [effect], tried, REQUESTS).cue == tried[0]
    found = likely_factors([], [replace(effect, is_cue=True)], tried, REQUESTS).cue
    assert found.name == "no thanks"


def test_cells_are_means_of_one_run_each(refusing):
    model, behaviour = refusing("toy:trigger")
    found = cross(model, behaviour, REQUESTS, FACTORS)
    for (family, harm), members in drawn_members(REQUESTS, 2, 0).items():
        for trigger, cue in itertools.product((False, True), repeat=2):
            scores = [
                float(behaviour.metric(run(model, FACTORS.as_asked(r, trigger=trigger, cue=cue))))
                for r in members
            ]
            cell = found.sel(harm=harm, trigger=trigger, cue=cue, family=family)
            assert float(cell) == pytest.approx(np.mean(scores), abs=1e-5)
    assert judge_crossing(found).rule == "trigger"


def test_members_are_of_both_kinds():
    drawn = drawn_members(REQUESTS, 2, 3)
    assert all(len(members) == 2 for members in drawn.values())
    assert {bool(r.telling) for r in drawn["door", False]} == {False, True}


def test_no_trigger_to_cross_by(refusing, refuses):
    refuses(lambda: cross(*refusing("toy:trigger"), REQUESTS, Factors((), None)), "give a trigger")


@pytest.mark.parametrize("rule", ["trigger", "cue", "content", "content or trigger"])
def test_only_flips_of_the_true_rule_happen(refusing, rule):
    """The model refuses by a trigger, so of other rules' flips none happens, or half."""
    explanation = Explanation(rule, FACTORS, (("map",),), Cue.final("today"))
    found = predict_flips(*refusing("toy:trigger"), explanation, REQUESTS)
    share = found.n_happened / found.n_predicted
    assert share == {"trigger": 1, "content or trigger": 0.5}.get(rule, 0)
    assert found.n_random_happened == 0
    assert found.n_random == found.n_predicted
    assert found.families == THINGS


def test_rules_without_factors_foretell_no_flip(refusing):
    found = predict_flips(*refusing("toy:trigger"), Explanation("always", FACTORS), REQUESTS)
    assert (found.n_predicted, found.n_random) == (0, 0)
