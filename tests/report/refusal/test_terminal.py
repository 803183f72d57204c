"""The terminal shows a study in any width, an abstention as plainly, and hostile text as text."""

import io
from dataclasses import replace

import pytest
import xarray as xr
from refusal_studies import (
    NAN,
    abstaining,
    crossing,
    flips,
    prompt_study,
    stages,
    study,
    uniform,
    verdict,
    words,
)
from rich.cells import cell_len
from rich.console import Console

from mechinterp.refusal import FlipSet
from mechinterp.report import print_refusal, print_why

HOSTILE = "\x1b[31m[bold]x[/]\u202e\n 毒" * 3


def printed(show, found, width=100):
    out = io.StringIO()
    show(found, console=Console(file=out, width=width, legacy_windows=False))
    return out.getvalue()


def hostile():
    bad = replace(words()[0], words=(HOSTILE, HOSTILE))
    found = replace(flips(HOSTILE), sets=(FlipSet((HOSTILE,), 1.0, -1.0),))
    said = verdict(triggers=((HOSTILE,),), evidence_for=(HOSTILE,), not_tested=(HOSTILE,))
    inside = stages(routed_by=(HOSTILE,), sentences=(HOSTILE,), cut=HOSTILE)
    return study(verdict=said, words=(bad,), flips=(found,), stages=inside, model=HOSTILE)


def hostile_prompt():
    drops = xr.DataArray([1.0, NAN], dims="word", coords={"word": [HOSTILE, "b"]})
    return prompt_study(
        prompt=HOSTILE, attribution=drops, flips=flips(HOSTILE), stand_ins=((HOSTILE,),),
        sentences=(HOSTILE,), study=hostile(),
    )  # fmt: skip


@pytest.mark.parametrize("width", [30, 44, 62, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal_and_nothing_acts(width):
    for show, found in [
        (print_refusal, study()),
        (print_refusal, abstaining()),
        (print_refusal, uniform()),
        (print_refusal, hostile()),
        (print_why, prompt_study()),
        (print_why, hostile_prompt()),
    ]:
        said = printed(show, found, width)
        assert max(map(cell_len, said.splitlines())) <= width
        assert "\x1b" not in said
        assert "\u202e" not in said
        assert "nan" not in said


def test_the_verdict_comes_first_with_its_probability():
    lines = printed(print_refusal, study()).splitlines()
    assert lines[0].startswith("The model refuses because of what is asked for or because of")
    said = printed(print_refusal, study(), 200)
    for each in (
        "certain words (bomb, kill + weapon): each alone is enough.",
        "Probability that this is the rule: 93%.",
        "content or trigger in 93%, content in 5%, trigger in 2%",
        "92% (71% to 99%) of 12",
        "2 of 3 sets of words act as a trigger",
        "1 of 2 changes of the surface matters",
        "9 did (90%)",
        "1 did (10%)",
        "bath + home",
        "Requests in other languages",
    ):
        assert each in said


def test_an_abstention_is_said_as_plainly():
    said = printed(print_refusal, abstaining(), 200)
    assert said.startswith("No verdict: the intervals of content and cue do not part them.")
    assert "content in 41%, cue in 37%, never in 22%" in said
    assert "Probability that this is the rule" not in said
    for each in ("No words were tried", "No cue was tried", "stages were not looked at"):
        assert each in said
    assert "No verdict was put to a test on families set aside" in said


def test_cells_against_the_rule_are_named():
    said = printed(print_refusal, study(verdict=verdict(rule="content")), 200)
    assert (
        "do not do what the rule foretells: benign, with trigger; benign, with trigger and cue"
        in (said)
    )


def test_a_factor_that_no_request_has_is_no_column():
    given = crossing()
    said = printed(print_refusal, study(crossing=given.where(~given.cue)))
    assert "No request has a cue." in said
    assert "with cue" not in said


def test_a_model_that_refuses_all_was_not_crossed():
    said = printed(print_refusal, uniform(), 200)
    assert said.startswith("The model refuses nearly everything, whatever is asked.")
    assert "Nothing was crossed" in said
    assert "foretells" not in said


def test_one_prompt():
    said = printed(print_why, prompt_study())
    assert "The model refuses: +1.25 nats (it refuses over 0)." in said
    assert "2 smallest sets of words flip it" in said
    assert "One of these is enough: bath, home." in said
    assert "The model as a whole" in said
    none = prompt_study(flips=replace(flips(), sets=(), complete=False), study=None, triggers=())
    said = printed(print_why, none, 200)
    assert "No set of words that was tried flips it. Not all sets" in said
