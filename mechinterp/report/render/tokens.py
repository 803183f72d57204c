r"""Tokens made printable: what a reader must see of a token, with nothing hidden in it.

Not a tokenizer, and no HTML or terminal markup: a page or a terminal adds its own. Everything that
could act instead of being read (an ANSI escape, a change of writing direction, an invisible tag
character) comes out as its code.

    show(" Mary") == "␣Mary"
    show("\x1b[31m") == r"\x1b[31m"
"""

import unicodedata

SPACE = "␣"
_MARKS = {"\n": "↵", "\t": "⇥"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"


def show(token: str) -> str:
    """A token on one line: end spaces as `␣`, newline `↵`, tab `⇥`, hidden ones as codes.

    One without text, which holds the rest of a character begun before it, as "(rest)".
    """
    core = token.strip(" ")
    if not core:
        return SPACE * len(token) or "(rest)"
    before = len(token) - len(token.lstrip(" "))
    after = len(token) - len(token.rstrip(" "))
    return SPACE * before + escape(core) + SPACE * after


def escape(text: str) -> str:
    """The text on one line with newline, tab and every hidden character made visible."""
    last = len(text) - 1
    return "".join(
        char if char in _JOINERS and 0 < index < last else _visible(char)
        for index, char in enumerate(text)
    )


def shorten(shown: str, most: int = 48) -> str:
    """What is shown, its middle left out where it is longer than `most` characters."""
    if len(shown) <= most:
        return shown
    end = most // 3
    return f"{shown[: most - end - 3].rstrip()} … {shown[-end:].lstrip()}"


def flow(token: str) -> str:
    """A token as it stands in running text: spaces stay, a newline shows and breaks the line."""
    if not token.strip(" "):
        return show(token)
    return "↵\n".join(escape(line) for line in token.split("\n"))


def _visible(char: str) -> str:
    if char in _MARKS:
        return _MARKS[char]
    category = unicodedata.category(char)
    is_odd_space = category == "Zs" and char != " "
    is_selector = 0xE0100 <= ord(char) <= 0xE01EF  # invisible, and known to carry smuggled text
    if category in _HIDDEN or is_odd_space or is_selector:
        return _code(char)
    return char


def _code(char: str) -> str:
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
