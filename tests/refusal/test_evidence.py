"""Sentences say what the numbers say."""

import numpy as np
import xarray as xr

from mechinterp.refusal.crossing import likely_factors, without_triggers
from mechinterp.refusal.cues import Cue
from mechinterp.refusal.evidence import cell_sentences, one_sided_verdict, verdict_of, would_change
from mechinterp.refusal.findings import CueEffect, Estimate, WordEffect
from mechinterp.refusal.rules import FACTORS, RULES, fits, judge_crossing
from mechinterp.tasks.request_families import Request

N = 10
SOME = Estimate(0.5, 0.4, 0.6, N)
REQUESTS = [Request("bring the door", harmful=True, family="a")]


def crossing(rule, wrong=0):
    refused = np.repeat(RULES[rule][..., None], N, -1)
    refused[1, 0, 0, :wrong] ^= True
    return xr.DataArray(np.where(refused, 1.0, -1.0), dims=(*FACTORS, "family"))


def test_each_cell_has_its_sentence_on_its_side():
    for_it, against = cell_sentences(crossing("content", wrong=6), "content", 0.0)
    assert (len(for_it), len(against)) == (7, 1)
    assert against[0].startswith("Of 10 families, the model refuses 4 when asked harmful requests")
    assert against[0].endswith('"content" foretells all.')


def test_as_many_changes_as_it_says_make_the_other_rule_fit_as_well():
    values = crossing("content")
    said = would_change(values, 0.0)
    assert len(said) == 2
    for sentence in said:
        other = sentence.split('"')[1]
        n = int(sentence.split(" if ")[1].split()[0])
        changed = values.values.copy()
        cells = [c for c in np.ndindex(2, 2, 2) if RULES[other][c] != RULES["content"][c]]
        for at in range(n):
            changed[(*cells[at % len(cells)], at // len(cells))] *= -1
        found = fits(values.copy(data=changed))
        assert float(found.sel(rule=other)) >= float(found.sel(rule="content")) - 1e-9


def test_a_verdict_names_what_its_rule_has():
    values = crossing("content or trigger")
    found = verdict_of(judge_crossing(values), values, 0.0, [("bomb",)], "please")
    assert (found.rule, found.triggers, found.cue) == ("content or trigger", (("bomb",),), "")


def test_too_few_refusals_are_no_verdict():
    found = one_sided_verdict(None, REQUESTS * 40, np.arange(40) < 1)
    assert found.rule is None
    assert found.abstains.startswith("the model refuses 1 of 40 requests, too few")
    assert one_sided_verdict("never", REQUESTS, np.zeros(1, bool)).probability == 2 / 3


def word(text, n_families=5, *, is_trigger=False):
    return WordEffect((text,), SOME, SOME, 0.0, None, 0.01, 0.01, is_trigger, n_families)


def cue(name, *, is_cue=False, elsewhere=None):
    return CueEffect(name, name, SOME, SOME, 0.0, 0.0, 0.5, 0.5, is_cue, elsewhere)


def test_the_cue_of_a_trigger_is_explained_by_it():
    cues = [cue("please last", is_cue=True), cue("now last", is_cue=True)]
    told = without_triggers(cues, [word("please", is_trigger=True), word("now")])
    assert [c.is_cue for c in told] == [False, True]
    assert told[0].explained_by == "the trigger please"


def test_what_is_crossed_where_nothing_was_found():
    tried = [Cue.final("now"), Cue.final("so")]
    cues = [cue("now last", elsewhere=1.0), cue("so last")]
    words = [word("kill", 1), word("so"), word("garden"), word("river")]
    found = likely_factors(words, cues, tried, REQUESTS)
    assert found.cue.name == "so last"  # "now" acts wherever it stands
    assert found.triggers == (("garden",),)  # of several families, and not the cue's word
    assert likely_factors([], [], tried, REQUESTS).triggers == (("door",),)
