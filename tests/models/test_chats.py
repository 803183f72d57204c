"""Chats in one form: what counts as a message, and what is refused with its number."""

import pytest

from mechinterp.models.chats import plain_messages, read_prompt

SAID = {"role": "user", "content": "Say hi"}


def test_parts_of_text_are_joined():
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "hi"}]
    assert plain_messages([SAID | {"content": parts}]) == [SAID]
    assert plain_messages([SAID | {"content": []}]) == [SAID | {"content": ""}]
    assert plain_messages([SAID | {"name": "Ada"}]) == [SAID | {"name": "Ada"}]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "user"}, 'message 1, .*: each message needs "role" and "content"'),
        ("hi", "message 1, 'hi': each message needs"),
        (SAID | {"role": 3}, 'message 1: its "role" is 3'),
        (SAID | {"content": None}, 'message 1: its "content" is None, not a text.* write ""'),
        (SAID | {"content": 4}, 'message 1: its "content" is 4, not a text'),
        (SAID | {"content": {"type": "text", "text": "a"}}, "message 1: its .content. is {"),
        (SAID | {"content": ["a"]}, "a part of its .content. is 'a', and only text"),
        (SAID | {"content": [{"type": "image", "url": "a.png"}]}, "only text can be read"),
        (SAID | {"content": [{"type": "text", "text": None}]}, "only text can be read"),
    ],
)
def test_what_is_refused_has_its_number(message, said):
    with pytest.raises(ValueError, match=said):
        plain_messages([SAID, message])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, '"prompt" is missing'),
        ({"prompt": None}, '"prompt" is None, neither a text nor a list'),
        ({"prompt": ""}, '"prompt" is empty'),
        ({"prompt": []}, '"prompt" is empty'),
        ({"prompt": [[SAID]]}, "message 0"),
    ],
)
def test_a_prompt_of_a_file(values, said):
    assert read_prompt({"prompt": "a"}, "prompt") == "a"
    assert read_prompt({"prompt": [SAID]}, "prompt") == [SAID]
    with pytest.raises(ValueError, match=said):
        read_prompt(values, "prompt")
