import pytest

from mechinterp.tasks.words import (
    continuation_ids,
    draw_distinct,
    positions_of,
    single_token_ids,
    split_words,
    tokenize_known,
)


def test_words_of_several_tokens_are_left_out(model, said):
    found = single_token_ids(model, "example", "names", ("John", "Mary", "Tom", "Xyzzy"), 2)
    assert list(found) == ["John", "Tom"]
    for word, token in found.items():
        assert model.tokenizer.decode([token]) == f" {word}"
        assert model.tokenizer(f"and {word}")["input_ids"][-1] == token


def test_unknown_words_are_left_out(words):
    found = single_token_ids(words, "example", "names", ("John", "Xyzzy", "Mary"), 2)
    assert found == {w: words.tokenizer.convert_tokens_to_ids(w) for w in ("John", "Mary")}


def test_too_few_words(words, refuses):
    names = ("John", "Xyzzy", "Plugh")
    refuses(
        lambda: single_token_ids(words, "example", "names", names, 2),
        "example: of its 3 names only 1 are single tokens",
        "2 are needed",
        "larger vocabulary",
        kind=ValueError,
    )


def test_continuation(digits, words):
    assert digits.tokenizer.decode(continuation_ids(digits, " John", "year")) == " John"
    assert len(continuation_ids(digits, " 1732", "year")) == 5  # the space, and four digits
    assert continuation_ids(words, "s", "year") is None  # "years" is one word
    words.tokenizer.backend_tokenizer.model.unk_token = "gone"
    try:
        assert continuation_ids(words, " Xyzzy") is None
    finally:
        words.tokenizer.backend_tokenizer.model.unk_token = "<unk>"


def test_prompts_with_unknown_words(words, refuses):
    refuses(
        lambda: tokenize_known(words, "example", ["the year", "the zebra year"]),
        "example: this model's tokenizer does not know a word of 'the zebra year'",
        kind=ValueError,
    )
    assert len(tokenize_known(words, "example", ["the year"])) == 1


def test_where(words, refuses):
    prompts = tokenize_known(words, "example", ["the year the", "year the the"])
    the, year = (words.tokenizer.convert_tokens_to_ids(w) for w in ("the", "year"))
    assert positions_of(prompts, [the, year]) == [1, 1]
    assert positions_of(prompts, [the, the], 1) == [3, 3]
    refuses(
        lambda: positions_of(prompts, [the, year], 1), "prompt 1 has 'year'", "at [1]", "2 times"
    )


def test_distinct_gives_all_that_there_are(refuses):
    picks = iter([3, 1, 3, 3, 2, 1, 0])
    assert draw_distinct("example", 4, 4, lambda: next(picks)) == [3, 1, 2, 0]
    refuses(lambda: draw_distinct("example", 5, 4, lambda: 0), "example: n=5", "Ask for 1 to 4.")


@pytest.mark.parametrize("text", ["a bc  d", " a bc d "])
def test_listed(text):
    assert split_words(text) == ("a", "bc", "d")
