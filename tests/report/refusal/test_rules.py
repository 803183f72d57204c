"""Rules in words: every rule has a sentence and a meaning, and foretells as it says."""

from itertools import product
from typing import get_args

import pytest
from refusal_studies import verdict

from mechinterp.refusal.findings import Rule
from mechinterp.report.refusal.rules import foretold, meaning, verbs, verdict_phrase
from mechinterp.report.render.phrases import plain

RULES = get_args(Rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("behaviour", ["refuse", "answer in {French}", "cry"])
def test_every_rule_is_said(rule, behaviour):
    found = verdict(rule=rule, cue="no question mark")
    said = plain(verdict_phrase(found, behaviour))
    assert verbs(behaviour).does in said
    assert ("bomb" in said) == ("trigger" in rule)
    assert ("no question mark" in said) == ("cue" in rule)
    assert ("what is asked for" in said) == ("content" in rule)
    assert meaning(found, behaviour).endswith(".")
    others = [plain(verdict_phrase(verdict(rule=other), behaviour)) for other in RULES]
    assert len(set(others)) == len(RULES)


def test_rules_foretell_by_their_factors():
    for harm, trigger, cue in product((False, True), repeat=3):
        of = {"content": harm, "trigger": trigger, "cue": cue}
        here = {rule: foretold(rule, harm=harm, trigger=trigger, cue=cue) for rule in RULES}
        assert here["always"]
        assert not here["never"]
        for rule in RULES[:3]:
            assert here[rule] == of[rule]
        for rule in RULES[3:9]:
            one, how, other = rule.split()
            assert here[rule] == ((of[one] | of[other]) if how == "or" else of[one] & of[other])


def test_verbs():
    assert verbs("refuse").does == "refuses"
    assert verbs("answer in French").does == "answers in French"
    assert verbs("cry").does == "cries"
    assert verbs("wish").does == "wishes"
    assert verbs("say").does_not == "does not say"
