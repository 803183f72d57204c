"""Where words and sentences begin in a text of any script, by Unicode's rules (UAX 29).

>>> from mechinterp.attribution.question.boundaries import sentence_starts, word_starts
>>> text = "नमस्ते दुनिया! It isn't 3.14."
>>> [text[a:b] for a, b in zip(word_starts(text), [*word_starts(text)[1:], None])]
['नमस्ते ', 'दुनिया', '! ', 'It ', "isn't ", '3.14', '.']
>>> sentence_starts("1. three? यह काम है। वह घर है।")
[0, 10, 21]

The classes of characters are Unicode's, as the `regex` library has them. Where we depart from the
rules, it says so below. Source: Unicode Standard Annex 29, Text Segmentation, sections 4 and 5.
"""

import bisect
from collections.abc import Sequence

import regex

_CLUSTER = regex.compile(r"\X")

# What goes with the word or sentence that follows it: white space, and what is not seen.
_GAP = r"[\s\u200b\p{WB=Format}]"
_WORD_GAP = regex.compile(rf"(?:(?!\n){_GAP})*+")
_SENTENCE_GAP = regex.compile(rf"{_GAP}*+")

# A letter or a digit has its marks with it (WB4). Letters of scripts that are written without
# spaces stay together, since only a dictionary could divide them; a hyphen joins what follows a
# letter; a colon joins nothing; marks of punctuation that touch are one word, and so are line ends.
_LETTER = r"(?:(?=[\w--\p{N}])\X\p{WB=Format}*+)"
_DIGIT = r"(?:(?=\p{N})\X\p{WB=Format}*+)"
_IN_LETTERS = r"[[\p{WB=MidLetter}\p{WB=MidNumLet}\p{WB=Single_Quote}]--[:︓﹕：]]"  # WB6, WB7
_IN_HEBREW = r"(?<=\p{WB=Hebrew_Letter}\p{M}*)\"(?=\p{WB=Hebrew_Letter})"  # WB7b, WB7c
_IN_DIGITS = r"[\p{WB=MidNum}\p{WB=MidNumLet}\p{WB=Single_Quote}]"  # WB11, WB12
_WORD = regex.compile(
    rf"(?:{_LETTER}++(?:{_IN_LETTERS}(?={_LETTER})|[-‐‑'’](?=[\w\p{{N}}])|{_IN_HEBREW})?+"
    rf"|{_DIGIT}++(?:{_IN_DIGITS}(?={_DIGIT}))?+)++"
    rf"|(?:(?![\w\p{{N}}]|{_GAP})\X\p{{WB=Format}}*+)++"
    rf"|\n++",
    regex.V1,
)

# A full stop ends no sentence after a title or an initial; an ellipsis ends one as a stop does.
# What opens a quotation belongs to what follows. Without white space after it, no mark ends one
# before an ASCII character: addresses and code are full of such marks.
_NO_TITLE = r"(?<!\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|e\.g|i\.e|\p{Lu}\p{M}*))"
_MARKS = r"[\p{SB=Extend}\p{SB=Format}]*+"  # SB5
_END_MARK = r"[\p{SB=ATerm}\p{SB=STerm}…]"
_LINE_END = r"(?:\r\n|[\r\n\p{SB=Sep}])"
_CLOSE = r"(?:[\p{SB=Close}--[\p{Ps}\p{Pi}]]|\p{Pi}(?!\w))"
_CLOSED = rf"(?:{_CLOSE}{_MARKS})*+(?>(?:\p{{SB=Sp}}{_MARKS})++|(?![!-~]))"  # SB9, SB10
_GOES_ON = rf"(?!\p{{SB=SContinue}}|{_END_MARK})"  # SB8a
_SMALL_LETTER = (  # SB8
    rf"(?:(?!{_END_MARK}|{_LINE_END})[^\p{{SB=OLetter}}\p{{SB=Upper}}\p{{SB=Lower}}])*+"
    rf"\p{{SB=Lower}}"
)
_SENTENCE_END = regex.compile(
    rf"(?:{_NO_TITLE}[\p{{SB=ATerm}}…]{_MARKS}(?!\p{{SB=Numeric}}|\p{{SB=Upper}})"  # SB6, SB7
    rf"{_CLOSED}(?!{_SMALL_LETTER})|\p{{SB=STerm}}{_MARKS}{_CLOSED}){_GOES_ON}{_LINE_END}?"
    rf"|{_LINE_END}++",  # SB4
    regex.V1,
)

_BOUNDARY = regex.compile(r"(?w)\b")  # of words, by the annex alone
_IN_A_WORD = regex.compile(r"[\p{Alphabetic}\p{M}\p{N}\p{WB=Format}\p{Join_Control}]")


def word_starts(text: str) -> list[int]:
    """Where each word begins, behind the white space before it; a line end is a word."""
    return _whole(text, [found.start() for found in _WORD.finditer(text)])


def sentence_starts(text: str) -> list[int]:
    """Where each sentence begins, behind the white space before it."""
    ends = [0, *(found.end() for found in _SENTENCE_END.finditer(text))]
    starts = (_behind(_SENTENCE_GAP, text, end) for end in ends)
    return _whole(text, [start for start in starts if start < len(text)])


def unit_numbers(text: str, places: Sequence[int], units: str) -> list[int]:
    """The number of the "word" or "sentence" of each place in a text, in order.

    White space belongs to what follows it, but of words a line end is one.
    """
    words = units == "word"
    starts = word_starts(text) if words else sentence_starts(text)
    gap = _WORD_GAP if words else _SENTENCE_GAP
    return [bisect.bisect_right(starts, _behind(gap, text, place)) for place in places]


def occurrences(text: str, wanted: str) -> list[tuple[int, int]]:
    """Where a text occurs in another, as (begin, end), but not where it cuts a word at an end."""
    found, begin = [], text.find(wanted)
    if begin < 0:
        return []
    clusters = {cluster.start() for cluster in _CLUSTER.finditer(text)} | {len(text)}
    boundaries = {boundary.start() for boundary in _BOUNDARY.finditer(text)}

    def may_end(place: int) -> bool:
        before, after = text[place - 1 : place], text[place : place + 1]
        in_word = _IN_A_WORD.match(before) and _IN_A_WORD.match(after)
        return place in clusters and (place in boundaries or not in_word)

    while begin >= 0:
        end = begin + len(wanted)
        if may_end(begin) and may_end(end):
            found.append((begin, end))
        begin = text.find(wanted, begin + 1)
    return found


def _behind(gap: regex.Pattern[str], text: str, place: int) -> int:
    found = gap.match(text, place)
    return found.end() if found else place


def _whole(text: str, starts: Sequence[int]) -> list[int]:
    """The starts, each at the begin of its character, which may be white space with a mark."""
    clusters = [found.start() for found in _CLUSTER.finditer(text)]
    return sorted({clusters[bisect.bisect_right(clusters, start) - 1] for start in starts})
