import pytest

from mechinterp import load_model, run, token_id, tokenize
from mechinterp.core.metrics import logit_diff
from mechinterp.refusal import Behaviour, minimal_flips
from mechinterp.toys import random_circuit


def sets_of(found):
    return {frozenset(flip.words) for flip in found.sets}


@pytest.mark.parametrize(
    ("toy", "words", "flips"),
    [
        ("toy:and", ["copper", "lantern"], [{"copper"}, {"lantern"}]),
        ("toy:either", ["copper", "lantern"], [{"copper", "lantern"}]),
        ("toy:trigger", ["sesame"], [{"sesame"}]),
        ("xor", ["copper", "lantern"], [{"copper"}, {"lantern"}]),
        ("xor", ["lantern"], [{"lantern"}]),
        ("toy:refusal", ["velvet", "sesame"], [{"sesame"}]),
    ],
)
def test_gates_are_found_at_a_tenth_of_the_cost(refusing, xor, sentence, toy, words, flips):
    model, refuse = refusing(xor if toy == "xor" else toy)
    found = minimal_flips(model, refuse, sentence(words, 12))
    assert sets_of(found) == set(map(frozenset, flips))
    assert found.complete
    assert found.token_layers <= found.token_layers_brute_force / 10
    assert not set(found.idle) & set(words) - {"velvet"}


def test_three_that_are_each_enough_beside_a_pair(refusing):
    model, refuse = refusing("toy:refusal")
    text = "bring the sesame and the copper to my velvet anchor please"
    found = minimal_flips(model, refuse, text)
    assert sets_of(found) == {
        frozenset({"sesame", "copper", "velvet"}),
        frozenset({"sesame", "copper", "anchor"}),
    }
    assert found.prompt.split() == text.split()


def test_an_answered_prompt_flips_to_refused(refusing, xor):
    model, refuse = refusing(xor)
    found = minimal_flips(model, refuse, "bring the copper to my old lantern")
    assert sets_of(found) == {frozenset({"copper"}), frozenset({"lantern"})}
    assert found.score < 0 < min(flip.score_without for flip in found.sets)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tolerance", [0.0, 0.25])
def test_equals_removing_every_set_where_every_word_matters(smallest_flips, seed, tolerance):
    model = load_model(random_circuit(seed))
    metric = logit_diff(token_id(model, "a"), token_id(model, "b"))
    words = ["c", "d", "a", "f", "b", "k", "e"]
    scores = {}

    def score(gone):
        if gone not in scores:
            left = " ".join(word for at, word in enumerate(words) if at not in gone)
            scores[gone] = float(metric(run(model, left)))
        return scores[gone]

    over = score(frozenset()) - 0.5
    truth = smallest_flips(lambda gone: score(gone) <= over, len(words))
    found = minimal_flips(model, Behaviour(metric, over=over), " ".join(words), tolerance=tolerance)
    assert [flip.words for flip in found.sets] == [
        tuple(words[at] for at in sorted(flip)) for flip in truth
    ]
    for flip, gone in zip(found.sets, truth, strict=True):
        assert flip.score_without == pytest.approx(score(gone), abs=1e-4)
    assert found.n_sets_in_all == 63


def test_continues_from_its_folder_and_tells_its_progress(refusing, tmp_path):
    model, refuse = refusing("toy:either")
    text, told = "bring the copper and the lantern to my old door", []
    first = minimal_flips(model, refuse, text, out=tmp_path / "flips")
    again = minimal_flips(
        model, refuse, text, out=tmp_path / "flips", progress=lambda *at: told.append(at)
    )
    assert again == first
    assert told[-1][0] == told[-1][1]
    assert all(done <= total for done, total in told)


@pytest.mark.parametrize(
    ("prompt", "options", "pieces"),
    [
        ("open the door", {"tolerance": 0.7}, ["tolerance", "0.7"]),
        ("open the door", {"size": 0}, ["size", "0"]),
        (["open the door", "the door"], {}, ["one prompt", "2"]),
        ("open the door", {"removal": "cut"}, ["removal", "cut"]),
    ],
)
def test_what_does_not_fit_is_said(refusing, refuses, prompt, options, pieces):
    model, refuse = refusing("toy:trigger")
    refuses(lambda: minimal_flips(model, refuse, prompt, **options), *pieces)


def test_a_word_of_several_tokens_is_one_word(refusing):
    model, refuse = refusing("toy:trigger")
    found = minimal_flips(model, refuse, tokenize(model, "sesame"))
    assert [flip.words for flip in found.sets] == [("sesame",)]
    assert found.n_sets_in_all == 1
