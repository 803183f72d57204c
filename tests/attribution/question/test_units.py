"""Units: a partition of the positions, cut where words and sentences begin."""

import re
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp import load_model, tokenize
from mechinterp.attribution.question.units import KINDS, find, find_text, units_of
from mechinterp.core.prompts import Prompts

TRIGGER = load_model("toy:trigger")
PIECES = ("The", " dog", " dogs", "'s", ",", " comm", "it", "tee", ".", "!", "\n", " ", " 3", ".1")
PIECES += (" Dr", "—", " (", ")", "\n\n", " I", '"', "日本", "。", "", " ", "\u2028", "\u200f")
PIECES += (
    "नम",
    "स",
    "्",
    "ते",
    " द",
    "।",
    "ส",
    "ว",
    "ั",
    "மி",
    "ழ்",
    "مر",
    "\u064e",
    "؟",
    "שׁ",
    "\u05b8",
)
PIECES += (" cafe", "\u0301", "👩", "\u200d", "👧", "🏽", "🇩", "🇪")


class Lettered:
    """As much of a model as units need: a tokenizer whose tokens are pieces of text."""

    tokenizer = object()
    cfg = object()
    hook_dict: ClassVar = {}


def made_of(pieces):
    """A prompt whose tokens are these pieces of text."""
    known = sorted(set(pieces))
    ids = [known.index(piece) for piece in pieces]
    return Prompts.from_ids([ids], decode=lambda i: known[i])


def texts(pieces, units):
    return [unit.text for unit in units_of(Lettered, made_of(pieces), units)]


def test_words_by_hand():
    pieces = [
        " the",
        " comm",
        "it",
        "tee",
        "'s",
        " dog",
        ",",
        " 3",
        ".",
        "14",
        "\n",
        "New",
        "-",
        "ish",
    ]
    words = [" the", " committee's", " dog", ",", " 3.14", "\n", "New-ish"]
    assert texts(pieces, "word") == words


def test_sentences_by_hand():
    pieces = [
        "Dr",
        ".",
        " No",
        " went",
        ".",
        " He",
        " saw",
        " 3",
        ".",
        "1",
        " J",
        ".",
        " Bonds",
        "!",
    ]
    pieces += ['"', "\n", "\n", "So", " what", "?", " Oh", "…", " "]
    wanted = ["Dr. No went.", ' He saw 3.1 J. Bonds!"', "\n\nSo what?", " Oh… "]
    assert texts(pieces, "sentence") == wanted


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["न", "म", "स", "्", "ते", " द", "ु", "निया"], ["नमस्ते", " दुनिया"]),
        (["ส", "วั", "ส", "ดี", " โ", "ลก"], ["สวัสดี", " โลก"]),
        (["caf", "e", "\u0301", " r", "e\u0301", "sum", "e", "\u0301", " ok"], None),
        (["مر", "\u064e", "حب", "\u064b", "ا", " بك"], None),
    ],
)
def test_words_hold_their_marks(pieces, words):
    assert texts(pieces, "word") == (words or re.split("(?= )", "".join(pieces)))


def test_sentences_of_another_script():
    pieces = ["यह", " काम", " है", "।", " वह", " घर", " है", "।", " ठीक", " है।"]
    assert texts(pieces, "sentence") == ["यह काम है।", " वह घर है।", " ठीक है।"]
    assert texts(["1", ".", " three"], "sentence") == ["1. three"]


def test_a_text_is_not_found_inside_a_word():
    pieces = ["न", "मस", "्ते", " दु", "निया"]
    assert find_text(pieces, range(5), "नमस") == []
    assert find_text(pieces, range(5), "नमस्ते") == [0, 1, 2]


@pytest.mark.parametrize("span", [(0, True), (0, 10**12), (-1, 1), (3, 9), 4])
def test_a_span_outside_the_text_is_not_found(span):
    assert find(["a", " b", " c", " d"], range(4), span) == []


def test_sentences_without_white_space():
    assert texts(["日本", "。", "日本", "。"], "sentence") == ["日本。", "日本。"]


def test_white_space_leads_what_follows_it():
    assert texts(["a", " ", " ", "b", " ", "\n", "c"], "word") == ["a", "  b", " \n", "c"]


def test_a_token_of_two_words_belongs_to_the_first():
    assert texts(["so", " what is", " it"], "word") == ["so", " what is", " it"]


@settings(max_examples=4 * settings.default.max_examples)
@given(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=25),
    st.sampled_from(KINDS),
    st.data(),
)
def test_every_position_is_in_exactly_one_unit(pieces, kind, data):
    allowed = data.draw(st.sets(st.integers(0, len(pieces) - 1), min_size=1))
    units = units_of(Lettered, made_of(pieces), kind, sorted(allowed))
    positions = [pos for unit in units for pos in unit.positions]
    assert positions == list(range(len(pieces)))
    assert {pos for unit in units if unit.attributed for pos in unit.positions} == allowed
    for unit in units:
        assert unit.text == "".join(pieces[pos] for pos in unit.positions)
        assert unit.attributed or len(unit.positions) == 1


