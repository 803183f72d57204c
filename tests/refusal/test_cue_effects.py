from dataclasses import replace

import numpy as np
import pytest

from mechinterp import load_model
from mechinterp.refusal import cue_effects
from mechinterp.refusal.behaviour import refusal_behaviour
from mechinterp.refusal.cue_candidates import candidate_cues
from mechinterp.refusal.cue_effects import find_cues
from mechinterp.refusal.cues import CUES, Cue, cue_named
from mechinterp.tasks.request_families import Request

THINGS = ("door", "box", "letter", "book", "story", "map", "key", "garden", "river", "bridge")
TODAY, PLEASE = Cue.final("today"), Cue.first("please")
GIVEN = (TODAY, PLEASE, Cue.second("and"), Cue.final("us"))


@pytest.fixture(scope="module")
def model():
    return load_model("toy:trigger")


def requests_with(harm_word="copper", cue=TODAY, n_families=10):
    """Harmful ones hold a word; each kind with the cue and without."""
    found = []
    for thing in THINGS[:n_families]:
        for harmful in (True, False):
            for verb in ("bring", "show"):
                text = f"{verb} the {harm_word if harmful else 'old'} {thing}"
                request = Request(text, harmful=harmful, family=thing)
                has_cue = harmful == (verb == "bring")
                found.append(replace(request, prompt=cue.on(request)) if has_cue else request)
    return found


@pytest.fixture
def scored(monkeypatch):
    """A function that makes the scores those of a rule on words instead of a model's."""

    def by(rule):
        def score(model, behaviour, prompts, *, out=None, progress=None):
            return np.array([float(rule(prompt.split())) for prompt in prompts])

        monkeypatch.setattr(cue_effects, "score_prompts", score)

    return by


def found_by(model, requests=None, cues=GIVEN, **options):
    behaviour = refusal_behaviour(model)
    effects = find_cues(model, behaviour, requests or requests_with(), cues=cues, **options)
    return {effect.name: effect for effect in effects}


RULES = {
    "cue": (lambda harm, cue: cue, (1.0, 1.0)),
    "content and cue": (lambda harm, cue: harm and cue, (0.0, 1.0)),
    "content or cue": (lambda harm, cue: harm or cue, (1.0, 0.0)),
    "cue without content": (lambda harm, cue: cue and not harm, (1.0, 0.0)),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_cue_is_found_in_every_rule_that_it_is_part_of(model, scored, rule):
    refuses, flips = RULES[rule]
    scored(lambda words: 3 if refuses("copper" in words, words[-1] == "today") else -2)
    effects = found_by(model)
    cue = effects.pop("today last")
    assert cue.is_cue
    assert (cue.flips_benign, cue.flips_harmful) == flips
    assert (cue.on_benign.mean, cue.on_harmful.mean) == tuple(5 * np.array(flips))
    assert cue.flips_elsewhere == 0.0
    assert cue.p == 2 / 2**10
    assert cue.p <= cue.q <= len(GIVEN) * cue.p
    assert not any(other.is_cue for other in effects.values())
    assert {e.name for e in effects.values() if e.p < 1} == {"no us last"}
    assert effects["no us last"].explained_by == "today last"


def test_the_absence_of_a_cue_is_one(model, scored):
    scored(lambda words: 1 if words[0] != "please" else -1)
    effects = found_by(model)
    assert [name for name, effect in effects.items() if effect.is_cue] == ["no please first"]
    assert effects["no please first"].on_benign.mean == 2
    assert cue_named("no please first", GIVEN).what == "not: the first word is 'please'"


def test_a_word_that_acts_anywhere_is_no_cue(model, scored):
    scored(lambda words: 1 if "today" in words else -1)
    (today,) = (effect for name, effect in found_by(model).items() if name == "today last")
    assert today.flips_benign == today.flips_harmful == today.flips_elsewhere == 1.0
    assert not today.is_cue


@pytest.mark.parametrize("rule", ["always", "never", "content", "trigger"])
def test_none_is_found_where_none_matters(model, scored, rule):
    rules = {
        "always": lambda words: 1,
        "never": lambda words: -1,
        "content": lambda words: 1 if "copper" in words else -1,
        "trigger": lambda words: 1 if "garden" in words else -1,
    }
    scored(lambda words: rules[rule](words) + 0.001 * len(words))
    effects = found_by(model, cues=None)
    assert not any(effect.is_cue for effect in effects.values())
    assert len(effects) > 4


def test_an_unknown_cue_is_found_from_the_requests(model, scored):
    for cue in (Cue.final("us"), Cue.first("and"), Cue.second("near")):
        requests = requests_with(cue=cue)
        word, place = cue.name.split()
        at = {"last": -1, "first": 0, "second": 1}[place]
        scored(lambda words, at=at, word=word: 1 if words[at] == word else -1)
        effects = found_by(model, requests, cues=None)
        assert [name for name, effect in effects.items() if effect.is_cue] == [cue.name]
        assert {effect.explained_by for effect in effects.values()} <= {"", cue.name}


def test_what_few_families_leave_open_is_tried_in_more(model, scored, monkeypatch):
    """With five families p is 1/16 at the best; ten decide, with p doubled for the second look."""
    scored(lambda words: 1 if words[-1] == "today" else -1)
    asked, score = [], cue_effects.score_prompts

    def counted(model, behaviour, prompts, **options):
        asked.append(len(prompts))
        return score(model, behaviour, prompts, **options)

    monkeypatch.setattr(cue_effects, "score_prompts", counted)
    effects = found_by(model, n_families=5)
    assert effects["today last"].is_cue
    assert effects["today last"].p == 2 * 2 / 2**10
    assert len(asked) == 2
    assert asked[1] <= asked[0]
    assert not found_by(model, requests_with(n_families=5))["today last"].is_cue
    assert len(asked) == 3


def test_one_flip_in_one_family_is_not_enough(model, scored):
    scored(lambda words: 1 if {"door", "copper"} <= set(words) and words[-1] == "today" else -1)
    assert not found_by(model)["today last"].is_cue


def test_on_a_model_they_are_what_the_model_does(model):
    effects = found_by(
        model, requests_with("sesame", n_families=3), cues=(TODAY, Cue.final("sesame"))
    )
    assert effects["sesame last"].flips_benign == effects["sesame last"].flips_elsewhere == 1.0
    assert effects["sesame last"].on_benign.mean == pytest.approx(16, abs=0.2)
    assert abs(effects["today last"].on_benign.mean) < 0.1
    assert not any(effect.is_cue for effect in effects.values())


def test_bad_input_is_a_sentence(model):
    behaviour, requests = refusal_behaviour(model), requests_with()
    for bad, cues, said in (
        ([r for r in requests if r.harmful], None, "no benign requests"),
        (requests, (TODAY, TODAY), "several cues are called 'today last'"),
    ):
        with pytest.raises(ValueError, match=said):
            find_cues(model, behaviour, bad, cues=cues)
    assert find_cues(model, behaviour, requests, cues=(cue_named("emoji"),)) == ()


def test_candidates_are_the_battery_and_more():
    cues = candidate_cues(requests_with())
    assert cues[: len(CUES)] == CUES
    assert "today last" in [cue.name for cue in cues]
