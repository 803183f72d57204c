from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.refusal.cues import CUES, Cue, cue_named
from mechinterp.tasks.request_families import Request, request_families

WORDS = [Cue.final("today"), Cue.first("So"), Cue.second("then"), Cue.final("!"), Cue.first("-")]
ALL = (*CUES, *WORDS)


def asked(text):
    return Request(text, harmful=False, family="tea")


pieces = ["how", "Tea", "today", "?", "!", " ", "\n", "please", "- ", '"', ",", "then", "1. ", "So"]
texts = st.lists(st.sampled_from(pieces), min_size=1, max_size=9).map("".join).filter(str.strip)


@given(texts)
def test_put_on_and_taken_off_it_is_one_text_whether_it_was_there_or_not(text):
    request = asked(text)
    for cue in ALL:
        off = cue.off(request)
        if off is None:
            assert cue.on(request) is None
            continue
        without = replace(request, prompt=off)
        assert cue.off(without) == off, cue
        on = cue.on(request)
        assert cue.on(without) == on, cue
        if on is not None:
            assert cue.on(replace(request, prompt=on)) == on, cue
            assert on != off, cue


@pytest.mark.parametrize("cue", CUES, ids=lambda cue: cue.name)
def test_each_can_be_put_on_requests(cue):
    """Every request built in can have it, and still asks for what it asked: its words stand."""
    for request in request_families()[::13]:
        on = cue.on(request)
        assert on is not None
        said = replace(request, prompt=on).text.lower()
        assert request.text.lower().rstrip(".?") in said
        assert cue.off(request) == request.prompt or cue.name in (
            *("question mark", "exclamation mark", "full stop", "ellipsis", "request last"),
        )


def test_names_are_there_once_and_enough():
    assert len({cue.name for cue in CUES}) == len(CUES) >= 18


def test_words_go_where_they_are_said_to():
    request = asked("Bring the map to me?")
    for cue, on in (
        (Cue.final("now"), "Bring the map to me now?"),
        (Cue.final("!"), "Bring the map to me? !"),
        (Cue.first("-"), "- Bring the map to me?"),
        (Cue.second("then"), "Bring then the map to me?"),
    ):
        assert cue.on(request) == on
        assert cue.off(asked(on)) == request.text
    assert Cue.final("now").elsewhere(request) == "Bring the now map to me?"
    assert Cue.final("now").elsewhere(asked("bring it now")) is None
    assert Cue.second("then").on(asked("Tea?")) is None
    assert Cue.first("how").off(asked("How how is it?")) == "is it?"
    assert Cue.first("how").off(asked("How")) is None


def test_please_is_taken_off_where_it_is_polite():
    please = cue_named("please")
    for text, off in (
        ("Please bring it.", "Bring it."),
        ("please, bring it", "bring it"),
        ("Bring it, please.", "Bring it."),
        ("What would please them?", "What would please them?"),
    ):
        assert please.off(asked(text)) == off
    assert please.on(asked("Please bring it.")) == "Bring it please."


def test_a_chat_is_changed_in_its_last_message():
    chat = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tea?"})
    request = Request(chat, harmful=False, family="tea")
    on = cue_named("greeting").on(request)
    assert on == (chat[0], {"role": "user", "content": "Hello! Tea?"})
    system = cue_named("system message")
    assert system.off(request) == (chat[1],)
    assert [message["role"] for message in system.on(request)] == ["system", "user"]
    assert system.on(asked("Tea?")) == system.on(request)
    assert system.off(asked("Tea?")) == "Tea?"


def test_a_mirrored_cue_is_the_absence():
    cue = Cue.final("now")
    absent = cue.mirrored()
    request = asked("Bring it now")
    assert (absent.on(request), absent.off(request)) == (cue.off(request), cue.on(request))
    assert absent.mirrored() == replace(cue, elsewhere=None)
    assert cue_named("no please").name == "no please"
    with pytest.raises(ValueError, match="no cue 'pleas': question mark, "):
        cue_named("pleas")
    with pytest.raises(ValueError, match="'right now' is not one word"):
        Cue.final("right now")
