"""The one escape: whatever acts instead of being read comes out as its code."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.core.printable import escape, printable

HIDDEN = {
    "OSC title": "\x1b]0;owned\x07",
    "OSC link": "\x1b]8;;http://x\x1b\\here\x1b]8;;\x1b\\",
    "CSI colour": "\x1b[31m",
    "CSI clear": "\x1b[2J",
    "C1 CSI": "\x9b31m",
    "C1 OSC": "\x9d0;owned\x9c",
    "DCS": "\x90q",
    "carriage return": "real\rfake",
    "backspace": "a\b",
    "bell": "\x07",
    "null": "\x00",
    "delete": "\x7f",
    "form feed": "\x0c",
    "next line": "\x85",
    "line separator": "\u2028",
    "right-to-left override": "\u202e",
    "isolate": "\u2066",
    "mark": "\u200f",
    "zero width space": "\u200b",
    "zero width joiner between letters": "a\u200db",
    "zero width non-joiner between letters": "a\u200cb",
    "word joiner": "\u2060",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "grapheme joiner": "\u034f",
    "filler": "\u3164",
    "blank": "\u2800",
    "selector": "\ufe00",
    "tag": "\U000e0041",
    "late selector": "\U000e0100",
    "surrogate": "\ud800",
}


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
def test_what_acts_or_hides_is_a_code(text):
    hidden = [c for c in text if not c.isprintable() or c in "\u3164\u2800\u034f\ufe00\U000e0100"]
    shown = escape(f"before{text}after")
    assert hidden
    assert not set(hidden) & set(shown)
    assert shown.startswith("before")
    assert shown.endswith("after")


NEEDED = [
    "👩\u200d🚀",
    "❤\ufe0f\u200d🔥",
    "می\u200cخواهم",
    "ക\u0d4d\u200d",
    "क\u094d\u200dष",
    "héllo wörld",
    "שלום",
    "↵",
]


@pytest.mark.parametrize("text", NEEDED)
def test_what_scripts_and_emoji_need_stays(text):
    assert escape(f"{text}.") == f"{text}."


@given(st.text())
def test_shown_text_holds_nothing_hidden_and_is_shown_as_it_is(text):
    shown = printable(text)
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\xa0\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown
    )
    assert printable(shown) == shown
