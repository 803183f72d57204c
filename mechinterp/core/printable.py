r"""Text that is not ours, made visible: the one escape that every terminal and page goes through.

Names, tokens, contents of files and other people's error messages may hold characters that act
instead of being read: an escape sequence, a change of writing direction, an invisible letter. They
come out as their codes. Joiners stay where a script or an emoji needs them.

>>> from mechinterp.core.printable import escape, printable
>>> escape("red \x1b[31m and \u202eback")
'red \\x1b[31m and \\u202eback'
>>> printable("one\ntwo\x07")
'one\ntwo\\x07'
"""

import unicodedata

_MARKS = {"\n": "↵", "\t": "⇥"}
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_JOINER = "\u200d"
_JOINERS = ("\u200c", _JOINER)
_INVISIBLE = frozenset(  # of other categories: fillers, selectors, and what Unicode keeps for them
    number
    for first, last in (
        (0x034F, 0x034F),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x2065, 0x2065),
        (0x2800, 0x2800),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0D),
        (0xFFA0, 0xFFA0),
        (0xFFF0, 0xFFF8),
        (0xE0000, 0xE0FFF),
    )
    for number in range(first, last + 1)
)
_VIRAMA = 9
"""The combining class of the sign after which an Indic script uses joiners."""


def escape(text: str) -> str:
    """The text on one line with newline, tab and every hidden character made visible."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in _JOINERS and _joins(text, place) else _visible(char)
        for place, char in enumerate(text)
    )


def printable(text: str) -> str:
    """The same with its line breaks: each line as `escape` gives it."""
    return "\n".join(map(escape, text.split("\n")))


def _joins(text: str, place: int) -> bool:
    """Whether a joiner stands where a script or an emoji needs one."""
    if not 0 < place < len(text) - 1:
        return False
    before, after = text[place - 1], text[place + 1]
    if _VIRAMA in (unicodedata.combining(before), unicodedata.combining(after)):
        return True
    if text[place] == _JOINER and unicodedata.category(after) == "So":
        return unicodedata.category(before) in ("So", "Sk") or before == "\ufe0f"
    cursive = (unicodedata.bidirectional(char) in ("AL", "NSM") for char in (before, after))
    return all(cursive)


def _visible(char: str) -> str:
    if char in _MARKS:
        return _MARKS[char]
    category = unicodedata.category(char)
    is_odd_space = category == "Zs" and char != " "
    if category in _HIDDEN or is_odd_space or ord(char) in _INVISIBLE:
        return _code(char)
    return char


def _code(char: str) -> str:
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
