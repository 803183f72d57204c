"""What is said of a model: its sizes, its processing, its fingerprint, its hooks."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mechinterp import load_model, models

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def test_the_size_in_words(absolute_model, grouped_model):
    size = models.size(absolute_model)
    assert size == "3 layers, 4 heads, d_model 20, vocabulary 37, context 17"
    assert "6 (2 key-value) heads" in models.size(grouped_model)


def test_the_processing_in_words(original):
    raw, folded = (load_model(original, weights=w) for w in ("raw", "folded"))
    assert models.processing(raw) == "norm LN not folded, unembedding not centred"
    assert models.processing(folded) == "norms folded, unembedding centred"
    llama = LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=1,
            hidden_size=12,
            num_attention_heads=3,
            intermediate_size=20,
            vocab_size=17,
        )
    )
    assert models.processing(load_model(llama)) == "norms folded, unembedding centred"


def test_a_fingerprint_is_that_of_the_weights_and_the_configuration(original):
    first, again = load_model(original), load_model(original)
    fingerprint = models.fingerprint(first)
    assert len(fingerprint) == 16
    assert models.fingerprint(again) == fingerprint
    weight = again.blocks[1].mlp.W_out
    bits = weight.view(torch.int32)
    bits[3, 4] ^= 1  # the last bit of one weight
    assert models.fingerprint(again) != fingerprint
    bits[3, 4] ^= 1
    assert models.fingerprint(again) == fingerprint
    assert models.fingerprint(load_model(original, weights="raw")) != fingerprint
    assert models.fingerprint(load_model(original, split_qkv=True)) != fingerprint


def test_somebody_elses_hooks_are_noticed(absolute_model):
    assert not models.has_foreign_hooks(absolute_model)
    module = absolute_model.blocks[1].mlp
    for register in (module.register_forward_hook, module.register_forward_pre_hook):
        handle = register(lambda *args: None)
        assert models.has_foreign_hooks(absolute_model)
        handle.remove()
    assert not models.has_foreign_hooks(absolute_model)


def test_inside_one_fingerprint_weights_are_hashed_once_and_a_change_is_an_error(absolute_model):
    before = models.fingerprint(absolute_model)
    weight, other = absolute_model.blocks[0].mlp.W_in, load_model("toy:trigger")
    was = weight[0, 0].item()
    inside = models.one_fingerprint(absolute_model)
    inside.__enter__()
    with torch.no_grad():
        weight[0, 0] = was + 1
    assert models.fingerprint(absolute_model) == before
    assert models.fingerprint(other) != before
    with pytest.raises(RuntimeError, match="changed while it was studied"):
        inside.__exit__(None, None, None)
    assert models.fingerprint(absolute_model) != before
    with torch.no_grad():
        weight[0, 0] = was
    assert models.fingerprint(absolute_model) == before
    with pytest.raises(KeyError), models.one_fingerprint(absolute_model):
        raise KeyError
    with models.one_fingerprint(other):
        pass
