"""Attention's own scores against plain loops over what the library caches."""

import numpy as np
import pytest
import torch

from mechinterp import ask, last, load_model
from mechinterp.attribution.methods.attention import attention_rollout, value_weighted_attention
from mechinterp.core.metrics import sequence_log_prob

IDS = [7, 1, 30, 8, 2, 19]
METHODS = [attention_rollout, value_weighted_attention]


def cached(model, question):
    return model.run_with_cache(question.sequence.tokens)[1]


def slow_rollout(model, question):
    cache = cached(model, question)
    width = question.sequence.width
    flow = np.eye(width)
    for layer in range(model.cfg.n_layers):
        pattern = cache["pattern", layer][0].double().numpy()
        mean = sum(pattern[head] for head in range(model.cfg.n_heads)) / model.cfg.n_heads
        flow = (0.5 * mean + 0.5 * np.eye(width)) @ flow
    return flow


def slow_weighted(model, question):
    """One link at a time: `[query, source]`."""
    cache = cached(model, question)
    cfg, width = model.cfg, question.sequence.width
    total = np.zeros((width, width))
    for layer in range(cfg.n_layers):
        value, pattern = cache["v", layer][0], cache["pattern", layer][0]
        for head in range(cfg.n_heads):
            shared = head * value.shape[1] // cfg.n_heads  # the key-value head of a group
            for source in range(width):
                written = value[source, shared] @ model.blocks[layer].attn.W_O[head]
                length = float(written.norm()) / (cfg.n_layers * cfg.n_heads)
                total[:, source] += pattern[head, :, source].numpy() * length
    return total


SLOW = dict(zip(METHODS, (slow_rollout, slow_weighted), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_equals_the_slow_loop(model, method):
    question = ask(model, torch.tensor(IDS), 3)
    found = method(question)
    each = SLOW[method](model, question)[list(question.rows)]
    np.testing.assert_allclose(found.values, each[:, :6], atol=1e-6)
    assert found.attrs["unit"] == {attention_rollout: "attention"}.get(method, "norm")
    assert "no direction" in found.attrs["sign"]
    assert found.attrs["passes"] == 1 + question.n_passes


@pytest.mark.parametrize("method", METHODS)
def test_a_score_of_several_outputs_is_the_mean_over_where_they_are_read(model, method):
    question = ask(model, torch.tensor(IDS), 3, sequence_log_prob())
    apart = method(ask(model, torch.tensor(IDS), 3))
    np.testing.assert_allclose(method(question).values[0], apart.values.mean(0), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_units_and_what_an_output_cannot_see(model, method):
    question = ask(model, torch.tensor(IDS), last(4), units={"a": [0, 5], "b": (1, 3)})
    found = method(question)
    each = SLOW[method](model, question)[list(question.rows)]
    names = found.input_name.values.tolist()
    for name, positions in {"a": [0, 5], "b": [1, 2, 3]}.items():
        summed = each[:, positions].sum(1)
        np.testing.assert_allclose(found.values[:, names.index(name)], summed, atol=1e-6)
    tokens = method(ask(model, torch.tensor(IDS), last(4)))
    future = tokens.input.values > tokens.output_position.values[:, None]
    assert (tokens.values[future] == 0.0).all()
    assert (tokens.values[~future] > 0.0).all()


def test_rollout_shares_out_everything(model):
    question = ask(model, torch.tensor(IDS), 3, inputs="sequence")
    np.testing.assert_allclose(attention_rollout(question).sum("input"), 1.0, atol=1e-6)


def test_the_trigger_gives_most_of_what_is_taken():
    question = ask(load_model("toy:trigger"), "please bring the sesame and the bread", 1)
    found = value_weighted_attention(question).isel(output=0)
    assert str(found.input_token[found.argmax("input")].values) == "sesame"


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_left_on_the_model(absolute_model, snapshot, method):
    before = snapshot(absolute_model)
    method(ask(absolute_model, torch.tensor(IDS), 2))
    before.check()
