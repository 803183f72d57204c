"""Sentences follow from their numbers: results are drawn at random and compared with the words."""

import re
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from refusal_studies import crossing, cues, flips, stages, study, verdict, words

from mechinterp.refusal import HeldOut
from mechinterp.refusal.rules import RULES
from mechinterp.report.refusal import sentences
from mechinterp.report.refusal.crossing import crossed, read_cells

SHARES = st.floats(0, 1)


def numbers(text):
    return [int(each) for each in re.findall(r"\d+", text.replace(",", ""))]


@given(st.integers(0, 40), st.data())
def test_a_test_says_what_happened(n, data):
    hits, random_hits = (data.draw(st.integers(0, n)) for _ in range(2))
    test = HeldOut(tuple("abc"), n, hits, n, random_hits)
    said = sentences.held_out(test)
    assert said[0].startswith("3 families were")
    if n == 0:
        assert "foretold no flip" in said[1]
        assert len(said) == 2
    else:
        assert numbers(said[1]) == [n, hits, round(100 * hits / n)]
        assert numbers(said[2]) == [n, random_hits, round(100 * random_hits / n)]


@given(st.lists(st.booleans(), max_size=6))
def test_words_and_cues_are_counted(which):
    found = study(
        words=tuple(replace(words()[0], is_trigger=each) for each in which),
        cues=tuple(replace(cues()[0], is_cue=each) for each in which),
    )
    for said in (sentences.words(found), sentences.cues(found)):
        if not which:
            assert said.startswith("No ")
        elif any(which):
            assert numbers(said) == [sum(which), len(which)]
        else:
            assert said.startswith(f"None of {len(which)} ")


@given(st.integers(0, 2), st.booleans())
def test_flips_say_how_many_and_whether_that_is_all(n, complete):
    found = replace(flips(), sets=flips().sets[:n], complete=complete)
    said = sentences.flips(found, "refuse")
    assert said.startswith(("No set", "One smallest set", "2 smallest sets")[n])
    assert ("Not all sets" in said) == (not complete)
    assert "60 of 92" in said


@given(st.dictionaries(st.sampled_from(list(RULES)), SHARES), SHARES, SHARES)
def test_how_sure_lists_every_share_that_is_not_zero(by_rule, probability, fit):
    said = " ".join(
        sentences.sure(study(verdict=verdict(shares=by_rule, probability=probability, fit=fit)))
    )
    assert f"this is the rule: {sentences.share(probability)}." in said
    assert f"foretells {sentences.share(fit)} of 95 cells" in said
    shown = {rule: share for rule, share in by_rule.items() if share >= 0.005}
    assert all(f"{rule} in {sentences.share(x)}" in said for rule, x in shown.items())
    order = [share for _, share in sentences.ranked_shares(study(verdict=verdict(shares=by_rule)))]
    assert order == sorted(shown.values(), reverse=True)


@given(SHARES)
def test_a_share_is_all_or_none_only_where_it_is(value):
    said = sentences.share(value)
    assert (said == "100%") == (value > 1 - 1e-9)
    assert (said == "0%") == (value <= 1e-9)


def test_what_was_crossed_is_named_and_whether_it_was_found():
    of = study()
    crossing = of.crossing.assign_attrs(triggers=["secret", "old + map"], cue="no please")
    said = sentences.what_was_crossed(replace(of, crossing=crossing))
    assert "The trigger: secret, old + map." in said
    nothing = replace(of, crossing=crossing, words=(), cues=())
    assert sentences.what_was_crossed(nothing) == [
        "The trigger: secret, old + map, the likeliest tried, although none is a trigger.",
        "The cue: no please, the likeliest tried, although none is a cue.",
    ]


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(RULES)))
def test_cells_are_those_of_the_crossing(seed, rule):
    rng = np.random.default_rng(seed)
    values = np.where(rng.random((2, 2, 2, 12)) < 0.3, np.nan, rng.normal(size=(2, 2, 2, 12)))
    given_scores = crossing().copy(data=values)
    cells = read_cells(study(crossing=given_scores, verdict=verdict(rule=rule)))
    for cell in cells:
        here = values[int(cell.harm), int(cell.trigger), int(cell.cue)]
        kept = here[~np.isnan(here)]
        assert len(cell.scores) == len(cell.families) == len(kept)
        if len(kept):
            assert cell.share == np.mean(kept > 0)
            assert np.isclose(cell.mean, kept.mean())
        assert cell.foretold == RULES[rule][int(cell.harm), int(cell.trigger), int(cell.cue)]
    assert crossed(cells, "cue") == (~np.isnan(values[:, :, 1])).any()


def test_stages():
    said = " ".join(sentences.stages(stages(cut="detection and routing"), "refuse"))
    assert "read off from layer 2 on (AUROC 0.80 there; a bag of words 0.70" in said
    assert "Routing, of 3 parts: content by L3H2; trigger by L3.mlp." in said
    assert "layer 4 controls refusals (refusals by content); 1 of 2 directions do." in said
    assert "cut between detection and routing" in said
    whole = stages().routing.drop_vars("is_on_route")
    said = " ".join(sentences.stages(stages(routing=whole), "refuse"))
    assert "Routing, of 3 parts: L3H2, L3.mlp." in said
    none = stages(routing=whole, detected_at=None, routed_by=(), directions=(), expressed_at=None)
    said = " ".join(sentences.stages(none, "answer in French"))
    assert "at no layer is harm read off" in said
    assert "none of 3 parts" in said
    assert "none of 0 directions controls choices" in said
