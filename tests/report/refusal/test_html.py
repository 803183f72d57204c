"""The page of a study: what the numbers are, in words and pictures; nothing in it acts."""

import re
from dataclasses import replace

import pytest
import xarray as xr
from refusal_studies import (
    NAN,
    abstaining,
    crossing,
    cues,
    flips,
    prompt_study,
    stages,
    study,
    uniform,
    verdict,
    words,
)

from mechinterp.refusal import FlipSet
from mechinterp.report import refusal_page, why_page

HOSTILE = "</script><script>window.pwned=1</script>\x1b[31m\u202e\ud800{{ 7 * 7 }}<img src=x>"


def hostile():
    bad = replace(words()[0], words=(HOSTILE, HOSTILE))
    found = replace(flips(HOSTILE), sets=(FlipSet((HOSTILE,), 1.0, -1.0),))
    kinds = ("evidence_for", "evidence_against", "would_change", "not_tested")
    lines = dict.fromkeys(kinds, (HOSTILE,))
    said = verdict(triggers=((HOSTILE,),), cue=HOSTILE, **lines)
    inside = stages(routed_by=(HOSTILE,), sentences=(HOSTILE,), cut=HOSTILE)
    test = replace(study().held_out, families=(HOSTILE,), examples=((HOSTILE, HOSTILE, 1.0, -1.0),))
    seen = replace(study().findings, by_topic={HOSTILE: 1.0}, replies=((HOSTILE, HOSTILE, 1.0),))
    named = crossing().assign_coords(family=[HOSTILE] * 12)
    return study(
        model=HOSTILE, unit=HOSTILE, verdict=said, words=(bad,), flips=(found,), stages=inside,
        cues=(replace(cues()[0], name=HOSTILE, what=HOSTILE),), held_out=test, findings=seen,
        crossing=named, attrs={HOSTILE: HOSTILE, "seed": 1},
    )  # fmt: skip


def hostile_prompt():
    drops = xr.DataArray([1.0, NAN], dims="word", coords={"word": [HOSTILE, "b"]})
    return prompt_study(
        model=HOSTILE, prompt=HOSTILE, attribution=drops, flips=hostile().flips[0],
        stand_ins=((HOSTILE,),), sentences=(HOSTILE,), triggers=hostile().words, study=hostile(),
    )  # fmt: skip


def text_of(html):
    body = html.split("<main>")[1].split("</main>")[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", body))


def test_it_says_the_verdict_first_and_then_all_of_it_in_order():
    html = refusal_page(study(), notes=["Made in this way."])
    said = text_of(html)
    order = [
        "The model refuses because of what is asked for or because of certain words",
        "Probability that this is the rule",
        "What flips it",
        "Harm, trigger and cue, crossed",
        "2 of 3 sets of words act as a trigger",
        "1 of 2 changes of the surface matters",
        "Inside: detection, routing, expression",
        "The verdict, tested on families set aside",
        "What would change the verdict",
        "What was not tested",
        "Made in this way.",
        "Cost of the run",
    ]
    places = [said.index(each) for each in order]
    assert places == sorted(places)
    for each in ("92% (71% to 99%) of 12", "93%", "9 of 10", "1 of 10", "+4.50", "AUROC of 0.94"):
        assert each in said
    assert "nan" not in said.lower().replace("finance", "")


def test_an_abstention_is_shown_as_plainly():
    said = text_of(refusal_page(abstaining()))
    assert "No verdict: the intervals of content and cue do not part them." in said
    assert "Probability that this is the rule" not in said
    assert "none of the rules should be relied on" in said
    for each in ("No prompt was taken apart", "No words were tried", "No cue was tried"):
        assert each in said
    assert "The stages were not looked at" in said
    assert "No verdict was put to a test on families set aside" in said
    assert "foretells" in said
    assert "rule:" not in said


def test_every_family_is_a_dot_and_the_shares_are_those_of_the_dots():
    given = study()
    html = refusal_page(given)
    assert html.count('class="family"') == int(given.crossing.notnull().sum())
    over = (given.crossing > 0).where(given.crossing.notnull())
    for harm in (False, True):
        for cue in (False, True):
            cell = over.sel(harm=harm, trigger=False, cue=cue)
            n = int(cell.notnull().sum())
            assert f"{int(cell.sum())} of {n} families" in html


def test_cells_against_the_rule_are_outlined_and_named():
    html = refusal_page(study(verdict=verdict(rule="content")))
    assert html.count('class="square wrong"') == 2
    assert "(outlined): benign, with trigger; benign, with trigger and cue." in text_of(html)
    assert 'class="square wrong"' not in refusal_page(study())


def test_a_factor_that_was_not_crossed_is_said():
    given = crossing()
    html = refusal_page(study(crossing=given.where(~given.cue)))
    assert "No request has a cue." in text_of(html)
    assert html.count("<figcaption>No request has a cue</figcaption>") == 1


def test_a_model_that_refuses_all_was_not_crossed():
    html = refusal_page(uniform())
    said = text_of(html)
    assert "The model refuses nearly everything, whatever is asked." in said
    assert "Nothing was crossed" in said
    assert "foretells" not in said
    assert 'class="square' not in html


def test_the_words_that_flip_are_marked_where_they_stand():
    html = refusal_page(study())
    assert '<mark class="word alone">bomb</mark>' in html
    assert '<mark class="word in-set">home</mark>?' in html
    assert 'in-set">at' not in html


def test_where_the_route_is_cut_a_line_is_drawn():
    assert "cut here" not in refusal_page(study())
    inside = stages(cut="detection and routing", detected_at=None, sentences=())
    cut = refusal_page(study(stages=inside))
    assert "cut here" in cut
    assert "at no layer is harm read off" in cut


def test_a_prompt():
    html = why_page(prompt_study())
    said = text_of(html)
    assert "Why does smollm2 refuse this?" in said
    assert "The model refuses: +1.25 nats (it refuses over 0)." in said
    assert 'class="word pro20 flip" title="+2.00">bomb<' in html
    assert "One of these is enough: bath, home." in said
    alone = text_of(why_page(prompt_study(score=-1.0, study=None, triggers=(), stand_ins=())))
    assert "Why does smollm2 not refuse this?" in alone
    assert "No study of the model was given" in alone
    assert "No word of this prompt is known to flip" in alone


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_acts_and_it_fits(open_page, scheme):
    pages = [(hostile(), refusal_page), (hostile_prompt(), why_page), (study(), refusal_page)]
    for found, page_of in pages:
        for width in (400, 1280):
            opened = open_page(page_of(found), width=width, color_scheme=scheme)
            page = opened.page
            assert opened.requests == [opened.url]
            assert opened.complaints == []
            assert page.evaluate("window.pwned") is None
            assert page.evaluate("document.images.length") == 0
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            text = page.locator("main").inner_text()
            assert "\u202e" not in text
            assert "49" not in text.split("{{ 7 * 7 }}")[0][-3:]


def test_a_study_without_replies_topics_and_edits_has_a_page():
    given = study()
    bare = replace(given.findings, replies=(), by_topic={}, agreement=None, seed_agreement=None)
    without = replace(given, findings=bare, held_out=replace(given.held_out, examples=()))
    said = text_of(refusal_page(without))
    assert "No reply was generated" in said
    assert not any(name in said for name in ("By topic", "Some replies", "Some of the edits"))
