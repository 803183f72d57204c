"""Pieces of a prompt are the prompt; a word is marked only where it is a word of its own."""

from hypothesis import given
from hypothesis import strategies as st

from mechinterp.refusal import FlipSet
from mechinterp.report.refusal.marked import marked_words

TEXTS = st.text("ab .?-", max_size=12)


@given(TEXTS, st.lists(st.lists(TEXTS, min_size=1, max_size=3).map(tuple), max_size=3))
def test_the_pieces_are_the_prompt(prompt, sets):
    pieces = marked_words(prompt, [FlipSet(words, 1.0, -1.0) for words in sets])
    assert "".join(piece.text for piece in pieces) == prompt
    named = {word.strip().lower() for words in sets for word in words}
    assert all(piece.text.lower() in named for piece in pieces if piece.size)


def test_no_part_of_a_word_is_marked():
    sets = [FlipSet(("kill",), 1.0, -1.0), FlipSet(("now", "kill"), 1.0, -1.0)]
    pieces = marked_words("Kill skills? kill now", sets)
    assert [p.text for p in pieces if p.size == 1] == ["Kill", "kill"]
    assert [p.text for p in pieces if p.size == 2] == ["now"]
