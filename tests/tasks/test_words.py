import pytest

from mechinterp.tasks.words import continuation, distinct, listed, one_token, tokenized, where


def test_words_of_several_tokens_are_left_out(model, said):
    found = one_token(model, "example", "names", ("John", "Mary", "Tom", "Xyzzy"), 2)
    assert list(found) == ["John", "Tom"]
    for word, token in found.items():
        assert model.tokenizer.decode([token]) == f" {word}"
        assert model.tokenizer(f"and {word}")["input_ids"][-1] == token


def test_unknown_words_are_left_out(words):
    found = one_token(words, "example", "names", ("John", "Xyzzy", "Mary"), 2)
    assert found == {w: words.tokenizer.convert_tokens_to_ids(w) for w in ("John", "Mary")}


def test_too_few_words(words, refuses):
    names = ("John", "Xyzzy", "Plugh")
    refuses(
        lambda: one_token(words, "example", "names", names, 2),
        "example: of its 3 names only 1 are single tokens",
        "2 are needed",
        "larger vocabulary",
        kind=ValueError,
    )


def test_continuation(digits, words):
    assert digits.tokenizer.decode(continuation(digits, " John", "year")) == " John"
    assert len(continuation(digits, " 1732", "year")) == 5  # the space, and four digits
    assert continuation(words, "s", "year") is None  # "years" is one word
    words.tokenizer.backend_tokenizer.model.unk_token = "gone"
    try:
        assert continuation(words, " Xyzzy") is None
    finally:
        words.tokenizer.backend_tokenizer.model.unk_token = "<unk>"


def test_prompts_with_unknown_words(words, refuses):
    refuses(
        lambda: tokenized(words, "example", ["the year", "the zebra year"]),
        "example: this model's tokenizer does not know a word of 'the zebra year'",
        kind=ValueError,
    )
    assert len(tokenized(words, "example", ["the year"])) == 1


def test_where(words, refuses):
    prompts = tokenized(words, "example", ["the year the", "year the the"])
    the, year = (words.tokenizer.convert_tokens_to_ids(w) for w in ("the", "year"))
    assert where(prompts, [the, year]) == [1, 1]
    assert where(prompts, [the, the], 1) == [3, 3]
    refuses(lambda: where(prompts, [the, year], 1), "prompt 1 has 'year'", "at [1]", "2 times")


def test_distinct_gives_all_that_there_are(refuses):
    picks = iter([3, 1, 3, 3, 2, 1, 0])
    assert distinct("example", 4, 4, lambda: next(picks)) == [3, 1, 2, 0]
    refuses(lambda: distinct("example", 5, 4, lambda: 0), "example: n=5", "Ask for 1 to 4.")


@pytest.mark.parametrize("text", ["a bc  d", " a bc d "])
def test_listed(text):
    assert listed(text) == ("a", "bc", "d")
