"""What a prompt and its continuation are together, by a tokenizer small enough to see through."""

import json
import warnings

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mechinterp import ask, attribute, load_model, tokenize
from mechinterp.core.prompts import Prompts
from mechinterp.models.continuations import joined_otherwise
from mechinterp.tasks.pair_files import read_pairs


@pytest.fixture
def spaced(tiny):
    """A model whose tokenizer joins a space with the letter after it, and a with b."""
    merges = [("i", "s"), ("Ġ", "a"), ("Ġ", "b"), ("Ġ", "is"), ("a", "b")]
    pieces = ["Ġ", *"abis", *("".join(pair) for pair in merges)]
    made = Tokenizer(models.BPE({piece: at for at, piece in enumerate(pieces)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    model = tiny("absolute")
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    return model


@pytest.mark.parametrize(
    ("prompt", "text", "apart", "together"),
    [
        ("a is ", "b", "[' ', 'b']", "[' b']"),
        ("a is", "b", None, None),
        ("a is", " b", None, None),
        ("b a", "b", "[' a', 'b']", None),
        ("b a", " b", None, None),
        ("a", "b", "['a', 'b']", "['ab']"),
        ("a i", "s", "[' ', 'i', 's']", "[' is']"),
    ],
)
def test_a_seam_that_the_tokenizer_would_close_is_said(spaced, prompt, text, apart, together):
    said = joined_otherwise(spaced, tokenize(spaced, prompt), text)
    if together is None:
        assert said is None
        return
    assert f"the tokens {apart} would be {together} if both were one text" in said
    with pytest.warns(UserWarning, match="is not what the model has seen after this prompt"):
        ask(spaced, prompt, text)


def test_nothing_is_said_of_token_ids_or_of_words(spaced):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask(spaced, "a is ", [2])
        trigger = load_model("toy:trigger")
        attribute(trigger, "bring the sesame", "REFUSE", metric=None)
        by_hand = Prompts.from_ids([[1, 2, 3]], decode=str)  # a and b, which are one token as text
        assert joined_otherwise(spaced, by_hand, "b") is None


def test_answers_of_a_file_of_pairs(spaced, tmp_path):
    good = {"clean": "a is", "corrupt": "b is", "answer": " b"}
    wrong = {"clean": "a is ", "corrupt": "b is ", "answer": "b"}
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, [good, wrong, wrong])))
    with pytest.warns(UserWarning, match=r"pairs.jsonl, line 2 and 1 more: 'b' is not") as caught:
        read_pairs(spaced, file)
    assert len(caught) == 1


def test_the_capital_of_france(smollm2):
    with pytest.warns(UserWarning, match=r"the tokens \[' ', 'Paris'\] would be \[' Paris'\]"):
        apart = ask(smollm2, "The capital of France is ", "Paris").scores
    joined = ask(smollm2, "The capital of France is", " Paris").scores
    assert apart == pytest.approx(-6.93, abs=0.01)
    assert joined == pytest.approx(-0.22, abs=0.01)
