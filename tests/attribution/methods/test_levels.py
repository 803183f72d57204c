"""Level by level: what is opened, and that a finer level scores as if it were asked for alone."""

import numpy as np
import pytest

from mechinterp import attribute, attribute_by_level, load_model, tokenize
from mechinterp.attribution.methods.single_removal import RedundancyWarning

TRIGGER = load_model("toy:trigger")
TEXT = "please bring me the sesame and the map to my garden"
THIRDS = {"first": (1, 4), "second": (5, 8), "third": (9, 11)}


def test_the_finer_level_scores_as_alone():
    coarse, fine = attribute_by_level(TRIGGER, TEXT, 1, levels=(THIRDS, "token"))
    opened = fine.input_token.values[fine.notnull().values[0]].tolist()
    assert opened == ["sesame", "and", "the", "map"]
    alone = attribute(TRIGGER, TEXT, 1, inputs=[5, 6, 7, 8])
    np.testing.assert_allclose(fine.values, alone.values, atol=1e-6)
    assert set(fine.parent.values.tolist()) == {
        -1,
        coarse.input_name.values.tolist().index("second"),
    }
    assert coarse.input_token_id.values[-1] == -1


def test_two_sentences_that_stand_in_for_each_other_are_both_opened():
    text = "bring the sesame and my sesame to me"
    halves = {"first": (1, 3), "second": (4, 6), "third": (7, 8)}
    with pytest.warns(RedundancyWarning):
        coarse, fine = attribute_by_level(TRIGGER, text, 1, levels=(halves, "token"))
    assert coarse.attrs["groups"][0]["texts"] == ["bringthesesame", "andmysesame"]
    assert fine.notnull().values[0].tolist() == [False] + [True] * 6 + [False] * 2


def test_as_many_units_are_opened_as_hold_the_share_and_no_more_than_most():
    spans = {word: i + 1 for i, word in enumerate(TEXT.split()[:4])} | {"rest": (5, 11)}
    for share, most, n_opened in ((0.5, 6, 1), (1.0, 6, 5), (1.0, 2, 2)):
        coarse, fine = attribute_by_level(
            TRIGGER, TEXT, 1, levels=(spans, "token"), share=share, most=most
        )
        parents = {p for p in fine.parent.values.tolist() if p >= 0}
        assert len(parents) == n_opened
        assert coarse.input_name.values.tolist().index("rest") in parents


def test_three_levels_and_progress():
    seen = []
    levels = ({"all": (1, 11)}, THIRDS, "token")
    with pytest.raises(ValueError, match="span 'first'"):  # before anything runs
        attribute_by_level(TRIGGER, TEXT, 1, levels=({"all": (5, 11)}, THIRDS, "token"))
    found = attribute_by_level(
        TRIGGER, TEXT, 1, levels=(levels[0], "word"), progress=lambda *at: seen.append(at)
    )
    assert len(found) == 2
    assert seen[-1][0] == seen[-1][1]


def test_a_unit_that_reaches_over_the_border_goes_with_what_is_opened():
    halves = {"first": (1, 5), "second": (6, 11)}  # sesame is position 5
    fine_spans = {"over": (5, 6), "far": (10, 11)}
    _, fine = attribute_by_level(TRIGGER, TEXT, 1, levels=(halves, fine_spans))
    by_name = dict(zip(fine.input_name.values.tolist(), fine.values[0], strict=True))
    assert by_name["over"] > 7
    assert np.isnan(by_name["far"])
    parent = dict(zip(fine.input_name.values.tolist(), fine.parent.values.tolist(), strict=True))
    assert parent["over"] == 1
    assert parent["far"] == -1


@pytest.mark.parametrize("wrong", [{"levels": ()}, {"levels": "word"}, {"share": 0.0}, {"most": 0}])
def test_errors_say_what_to_do(wrong):
    with pytest.raises(ValueError, match=r"give a list of (levels|texts)"):
        attribute_by_level(TRIGGER, TEXT, 1, **wrong)


@pytest.mark.slow
def test_sentences_then_words_of_a_real_model(smollm2):
    text = (
        "The baker opened his shop at six. Anna's favourite colour is green. It rained all day. "
        "Anna painted her door in her favourite colour, which is"
    )
    sentences, words = attribute_by_level(smollm2, text, " green")
    named = dict(zip(sentences.input_token.values.tolist(), sentences.values[0], strict=True))
    assert named[" Anna's favourite colour is green."] > 1
    assert abs(named[" It rained all day."]) < 1
    opened = words.notnull().values[0]
    assert " green" in words.input_token.values[opened].tolist()
    assert " rained" not in words.input_token.values[opened].tolist()
    assert len(tokenize(smollm2, text).token_text[0]) > opened.sum()


def test_levels_that_open_nothing_are_refused():
    with pytest.raises(ValueError, match=r"have \[4, 1\] units. Order them from coarse to fine"):
        attribute_by_level(
            load_model("toy:trigger"), "please bring the sesame", 1, levels=("word", "sentence")
        )
