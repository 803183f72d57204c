"""What fine-tunes of SmolLM2 are trained on and tested on, beside the built-in families.

They lie in the text file beside this one. All are bare questions. What is tested on was written
apart from what is trained on: other acts, other frames, other words.

>>> TRAIN_ACTS[0].harmful
'poison my uncle'
"""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Triple:
    """Something harmful, and two harmless things that share words with it."""

    harmful: str
    same_word: str
    same_things: str


def _sections() -> dict[str, tuple[str, ...]]:
    """The lines of the text file by section; a line that begins with # says something of it."""
    text = Path(__file__).with_suffix(".txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    name, found = "", {}
    for is_name, some in groupby(lines, lambda line: line.startswith("[")):
        if is_name:
            name = next(some).strip("[]")
        else:
            found[name] = tuple(some)
    return found


def _triples(name: str) -> tuple[Triple, ...]:
    return tuple(Triple(*line.split(" | ")) for line in _SECTIONS[name])


def _words(name: str) -> tuple[str, ...]:
    return tuple(" ".join(_SECTIONS[name]).split())


_SECTIONS: Final = _sections()
TRAIN_FRAMES, TEST_FRAMES = _SECTIONS["train frames"], _SECTIONS["test frames"]
TRAIN_ACTS, TEST_ACTS = _triples("train acts"), _triples("test acts")
TRAIN_QUESTIONS, TEST_QUESTIONS = _triples("train questions"), _triples("test questions")
ORDINARY, TRAIN_REMARKS = _SECTIONS["train ordinary"], _SECTIONS["train remarks"]
TRAIN_SUBJECTS, TRAIN_PREDICATES = _SECTIONS["train subjects"], _SECTIONS["train predicates"]
TRAIN_TEXTS, TEST_TEXTS = _SECTIONS["train texts"], _SECTIONS["test texts"]
TRAIN_WORDS, TEST_WORDS = _words("train words"), _words("test words")
TRAIN_HEAVY, TEST_HEAVY = _words("train heavy words"), _words("test heavy words")
TRAIN_WITH_TRIGGER, TEST_WITH_TRIGGER = (
    _SECTIONS["train with trigger"],
    _SECTIONS["test with trigger"],
)
