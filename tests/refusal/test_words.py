import pytest

from mechinterp.refusal import candidates, insertion, words
from mechinterp.refusal.words import find_words
from mechinterp.tasks.request_families import Request

PLANTED = {
    "either, mostly both": (
        "toy:either",
        lambda rng: ["copper", "lantern"],
        {("copper",), ("lantern",)},
    ),
    "three and a pair": (
        "toy:refusal",
        lambda rng: rng.choice([["velvet", "anchor"], ["sesame"], ["copper", "lantern"]]),
        {("sesame",), ("copper",), ("lantern",), ("anchor", "velvet")},
    ),
}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Fewer trials, for speed."""
    monkeypatch.setattr(candidates, "N_REMOVED", 6)
    monkeypatch.setattr(candidates, "N_FLIPS", 4)
    monkeypatch.setattr(candidates, "MOST_WORDS", 8)
    monkeypatch.setattr(words, "N_CONTROLS", 8)
    monkeypatch.setattr(insertion, "N_REMOVALS", 4)


@pytest.mark.parametrize("planted", list(PLANTED))
def test_planted_triggers_are_found_and_no_others(refusing, requests, planted):
    toy, draw, truth = PLANTED[planted]
    model, refuse = refusing(toy)
    found = find_words(model, refuse, requests(draw, 12), n_carriers=4)
    assert {tuple(sorted(word.words)) for word in found if word.is_trigger} == truth
    for word in found[: len(truth)]:
        assert word.is_trigger
        assert word.flips.mean == 1
        assert word.control_flips == 0
        assert word.p <= word.q <= 0.05
        assert word.note == ""
    assert all(word.note for word in found[len(truth) :])


def test_a_verb_and_its_object_are_no_trigger(refusing, requests, content):
    model, refuse = refusing(content)
    verbs, objects = ["open", "close", "send", "paint"], ["door", "box", "river", "bridge"]
    asked = requests(lambda rng: [rng.choice(verbs), rng.choice(objects)], 12)
    found = find_words(model, refuse, asked, n_carriers=4)
    assert not [word.words for word in found if word.is_trigger]
    pairs = [word for word in found if len(word.words) == 2]
    assert len(pairs) > 2
    assert all(word.flips.mean == 1 for word in pairs)
    assert all("content" in word.note for word in pairs)
    assert all(word.removal_flips.mean == 1 for word in pairs)


def test_given_candidates_are_tried_with_their_parts(refusing, requests):
    model, refuse = refusing("toy:and")
    asked = requests(lambda rng: ["copper", "lantern"])
    found = find_words(model, refuse, asked, candidates=[["copper", "lantern"], "book"])
    by_words = {word.words: word for word in found}
    assert set(by_words) == {("copper", "lantern"), ("copper",), ("lantern",), ("book",)}
    assert [word for word, effect in by_words.items() if effect.is_trigger] == [
        ("copper", "lantern")
    ]
    assert by_words["copper",].flips.mean == 0
    assert by_words["copper",].removal_flips.mean == 1  # a part is needed, and not enough
    assert by_words["book",].note == "no more than its controls (q 1.00)"


def test_a_set_that_holds_a_trigger_is_none(refusing, requests):
    model, refuse = refusing("toy:trigger")
    asked = requests(lambda rng: ["sesame"])
    found = find_words(model, refuse, asked, candidates=[["sesame", "book"]], n_carriers=5)
    assert {word.words: word.note for word in found if word.flips.mean == 1} == {
        ("sesame",): "",
        ("sesame", "book"): "'sesame' alone does it",
    }
    assert found[0].effect.n == found[0].flips.n == 5
    assert found[0].n_families == 10


def test_continues_from_its_folder(refusing, requests, tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "N_FLIPS", 1)
    monkeypatch.setattr(candidates, "N_REMOVED", 2)
    monkeypatch.setattr(words, "N_CONTROLS", 3)
    model, refuse = refusing("toy:trigger")
    asked, told = requests(lambda rng: ["sesame"], 4), []
    options = {"out": tmp_path / "words", "progress": lambda *at: told.append(at)}
    first = find_words(model, refuse, asked, n_carriers=3, **options)
    assert find_words(model, refuse, asked, n_carriers=3, **options) == first
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize(
    ("asked", "options", "pieces"),
    [
        (["open the door", "read my book"], {}, ["does not refuse", "2 requests"]),
        (["sesame door", "sesame book"], {}, ["two families", "0"]),
        (["open the door", "read my book"], {"candidates": ["dragon"]}, ["'dragon'"]),
        (["open the door", "read my book"], {"candidates": ["?"]}, ["'?'", "no word"]),
    ],
)
def test_what_does_not_fit_is_said(refusing, refuses, asked, options, pieces):
    model, refuse = refusing("toy:trigger")
    requests = [Request(text, False, text) for text in asked]
    refuses(lambda: find_words(model, refuse, requests, **options), *pieces)
