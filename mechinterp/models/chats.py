"""Chats: lists of messages with a role and a content, checked and brought into one form.

>>> from mechinterp.models.chats import plain_messages
>>> plain_messages([{"role": "user", "content": [{"type": "text", "text": "Say hi"}]}])
[{'role': 'user', 'content': 'Say hi'}]

Where the contents stand among the tokens is found by `tokenize`.
"""

from collections.abc import Mapping, Sequence

Messages = Sequence[Mapping[str, object]]
"""Messages, each with a "role", and a "content" that is a text or a list of parts of text."""

PlainMessages = list[dict[str, object]]
"""Messages whose contents are texts."""


def read_prompt(values: Mapping[str, object], key: str) -> str | PlainMessages:
    """The prompt under a key of an object in a file: a text, or a chat.

    Raises:
        ValueError: if it is missing or empty, or neither a text nor a list of messages.
    """
    if key not in values:
        raise ValueError(f'"{key}" is missing: a text, or a list of messages.')
    prompt = values[key]
    if not isinstance(prompt, str | list):
        raise ValueError(f'"{key}" is {prompt!r}, neither a text nor a list of messages.')
    if not prompt:
        raise ValueError(f'"{key}" is empty: give a text, or a list of messages.')
    return prompt if isinstance(prompt, str) else plain_messages(prompt)


def plain_messages(messages: Sequence[object]) -> PlainMessages:
    """The messages, the content of each as one text: parts of text are joined, as templates do.

    Raises:
        ValueError: if a message has no role or no content, or a content that is not text.
    """
    return [_plain(message, number) for number, message in enumerate(messages)]


def _plain(message: object, number: int) -> dict[str, object]:
    if not isinstance(message, Mapping) or not set(message) >= {"role", "content"}:
        raise ValueError(f'message {number}, {message!r}: each message needs "role" and "content".')
    if not isinstance(message["role"], str):
        raise ValueError(f'message {number}: its "role" is {message["role"]!r}, not a text.')
    return {**message, "content": _content(message["content"], number)}


def _content(content: object, number: int) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        null = ' For a message without text write "".' if content is None else ""
        raise ValueError(f'message {number}: its "content" is {content!r}, not a text.{null}')
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str) or part.get("type") != "text":
            raise ValueError(
                f'message {number}: a part of its "content" is {part!r}, and only text can be '
                f'read: {{"type": "text", "text": "..."}}.'
            )
        texts.append(text)
    return "".join(texts)
