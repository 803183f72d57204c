"""Words and sentences by Unicode's rules: values by hand in many scripts, and laws for any text."""

import itertools
import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.attribution.question.boundaries import (
    occurrences,
    sentence_starts,
    unit_numbers,
    word_starts,
)

BY_SCRIPT = ("नमस्ते दुनिया। ", "வணக்கம் உலகம் ", "สวัสดี โลก ", "مَرْحَبًا؟ ", 'שָׁלוֹם צה"ל ', "cafe\u0301 ")
BY_SCRIPT += (
    "👨‍👩‍👧👍🏽🇩🇪1️⃣ ",
    "你好。「は」",
    "한글 ",
    "Ж. a! 3.1",
    "\n\r\u2028\u200b\u00ad\u200d\u200f'…",
)
TEXTS = st.one_of(st.text(st.sampled_from("".join(BY_SCRIPT)), max_size=40), st.text(max_size=20))


def parts(starts, text):
    ends = [*starts[1:], None]
    return [text[begin:end].strip() for begin, end in zip(starts, ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("வணக்கம் உலகம்", ["வணக்கம்", "உலகம்"]),
        ("สวัสดี โลก", ["สวัสดี", "โลก"]),
        ("مَرْحَبًا بِكَ", ["مَرْحَبًا", "بِكَ"]),
        ('שָׁלוֹם צה"ל', ["שָׁלוֹם", 'צה"ל']),
        ("cafe\u0301 re\u0301sume\u0301 ok", ["cafe\u0301", "re\u0301sume\u0301", "ok"]),
        ("👨‍👩‍👧 hi 👍🏽", ["👨‍👩‍👧", "hi", "👍🏽"]),
        ("你好世界。한국어", ["你好世界", "。", "한국어"]),
        ("don't l’eau New-ish", ["don't", "l’eau", "New-ish"]),
        ("3.14 1,000 3rd x_1 555-12", ["3.14", "1,000", "3rd", "x_1", "555", "-", "12"]),
        ("Who: me?! «x»", ["Who", ":", "me", "?!", "«", "x", "»"]),
        ("co\u00adop a\u200bb", ["co\u00adop", "a", "\u200bb"]),
    ],
)
def test_words_by_hand(text, words):
    found = parts(word_starts(text), text)
    assert [word.strip("\u200b") for word in found] == [word.strip("\u200b") for word in words]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("यह काम है। वह घर है। ठीक है।", ["यह काम है।", "वह घर है।", "ठीक है।"]),
        ("یہ کام ہے۔ وہ گھر ہے۔", ["یہ کام ہے۔", "وہ گھر ہے۔"]),
        ("Բարև։ Լավ է։", ["Բարև։", "Լավ է։"]),
        ("كيف حالك؟ أنا بخير! نعم.", ["كيف حالك؟", "أنا بخير!", "نعم."]),
        ("1. three", ["1. three"]),
        ("At 3.5 p.m. it ends. No?", ["At 3.5 p.m. it ends.", "No?"]),
        ("日本。「はい。」と言った。", ["日本。", "「はい。」", "と言った。"]),
        ("你好?我很好!", ["你好?", "我很好!"]),
        ("Mr. Poe met J. Bonds. Oh… He left.", ["Mr. Poe met J. Bonds.", "Oh…", "He left."]),
        ("He said “Go?” (She went.)", ["He said “Go?”", "(She went.)"]),
        ("if a != b: see x.com/?q=1. Ok", ["if a != b: see x.com/?q=1.", "Ok"]),
        ("one\u2028two\r\n\nthree", ["one", "two", "three"]),
    ],
)
def test_sentences_by_hand(text, sentences):
    assert parts(sentence_starts(text), text) == sentences


@settings(max_examples=3 * settings.default.max_examples)
@given(TEXTS)
def test_no_word_or_sentence_begins_inside_a_character(text):
    clusters = {cluster.start() for cluster in regex.finditer(r"\X", text)}
    for starts in (word_starts(text), sentence_starts(text)):
        assert starts == sorted(set(starts))
        assert clusters.issuperset(starts)
        shown = [place for place, char in enumerate(text) if unicodedata.category(char)[0] in "LN"]
        assert not shown or starts[0] <= shown[0]


@given(st.text(st.sampled_from("aאнजா\u0301\u093e\u094d\u0e31ก\u064e\u05b8ا"), max_size=12))
def test_letters_and_marks_alone_are_one_word(text):
    assert len(word_starts(text)) == min(1, len(text))


@given(TEXTS, st.sampled_from(["word", "sentence"]))
def test_the_numbers_of_places_rise_by_at_most_one(text, units):
    numbers = unit_numbers(text, range(len(text)), units)
    assert all(0 <= b - a <= 1 for a, b in itertools.pairwise(numbers))


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        ("नमस्ते दुनिया", "नमस", []),
        ("नमस्ते दुनिया", "दुनिया", [(7, 13)]),
        ("cafe\u0301 cafe", "cafe", [(6, 10)]),
        ("我爱中国人", "中国", [(2, 4)]),
        ("สวัสดี", "สว", []),
        ("👩‍👧 👩", "👩", [(4, 5)]),
        ("can't can_do scan", "can", [(0, 3), (6, 9)]),
        ("a a a", "a a", [(0, 3), (2, 5)]),
        ("abc", "d", []),
    ],
)
def test_a_text_is_found_where_it_cuts_no_word(text, wanted, found):
    assert occurrences(text, wanted) == found
