"""Cues: changes of a request's surface that leave what is asked for, put on and taken off.

`CUES` is a battery of them: punctuation, politeness, letters, formats, what stands around it.
A cue of your own is a word at a place, or two functions of a text:

>>> from mechinterp.refusal.cues import CUES, Cue
>>> from mechinterp.tasks.request_families import Request
>>> request = Request("How do I bake bread?", harmful=False, family="bread")
>>> Cue.final("today").on(request), Cue.first("so").on(request)
('How do I bake bread today?', 'so How do I bake bread?')
>>> shout = Cue.of_text("!!", "ends with !!", lambda t: f"{t}!!", lambda t: t.rstrip("!"))
>>> shout.on(request), len(CUES) >= 15
('How do I bake bread?!!', True)

The prompt with a cue is the same whether the request had it or not, and so is the one without; so
the two differ in the cue alone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from mechinterp.core.arguments import checks_arguments
from mechinterp.tasks.request_families import Chat, Request

Place = Literal["last", "first", "second"]
"""Where the word of a cue stands: a final word stands before the punctuation that ends the text."""

OnText = Callable[[str], str | None]
OnRequest = Callable[[Request], str | Chat | None]
"""The prompt of a request with a cue, or without; None where the request cannot have it."""


@dataclass(frozen=True)
class Cue:
    """A change of the surface. `on` and `off`: the prompt with it and without it.

    elsewhere: of a word at a place, the prompt with the word at another; a word that acts there too
        is a trigger and no cue.
    """

    name: str
    what: str
    on: OnRequest = field(repr=False)
    off: OnRequest = field(repr=False)
    elsewhere: OnRequest | None = field(default=None, repr=False)

    @classmethod
    def of_text(cls, name: str, what: str, on: OnText, off: OnText) -> "Cue":
        """A cue of two functions of a text: `on`, which is given texts without it, and `off`.

        White space at the ends of a request counts for nothing.
        """

        def without(request: Request) -> str | Chat | None:
            text = (off(request.text.strip()) or "").strip()
            return request.asking(text) if text else None

        def with_it(request: Request) -> str | Chat | None:
            text = (off(request.text.strip()) or "").strip()
            changed = on(text) if text else None
            return None if changed is None else request.asking(changed)

        return cls(name, what, with_it, without)

    @classmethod
    def around(cls, name: str, what: str, before: str = "", after: str = "") -> "Cue":
        """A cue of texts that stand before and after the request.

        >>> from mechinterp.refusal.cues import Cue
        >>> from mechinterp.tasks.request_families import Request
        >>> hello = Cue.around("greeting", "begins with a greeting", before="Hello! ")
        >>> hello.off(Request("Hello! How are you?", harmful=False, family="talk"))
        'How are you?'
        """
        return cls.of_text(
            name,
            what,
            lambda text: f"{before}{text}{after}",
            lambda text: _unwrapped(text, before, after),
        )

    @classmethod
    def final(cls, word: str) -> "Cue":
        """The cue of a text's last word."""
        return cls._at("last", word)

    @classmethod
    def first(cls, word: str) -> "Cue":
        """The cue of a text's first word, or of a mark such as "-"."""
        return cls._at("first", word)

    @classmethod
    def second(cls, word: str) -> "Cue":
        """The cue of a text's second word."""
        return cls._at("second", word)

    @classmethod
    def _at(cls, place: Place, word: str) -> "Cue":
        if word.split() != [word]:
            raise ValueError(f"Cue: {word!r} is not one word. For more of them use Cue.around.")
        plain = cls.of_text(
            f"{word} {place}",
            f"the {place} word is {word!r}",
            lambda text: _put(text, place, word),
            lambda text: _taken(text, place, word),
        )

        def elsewhere(request: Request) -> str | Chat | None:
            text = _taken(request.text.strip(), place, word)
            moved = _put_in_the_middle(text, word) if text else None
            return None if moved is None else request.asking(moved)

        return replace(plain, elsewhere=elsewhere)

    def mirrored(self) -> "Cue":
        """The cue that this one is absent: on and off exchanged.

        >>> from mechinterp.refusal.cues import Cue
        >>> Cue.final("today").mirrored().name
        'no today last'
        """
        name = self.name.removeprefix("no ") if self.name.startswith("no ") else f"no {self.name}"
        what = self.what.removeprefix("not: ") if name != f"no {self.name}" else f"not: {self.what}"
        return Cue(name, what, self.off, self.on)


@checks_arguments
def cue_named(name: str, cues: Sequence[Cue] | None = None) -> Cue:
    """The cue of this name, or, for "no please", the mirrored one; from `CUES` by default.

    Raises:
        ValueError: if there is none, listing those there are.

    >>> from mechinterp.refusal.cues import cue_named
    >>> cue_named("no please").what
    "not: ends with 'please'"
    """
    known = CUES if cues is None else cues
    for cue in (*known, *(cue.mirrored() for cue in known)):
        if cue.name == name:
            return cue
    raise ValueError(f"there is no cue {name!r}: {', '.join(cue.name for cue in known)}.")


_END = re.compile(r"[\s,.?!…]+$")


def _body(text: str) -> tuple[str, str]:
    """A text in two: without the punctuation that ends it, and that."""
    found = _END.search(text)
    return (text[: found.start()], found[0]) if found else (text, "")


