"""A prompt in pieces, those marked that a smallest set of words holds.

>>> from mechinterp.refusal.findings import FlipSet
>>> from mechinterp.report.refusal.marked import marked_words
>>> bomb = FlipSet(("bomb",), 1.0, -1.0)
>>> [(piece.text, piece.size) for piece in marked_words("A bomb, now", [bomb])]
[('A ', 0), ('bomb', 1), (', now', 0)]
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mechinterp.refusal.findings import FlipSet


@dataclass(frozen=True)
class Marked:
    """A piece of a prompt. size: of the smallest set that holds it, in words; 0: of none."""

    text: str
    size: int


def marked_words(prompt: str, sets: Sequence[FlipSet]) -> list[Marked]:
    """The prompt in pieces; a word counts wherever it stands as a word of its own."""
    sizes: dict[str, int] = {}
    for one in sets:
        for word in one.words:
            key = word.strip().lower()
            if key:
                sizes[key] = min(len(one.words), sizes.get(key, len(one.words)))
    if not sizes:
        return [Marked(prompt, 0)]
    longest_first = sorted(sizes, key=lambda word: (-len(word), word))
    either = "|".join(map(re.escape, longest_first))
    pieces, end = [], 0
    for found in re.finditer(rf"(?<!\w)(?:{either})(?!\w)", prompt, re.IGNORECASE):
        if found.start() > end:
            pieces.append(Marked(prompt[end : found.start()], 0))
        size = sizes.get(found[0].lower(), 0)
        pieces.append(Marked(found[0], size))
        end = found.end()
    if end < len(prompt):
        pieces.append(Marked(prompt[end:], 0))
    return pieces
