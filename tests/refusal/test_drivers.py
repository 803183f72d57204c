"""Prompts in which one thing decides: all else is alike, and the model does as the driver says."""

import pytest
from refusal.stage_toys import GOOD_VERBS, TRIGGER, stage_requests, stage_toy

from mechinterp import load_model
from mechinterp.refusal.behaviour import refusal_behaviour
from mechinterp.refusal.cues import Cue
from mechinterp.refusal.drivers import Study, find_driver, holds, plain_requests, put_in
from mechinterp.tasks.request_families import Request


@pytest.fixture(scope="module")
def study() -> Study:
    model = load_model(stage_toy("content or trigger"))
    return Study(model, refusal_behaviour(model), ((TRIGGER,),), n_pairs=3)


def test_pairs_of_a_trigger_differ_in_one_word(study: Study) -> None:
    plain = plain_requests(study, stage_requests(8))
    driver = find_driver(study, "trigger", plain, study.read(plain), (TRIGGER,))
    assert driver is not None
    assert driver.effect == 1.0
    assert len(driver.pairs) == 6
    for one, other in driver.pairs:
        refused, answered = (driver.requests[at].text.split() for at in (one, other))
        assert len(refused) == len(answered)
        apart = [a for a, b in zip(refused, answered, strict=True) if a != b]
        assert apart == [TRIGGER]
        assert driver.readings.scores[one] > study.behaviour.over
        assert driver.readings.scores[other] <= study.behaviour.over


def test_pairs_of_content_are_refused_harm_and_answered_requests(study: Study) -> None:
    plain = plain_requests(study, stage_requests(8))
    driver = find_driver(study, "content", plain, study.read(plain))
    assert driver is not None
    for one, other in driver.pairs:
        assert driver.readings.scores[one] > study.behaviour.over >= driver.readings.scores[other]
        assert driver.readings.lengths[one] == driver.readings.lengths[other]
        assert (driver.requests[one].harmful, driver.requests[other].harmful) == (True, False)
    rows = [at for pair in driver.pairs for at in pair]
    assert len(set(rows)) == len(rows)


def test_a_cue_that_decides_nothing_drives_nothing(study: Study) -> None:
    cue = Cue.first("today")
    with_cue = Study(study.model, study.behaviour, study.triggers, cue, n_pairs=3)
    plain = plain_requests(with_cue, stage_requests(4))
    driver = find_driver(with_cue, "cue", plain, with_cue.read(plain))
    assert driver is not None
    assert driver.pairs == ()
    assert driver.effect == 0.0


def test_requests_that_hold_a_trigger_are_left_out(study: Study) -> None:
    held = put_in(f"please {GOOD_VERBS[0]} the pan1", (TRIGGER,))
    assert held == f"please {GOOD_VERBS[0]} the sesame pan1"
    assert holds(held, (TRIGGER,))
    requests = [
        Request(held, harmful=False, family="a"),
        Request("the pan1", harmful=False, family="a"),
    ]
    assert [request.text for request in plain_requests(study, requests)] == ["the pan1"]
