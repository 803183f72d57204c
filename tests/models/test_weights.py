"""Weights by what they do, and copies whose weights are their own."""

import torch

from mechinterp import models


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_the_mean_embedding(model):
    expected = model.W_E.mean(0)
    if model.cfg.post_embedding_ln:
        expected = model.embed(torch.arange(model.cfg.d_vocab)[None])[0].mean(0)
    close(models.mean_embedding(model), expected)


def test_every_weight_is_in_one_part(model):
    parts = models.weights_by_part(model)
    layers = [f"L{layer}" for layer in reversed(range(model.cfg.n_layers))]
    assert list(parts) == ["unembed", *layers, "embed"]
    given = [id(weight) for weights in parts.values() for weight in weights]
    assert sorted(given) == sorted(map(id, model.parameters()))


def test_a_copy_is_shuffled_and_the_model_stays(absolute_model):
    before = models.fingerprint(absolute_model)
    copied = models.copy_model(absolute_model)
    assert models.fingerprint(copied) == before
    assert copied.tokenizer is absolute_model.tokenizer
    weights = models.weights_by_part(copied)["L0"]
    sums = [float(weight.double().sum()) for weight in weights]
    models.shuffle_weights(weights, [3])
    close([float(weight.double().sum()) for weight in weights], sums)
    assert models.fingerprint(copied) != before
    assert models.fingerprint(absolute_model) == before
