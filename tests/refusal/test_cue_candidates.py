from dataclasses import replace

import pytest

from mechinterp import load_model
from mechinterp.refusal.cue_candidates import cues_from_requests, unusable_cues, usable_cues
from mechinterp.refusal.cues import CUES, Cue, cue_named
from mechinterp.tasks.request_families import Request, request_families


@pytest.fixture(scope="module")
def model():
    return load_model("toy:trigger")


def both(*texts):
    return [Request(f"{t}{w}", harmful=bool(w), family=t) for t in texts for w in ("", " please")]


def test_each_cue_that_cannot_be_tried_says_why(model):
    chat = ({"role": "user", "content": "bring the map"},)
    cues = {
        "unread": Cue.around("unread", "has a tab", before="\t", after=""),
        "unknown": Cue.final("zebra"),
        "long": Cue.around("long", "is long", after=" and" * 20),
        "never": Cue.of_text("never", "cannot be", lambda text: None, lambda text: text),
        "system message": cue_named("system message"),
        "today": Cue.final("today"),
    }
    said = unusable_cues(model, both("bring the map", "show the book"), tuple(cues.values()))
    assert said == {
        "unread": "the model reads the same tokens with it and without",
        "zebra last": "the model does not know its words, or not those of the requests",
        "long": "prompts with it are longer than the model's context",
        "never": "it does not fit the requests",
        "system message": "the model has no chat template",
    }
    asked = [Request(chat, harmful=harm, family="map") for harm in (True, False)]
    assert set(unusable_cues(model, asked, (Cue.final("today"),)).values()) == {
        "the model has no chat template"
    }


def test_usable_are_the_others_and_those_of_half_the_requests(model):
    second = Cue.second("today")
    mixed = both("bring the map", "show the book")
    assert usable_cues(model, mixed, (second, *CUES)) == (second, cue_named("please"))
    for n, usable in ((1, True), (3, False)):
        short = [Request("bring", harmful=harm, family="b") for harm in (True, False)] * n
        assert (usable_cues(model, [*mixed, *short], (second,)) == (second,)) is usable


def test_cues_come_from_words_at_a_place_in_several_families():
    requests = [
        Request(f"bring a {w} {'Now' if harm else 'then'}{end}", harmful=harm, family=w)
        for w, end in (("map", ""), ("key", "?"), ("book", "?!"), ("box", "..."))
        for harm in (True, False)
    ]
    names = [cue.name for cue in cues_from_requests(requests)]
    assert sorted(names[:2]) == ["Now last", "then last"]
    assert sorted(names[2:]) == ["a second", "bring first"]
    assert [cue.name for cue in cues_from_requests(requests, 1)] == names[:1]
    alone = [replace(request, family="one") for request in requests]
    assert cues_from_requests(alone) == ()
    assert cues_from_requests(requests[:2]) == ()
    assert cues_from_requests([]) == ()


def test_those_of_the_built_in_requests_are_few():
    """None but words that stand there everywhere: hardly one gives harm away."""
    assert len(cues_from_requests(request_families(), 20)) <= 6
