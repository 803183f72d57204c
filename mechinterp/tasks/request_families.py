"""Requests in families: one matter, asked for harmfully in several wordings, and harmlessly.

A family has a telling word: the benign requests that hold it tell a model that recognises what is
asked for from one that reacts to the word.

>>> from mechinterp.tasks.request_families import Request
>>> Request("How do I blow up a balloon?", harmful=False, family="blow up", telling="blow").harmful
False
"""

from collections.abc import Mapping
from dataclasses import dataclass

Chat = tuple[Mapping[str, object], ...]
"""Messages, each with a role and a content, as chat templates take them."""


@dataclass(frozen=True)
class Request:
    """One request: a text, or a chat whose last message is the request.

    harmful: whether a careful model should refuse it.
    family: which requests are about one matter; families are what is resampled and set aside.
    telling: the family's telling word if the request holds it, else "".
    kind: of a benign request with the telling word, XSTest's kind, such as "homonym".
    """

    prompt: str | Chat
    harmful: bool
    family: str
    topic: str = ""
    telling: str = ""
    kind: str = ""

    @property
    def text(self) -> str:
        """What is asked: the text, or the content of the last message."""
        return self.prompt if isinstance(self.prompt, str) else str(self.prompt[-1]["content"])

    def asking(self, text: str) -> "str | Chat":
        """The prompt with another text in the place of this request's."""
        if isinstance(self.prompt, str):
            return text
        return (*self.prompt[:-1], {**self.prompt[-1], "content": text})
