import pytest
import torch

from mechinterp import load_model, run
from mechinterp.tasks.induction import repeated_tokens


def test_a_block_twice_less_its_last_token(model):
    made = repeated_tokens(model, n=20, length=7)
    tokens = made.pair.clean.tokens
    assert tokens.shape == (20, 1 + 7 + 6)
    assert torch.equal(tokens[:, 1:7], tokens[:, 8:])
    assert torch.equal(tokens[:, 7], made.answers)
    assert all(len(set(row[1:8])) == 7 for row in tokens.tolist())
    rows = torch.arange(20)
    first, after, end = (made.pair.clean.positions(p) for p in ("first", "induction", "end"))
    assert torch.equal(tokens[rows, first], tokens[rows, end])
    assert torch.equal(tokens[rows, after], made.answers)
    assert torch.equal(after, first + 1)
    assert end.tolist() == [13] * 20


def test_nothing_is_repeated_in_the_corrupt_prompts(model):
    made = repeated_tokens(model, n=20, length=7)
    corrupt = made.pair.corrupt.tokens
    assert all(len(set(row)) == 14 for row in corrupt.tolist())
    assert not bool((corrupt == made.answers[:, None]).any())
    assert made.pair.differ.tolist() == [[False] + [True] * 7 + [False] * 6] * 20
    assert torch.equal(
        corrupt[torch.arange(20), made.pair.corrupt.positions("induction")], made.others
    )


def test_special_tokens_and_rows_without_a_token_are_left_out(no_tokenizer, digits):
    padded = no_tokenizer(300)
    padded.tokenizer = load_model("toy:induction").tokenizer  # 26 letters and <bos>, id 0
    padded.tokenizer.add_special_tokens({"additional_special_tokens": ["<x>"]})
    padded.cfg.default_prepend_bos = True
    made = repeated_tokens(padded, n=200, length=13)
    assert set(made.pair.clean.tokens[:, 1:].flatten().tolist()) == set(range(1, 27))
    assert set(made.pair.corrupt.tokens[:, 1:].flatten().tolist()) == set(range(1, 27))
    assert set(made.pair.clean.tokens[:, 0].tolist()) == {0}


def test_without_a_tokenizer_all_that_there_are(no_tokenizer, refuses):
    model = no_tokenizer(4)
    made = repeated_tokens(model, n=12, length=2)
    blocks = {tuple(row[:2]) for row in made.pair.clean.tokens.tolist()}
    assert blocks == {(a, b) for a in range(4) for b in range(4) if a != b}
    assert made.pair.clean.tokens.shape == (12, 3)
    assert made.pair.clean.roles[0] == ("text",) * 3
    refuses(lambda: repeated_tokens(model, n=13, length=2), "induction: n=13", "Ask for 1 to 12")


@pytest.mark.parametrize("length", [1, 0, -2, 3])
def test_lengths_that_do_not_fit_the_vocabulary(length, no_tokenizer, refuses):
    model = no_tokenizer(5)
    refuses(lambda: repeated_tokens(model, length=length), f"length={length}", "from 2 to 2")


def test_longer_than_the_context(digits, refuses):
    refuses(lambda: repeated_tokens(digits, length=61), "122 tokens", "context of 120")
    assert repeated_tokens(digits, n=1, length=60).pair.clean.width == 120


def test_the_metric_is_the_log_probability(model, measured):
    made = repeated_tokens(model, n=6)
    value, logits = measured(made, model)
    expected = logits.double().log_softmax(-1)[torch.arange(6), made.answers]
    torch.testing.assert_close(value, expected)
    assert made.metric.unit == "nats"


@pytest.mark.parametrize("toy", ["toy:induction", "toy:induction-trained"])
def test_models_that_do_induction(toy):
    model = load_model(toy)
    made = repeated_tokens(model, n=32)
    clean, corrupt = (made.metric(run(model, s)) for s in (made.pair.clean, made.pair.corrupt))
    assert bool((clean.exp() > 0.5).all())
    assert bool((corrupt.exp() < 0.5).all())
    top = run(model, made.pair.clean).logits[:, 0].argmax(-1)
    assert torch.equal(top, made.answers)
