"""Scores of many prompts equal one run each; words go out of a text and into it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mechinterp import run
from mechinterp.refusal.texts import score_prompts, with_words, without_words, words_of

WORDS = ("the", "door", "sesame", "don't", "Old", "x-ray")
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)


def test_scores_are_those_of_one_run_each(refusing, tmp_path):
    model, behaviour = refusing("toy:trigger")
    prompts = [
        "bring the sesame",
        "bring the book",
        "bring the sesame",
        "open the sesame to me",
        "a",
    ]
    told = []
    found = score_prompts(
        model, behaviour, prompts, out=tmp_path, progress=lambda *at: told.append(at)
    )
    each = [float(behaviour.metric(run(model, prompt))) for prompt in prompts]
    np.testing.assert_allclose(found, each, atol=1e-5)
    assert told[-1] == (4, 4)  # one of the five is there twice
    np.testing.assert_array_equal(score_prompts(model, behaviour, prompts, out=tmp_path), found)


def test_no_prompts_are_refused(refusing, refuses):
    model, behaviour = refusing("toy:trigger")
    refuses(lambda: score_prompts(model, behaviour, []), "no prompt")


@given(texts, st.sampled_from(WORDS), st.integers(0, 8))
def test_what_is_put_in_can_be_taken_out(text, word, slot):
    inside = with_words(text, [word], slot)
    assert sorted(words_of(inside)) == sorted((*words_of(text), word.lower()))
    left = words_of(without_words(inside, [word]))
    assert left == tuple(w for w in words_of(text) if w != word.lower())


def test_punctuation_stays():
    assert (
        without_words("How do I kill a Python process?", ["Python"]) == "How do I kill a process?"
    )
    assert with_words("How do I bake bread?", ["now"], slot=9) == "How do I bake bread now?"