def test_words_of_a_tokenizer_whose_tokens_are_words():
    found = units_of(TRIGGER, tokenize(TRIGGER, "please bring the map"), "word")
    assert [unit.positions for unit in found] == [(0,), (1,), (2,), (3,), (4,)]


def test_spans_join_what_is_apart():
    prompts = tokenize(TRIGGER, "the sesame and the sesame to me")
    spans = {"trigger": "sesame", "tail": (6, 7), "both": [1, "and"]}
    found = {u.name: u for u in units_of(TRIGGER, prompts, spans) if u.attributed}
    assert {name: unit.positions for name, unit in found.items()} == {
        "trigger": (2, 5),
        "tail": (6, 7),
        "both": (1, 3),
    }
    assert found["trigger"].text == "sesame … sesame"
    rest = [u.positions for u in units_of(TRIGGER, prompts, spans) if not u.attributed]
    assert rest == [(0,), (4,)]


def test_a_text_stands_for_all_its_spellings():
    pieces = ["we", "apon", ",", " the", " weapon", " (", "weapon", ")", " weapons", " we", "apon"]
    found = units_of(Lettered, made_of(pieces), {"x": "weapon"})
    assert [u.positions for u in found if u.attributed] == [(0, 1, 4, 6, 9, 10)]


def test_spans_of_other_kinds_of_numbers(as_users_call_it):
    prompts = tokenize(TRIGGER, "the sesame and the sesame to me")
    spans = {"a": (np.int64(1), np.int64(3)), "b": np.int64(5), "c": [(6, 7)]}
    found = {u.name: u.positions for u in units_of(TRIGGER, prompts, spans) if u.attributed}
    assert found == {"a": (1, 2, 3), "b": (5,), "c": (6, 7)}


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ({"a": "sesame", "b": (2, 3)}, "spans 'a' and 'b' both contain position 2, 'sesame'"),
        ({"a": "bread"}, "span 'a': 'bread' is not among the tokens to remove .*1: 'the'"),
        ({"a": 0}, "span 'a': 0 is not among"),
        ({"a": (1, 9)}, "span 'a'.*is not among"),
        ({}, "name at least one span"),
        ({"a": []}, "contains no span"),
        ({"a": True}, "True is not a span"),
        ({"a": [(0, True)]}, r"\(0, True\) is not a span"),
        ({"a": ["the", [3, 4]]}, r"\[3, 4\] is not a span"),
        ("words", "one of token, word, sentence, part, or spans"),
    ],
)
def test_errors_say_what_to_do(units, said, as_users_call_it):
    prompts = tokenize(TRIGGER, "the sesame and the")
    with pytest.raises(ValueError, match=said):
        units_of(TRIGGER, prompts, units)


def test_words_need_text(absolute_model):
    with pytest.raises(ValueError, match="no tokenizer, so no text"):
        units_of(absolute_model, tokenize(absolute_model, torch.tensor([3, 4])), "word")


@pytest.mark.slow
def test_parts_of_a_chat(smollm2):
    chat = [{"role": "system", "content": "Be kind. Ok."}, {"role": "user", "content": "Hi there."}]
    prompts = tokenize(smollm2, chat)
    parts = units_of(smollm2, prompts, "part", "prompt")
    assert [p.text for p in parts if p.role == "text"] == ["Be kind. Ok.", "Hi there."]
    assert [p.role for p in parts] == ["template", "text"] * 2 + ["template"]
    sentences = [u.text for u in units_of(smollm2, prompts, "sentence") if u.attributed]
    assert sentences == ["Be kind.", " Ok.", "Hi there."]


def test_words_hold_their_characters_whole(smollm2):
    prompts = tokenize(smollm2, "Привет, 你好世界 🎉 ñandú ne")
    words = [unit for unit in units_of(smollm2, prompts, "word") if unit.attributed]
    assert [word.text for word in words] == ["Привет", ",", " 你好世界", " 🎉", " ñandú", " ne"]
    spans = units_of(smollm2, prompts, {"world": "你好世界", "bird": "ñandú"})
    wholes = {word.text.strip(): word.positions for word in words}
    wholes["你好世界"] = wholes["你好世界"][1:]  # its space is a token
    named = {unit.name: unit.positions for unit in spans if unit.attributed}
    assert named == {"world": wholes["你好世界"], "bird": wholes["ñandú"]}


SCRIPTS = "नमस्ते दुनिया। வணக்கம் สวัสดี مَرْحَبًا؟ שָׁלוֹם cafe\u0301 👩‍👧👍🏽🇩🇪 你好。 a's 3.1!\n"


@given(st.text(st.sampled_from(SCRIPTS), min_size=1))
def test_units_of_a_real_tokenizer_hold_every_token_once(smollm2, text):
    prompts = tokenize(smollm2, text)
    for kind in ("word", "sentence"):
        units = units_of(smollm2, prompts, kind)
        assert [pos for unit in units for pos in unit.positions] == list(range(prompts.width))
        assert "".join(unit.text for unit in units) == "".join(prompts.token_text[0])