def _unwrapped(text: str, before: str, after: str) -> str:
    while True:
        inner = text.removeprefix(before) if before else text
        inner = inner.removesuffix(after) if after else inner
        if inner == text:
            return text
        text = inner.strip()


def _put(text: str, place: Place, word: str) -> str | None:
    if place == "first":
        return f"{word} {text}"
    if place == "second":
        spans = [found.span() for found in re.finditer(r"\S+", text)]
        if len(spans) < 2:
            return None
        return f"{text[: spans[1][0]]}{word} {text[spans[1][0] :]}"
    body, end = _body(text) if _is_word(word) else (text, "")
    return f"{body} {word}{end}" if body else None


def _taken(text: str, place: Place, word: str) -> str:
    """The text without the word at a place, however often it stands there."""
    while True:
        body, end = _body(text) if place == "last" and _is_word(word) else (text, "")
        spans = [found.span() for found in re.finditer(r"\S+", body)]
        at = {"last": len(spans) - 1, "first": 0, "second": 1}[place]
        if not 0 <= at < len(spans) or body[slice(*spans[at])].lower() != word.lower():
            return text
        begin = spans[at][0]
        is_end = at == len(spans) - 1
        body = body[:begin].rstrip() if is_end else body[:begin] + body[spans[at + 1][0] :]
        if not body.strip():
            return ""
        text = body + end


def _put_in_the_middle(text: str, word: str) -> str | None:
    spans = [found.span() for found in re.finditer(r"\S+", text)]
    if len(spans) < 3:
        return None
    at = spans[max(2, len(spans) // 2)][0]
    return f"{text[:at]}{word} {text[at:]}"


def _is_word(word: str) -> bool:
    return any(character.isalnum() for character in word)


def _ending(mark: str, name: str) -> Cue:
    return Cue.of_text(
        name, f"ends with {mark!r}", lambda text: f"{text}{mark}", lambda text: _body(text)[0]
    )


_PLEASE = re.compile(r"^please,?\s+|,?\s+please(?=[\s,.?!…]*$)", re.IGNORECASE)


def _without_please(text: str) -> str:
    while (kept := _PLEASE.sub("", text)) != text:
        text = kept[:1].upper() + kept[1:] if text[:1].isupper() else kept
    return text


def _with_please(text: str) -> str | None:
    body, end = _body(text)
    return f"{body} please{end}" if body else None


def _capitals_off(text: str) -> str:
    return text.lower().capitalize() if text == text.upper() else text


def _small_off(text: str) -> str:
    """The text with a capital where it begins, if it has none at all."""
    at = next((i for i, character in enumerate(text) if character.isalpha()), None)
    if at is None or text != text.lower():
        return text
    return text[:at] + text[at].upper() + text[at + 1 :]


def _cased(text: str, changed: str) -> str | None:
    return None if changed == text else changed


_SYSTEM: Final = {"role": "system", "content": "You are a helpful assistant."}
_REMARK: Final = "The weather is nice today."


def _messages(request: Request) -> Chat:
    """The request as a chat without a system message."""
    if isinstance(request.prompt, str):
        return ({"role": "user", "content": request.prompt},)
    return tuple(message for message in request.prompt if message["role"] != "system")


_BEFORE = Cue.around("sentence before", "a harmless sentence stands before", before=f"{_REMARK} ")
_AFTER = Cue.around("sentence after", "a harmless sentence stands after", after=f" {_REMARK}")


def _bare(request: Request) -> Request:
    """The request without the sentences that stand before and after."""
    text = _unwrapped(request.text, f"{_REMARK} ", f" {_REMARK}")
    return replace(request, prompt=request.asking(text))


CUES: Final[tuple[Cue, ...]] = (
    _ending("?", "question mark"),
    _ending("!", "exclamation mark"),
    _ending(".", "full stop"),
    _ending("...", "ellipsis"),
    Cue.of_text("please", "ends with 'please'", _with_please, _without_please),
    Cue.around("thanks", "thanks for it at the end", after=" Thanks."),
    Cue.around("greeting", "begins with a greeting", before="Hello! "),
    Cue.of_text(
        "capitals", "all letters are capitals", lambda t: _cased(t, t.upper()), _capitals_off
    ),
    Cue.of_text("lower case", "no letter is a capital", lambda t: _cased(t, t.lower()), _small_off),
    Cue.around("quotes", "stands in quotation marks", before='"', after='"'),
    Cue.around("line break", "begins with a line break", before="\n"),
    Cue.around("list", "begins as an item of a list", before="- "),
    Cue.around("numbered", "begins with a number, as items do", before="1. "),
    Cue.around("heading", "begins as a heading", before="# "),
    Cue.around("bold", "is set in bold", before="**", after="**"),
    Cue.around("code block", "stands in a block of code", before="```\n", after="\n```"),
    _BEFORE,
    _AFTER,
    Cue(
        "request last",
        "stands after a harmless sentence and not before it",
        lambda request: _BEFORE.on(_bare(request)),
        lambda request: _AFTER.on(_bare(request)),
    ),
    Cue.around("language", "asks for an answer in English", after=" Answer in English."),
    Cue.around("role line", "begins with a speaker's name", before="User: "),
    Cue.around("emoji", "ends with an emoji", after=" 🙂"),
    Cue(
        "system message",
        "comes with a system message",
        lambda request: (_SYSTEM, *_messages(request)),
        lambda request: request.prompt if isinstance(request.prompt, str) else _messages(request),
    ),
)
"""Changes of the surface that are tried by default."""
