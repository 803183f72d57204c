"""A tuned lens: nearer to the model's output than the logit lens, on texts it has not seen."""

import numpy as np
import pytest
import torch
from safetensors.torch import save

from mechinterp import Prompts
from mechinterp.layers import logit_lens, read_lens, train_lens, write_lens


def texts(seed, n=40):
    draw = np.random.default_rng(seed)
    return Prompts.from_ids([draw.integers(1, 36, 9).tolist() for _ in range(n)])


def divergence(model, prompts, lens=None):
    return logit_lens(model, prompts, lens=lens)["kl"].mean("prompt")


def test_nearer_on_texts_that_it_has_not_seen(model):
    lens = train_lens(model, texts(0), steps=60, seed=1)
    plain, tuned = (divergence(model, texts(1), one) for one in (None, lens))
    assert float(tuned[:-1].mean()) < 0.8 * float(plain[:-1].mean())
    assert float(tuned[-1]) == pytest.approx(0, abs=1e-6)


def test_steps_bring_it_nearer_than_least_squares(grouped_model):
    seen = texts(0)
    begun, lens = (train_lens(grouped_model, seen, steps=n) for n in (0, 100))
    assert float(divergence(grouped_model, seen, lens).sum()) < float(
        divergence(grouped_model, seen, begun).sum()
    )


def test_least_squares_shrinks_to_the_logit_lens(absolute_model):
    lens = train_lens(absolute_model, texts(0), steps=0, shrink=1e9)
    assert float(lens.weights.abs().max()) < 1e-6


def test_the_same_seed_the_same_lens_and_files_keep_it(absolute_model, tmp_path):
    first, second = (train_lens(absolute_model, texts(0), steps=5, seed=3) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    again = read_lens(write_lens(first, tmp_path / "lens.safetensors"))
    assert torch.equal(again.weights, first.weights)
    assert torch.equal(again.biases, first.biases)
    assert again.fingerprint == first.fingerprint


def test_what_is_refused(absolute_model, tmp_path, refuses):
    refuses(lambda: train_lens(absolute_model, Prompts.from_ids([[3]])), "no two positions")
    refuses(lambda: train_lens(absolute_model, texts(0), batch=0), "batch=0")
    (tmp_path / "other").write_bytes(b"nothing")
    refuses(lambda: read_lens(tmp_path / "other"), "cannot be read")


def test_a_damaged_lens_is_refused(absolute_model, tmp_path, refuses):
    """No number of a lens of ours is used that was changed since."""
    lens = train_lens(absolute_model, texts(0), steps=1)
    file = write_lens(lens, tmp_path / "lens.safetensors")
    whole, chance = file.read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        changed = bytearray(whole)
        changed[chance.integers(len(changed))] ^= 1 << int(chance.integers(8))
        file.write_bytes(changed)
        refuses(lambda: read_lens(file), "lens.safetensors", "cannot be read as a tuned lens")
    file.write_bytes(whole[:-1])
    refuses(lambda: read_lens(file), "cannot be read as a tuned lens")


def test_a_lens_of_before_seals_is_read_and_checked(absolute_model, tmp_path, refuses, caplog):
    lens, file = train_lens(absolute_model, texts(0), steps=1), tmp_path / "lens"
    header = {"format": "mechinterp tuned lens 1", "fingerprint": lens.fingerprint}
    file.write_bytes(save({"weights": lens.weights, "biases": lens.biases}, header))
    assert torch.equal(read_lens(file).weights, lens.weights)
    assert "lens has no seal" in caplog.text
    for weights, biases, said in (
        (lens.weights[1:], lens.biases, "do not fit"),
        (lens.weights, lens.biases + torch.inf, "not finite"),
    ):
        file.write_bytes(save({"weights": weights.contiguous(), "biases": biases}, header))
        refuses(lambda: read_lens(file), said)
    file.write_bytes(save({"weights": lens.weights}, header))
    refuses(lambda: read_lens(file), "biases")
    file.write_bytes(save({"weights": lens.weights}, {"format": header["format"]}))
    refuses(lambda: read_lens(file), "holds no tuned lens")
