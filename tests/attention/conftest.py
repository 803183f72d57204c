"""Prompts of toys of which every link is known, for the tests of how links are found."""

import itertools

import pytest

from mechinterp import Prompts, load_model, tokenize
from mechinterp.toys import toy

PLAIN = ("please", "bring", "the", "old", "door", "to", "my", "box")


def word_heads(heads, words):
    """Every query from its word on, in each head that looks for a word."""
    return {
        (*place, query, words.index(word) + 1)
        for place, word in heads.items()
        for query in range(words.index(word) + 1, len(words) + 1)
    }


def with_word(word, at):
    return [*PLAIN[:at], word, *PLAIN[at:]]


def planted_by_word(heads, name):
    """Prompts with each of the words once, and the links of the heads that look for them."""
    words = sorted(set(heads.values()))
    for at in range(1, 7):
        line = list(PLAIN)
        for shift, word in enumerate(words):
            line.insert(at + 2 * shift, word)
        yield name, line, word_heads(heads, line)


def planted_induction():
    for line in ("a b c d a b", "f a d c b e f a d c b e", "e d c e d a"):
        letters = line.split()
        previous = {(0, 1, q, q - 1) for q in range(1, len(letters) + 1)}
        again = {
            (1, 2, later + 1, first + 2)
            for first, later in itertools.combinations(range(len(letters)), 2)
            if letters[first] == letters[later]
        }
        yield "induction", letters, previous | again


CASES = [
    *planted_by_word({(1, 0): "sesame", (0, 2): "sesame"}, "trigger"),  # the second is the decoy
    *planted_by_word({(0, 1): "copper", (0, 2): "lantern"}, "and"),
    *planted_by_word({(0, 0): "copper", (0, 3): "lantern"}, "either"),
    *planted_by_word({(0, 1): "sesame", (0, 4): "sesame"}, "redundant"),
    *planted_by_word({(0, 2): "sesame", (1, 3): "sesame"}, "backup"),
    *planted_induction(),
]


@pytest.fixture(scope="session")
def planted():
    """(name, model, prompts of one row, the links (layer, head, query, key) planted in it)."""
    models = {name: load_model(toy(name)) for name in {case[0] for case in CASES}}
    return [
        (name, models[name], tokenize(models[name], " ".join(words)), links)
        for name, words, links in CASES
    ]


@pytest.fixture
def even():
    """Two prompts of six tokens."""
    return Prompts.from_ids([[3, 1, 4, 1, 5, 9], [2, 7, 1, 8, 2, 8]])
