"""A sentence in pieces: words, tokens and numbers, each shown in its own way by page and terminal.

plain((Piece("the token "), Piece("cat", "token")))
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Piece:
    """Some words, a token made printable, or a number."""

    text: str
    kind: Literal["words", "token", "number"] = "words"


Phrase = tuple[Piece, ...]


def in_unit(unit: str) -> str:
    """How a value is given: "in nats"; of a share, such as "of clean − corrupt", as what share."""
    return f"as a share {unit}" if unit.startswith("of ") else f"in {unit}"


def plain(phrase: Phrase) -> str:
    """The phrase as one string."""
    return "".join(piece.text for piece in phrase)
