"""The prompt as it is shown: every token once and in order, with the unit that it belongs to."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.report.attribution.inputs import (
    are_words,
    fits_a_line,
    read_inputs,
    segments,
    unbroken,
)


def test_a_unit_in_two_places_is_two_segments_of_one_input(unit_scores):
    inputs = read_inputs(unit_scores)
    shown = segments(unit_scores, inputs)
    assert [(s.text, s.index) for s in shown] == [
        ("<s>", 0), ("Mary", 1), (" met John.\n", 2), (" Then", 3), (" Mary", 1), (" left.", 4),
    ]  # fmt: skip
    assert [i.where for i in inputs] == ["0", "1, 6", "2–4", "5", "7–8"]
    assert [i.label for i in inputs[:3]] == ["<s>", "her", " met John.\n"]
    assert [i.name for i in inputs[:3]] == ["", "her", ""]  # a name that is the text is none
    assert [s.role for s in shown[:2]] == ["bos", "text"]


def test_a_result_that_does_not_hold_its_prompt_shows_its_inputs(unit_scores, scores):
    shown = segments(scores, read_inputs(scores))
    assert [s.text for s in shown] == scores["input_token"].values.tolist()
    silent = unit_scores.copy()
    del silent.attrs["tokens"]
    assert [s.index for s in segments(silent, read_inputs(silent))] == [0, 1, 2, 3, 4]
    assert [i.where for i in read_inputs(silent)] == ["0", "1–6", "2–4", "5", "7–8"]


def test_a_choice_of_inputs_keeps_the_whole_prompt(unit_scores):
    chosen = unit_scores.isel(input=[1, 3])
    shown = segments(chosen, read_inputs(chosen))
    assert "".join(s.text for s in shown) == "".join(unit_scores.attrs["tokens"])
    assert [s.index for s in shown] == [None, 0, None, 1, 0, None]


@given(st.lists(st.tuples(st.sampled_from(["a", " b", "\n", "."]), st.integers(0, 3)), min_size=1))
def test_segments_are_the_prompt(any_units, pairs):
    tokens, units = [t for t, _ in pairs], [u for _, u in pairs]
    scores = any_units.assign_attrs(tokens=tokens, token_unit=units)
    shown = segments(scores, read_inputs(scores))
    assert list(itertools.chain.from_iterable(s.tokens for s in shown)) == tokens
    assert [s.index for s in shown for _ in s.tokens] == units
    assert all(a.index != b.index for a, b in itertools.pairwise(shown))
    runs = unbroken(shown)
    assert [index for run in runs for index in run] == list(range(len(shown)))


def test_words_stay_whole_and_sentences_do_not(unit_scores):
    shown = segments(unit_scores, read_inputs(unit_scores))
    runs = unbroken(shown)
    assert [[shown[i].text for i in run] for run in runs] == [
        ["<s>"], ["Mary"], [" met John.\n"], [" Then"], [" Mary"], [" left."],
    ]  # fmt: skip
    assert [fits_a_line(run, shown) for run in runs] == [True, True, False, True, True, True]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["please", "bring", "it"], True),
        (["When", " Mary"], False),
        (["word"], False),
        (["你好", "世界"], False),
    ],
)
def test_words_without_spaces_are_told_by_their_look(unit_scores, tokens, expected):
    scores = unit_scores.assign_attrs(tokens=tokens, token_unit=[1] * len(tokens))
    assert are_words(segments(scores, read_inputs(scores))) is expected
