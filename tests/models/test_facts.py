"""What a model is said to be, and the parts of its forward pass."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mechinterp import Site, load_model, models, read, run

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


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


# The parts of a forward pass


def test_the_parts_together_are_the_model(model):
    expected = model(TOKENS)
    resid = models.embedded(model, TOKENS)[0]
    for layer in range(model.cfg.n_layers):
        site = Site("resid_pre", layer)
        assert torch.equal(resid, run(model, TOKENS, read(site)).acts[site])
        resid = models.block(model, layer, resid)
    normalized = models.normalized(model, resid)
    assert torch.equal(models.hooked_unembedded(model, normalized), expected)
    close(models.unembedded(model, normalized), expected)
    ids = torch.tensor([[0, 5, 5], [36, 1, 2]])
    few = models.unembedded(model, normalized, ids)
    for row in range(2):
        close(few[row], expected[row][:, ids[row]])


def test_a_cap_on_the_logits(absolute_model):
    plain = absolute_model(TOKENS)
    absolute_model.cfg.output_logits_soft_cap = 3.0
    try:
        capped = 3 * (plain / 3).tanh()
        close(absolute_model(TOKENS), capped)
        close(run(absolute_model, TOKENS).logits[:, 0], capped[:, -1])
        normalized = run(absolute_model, TOKENS, read(Site("unembed_in"))).acts[Site("unembed_in")]
        ids = torch.tensor([[4], [7]])
        found = models.unembedded(absolute_model, normalized, ids)[..., 0]
        close(found, torch.stack([capped[0, :, 4], capped[1, :, 7]]))
    finally:
        absolute_model.cfg.output_logits_soft_cap = -1.0
    assert torch.equal(absolute_model(TOKENS), plain)


def test_cached_keys_and_values(model):
    whole = models.embedded(model, TOKENS)[0]
    cache = models.key_value_cache(model, 2)
    begin = models.embedded(model, TOKENS[:, :3])[0]
    rest = models.embedded(model, TOKENS[:, 3:], 3)[0]
    for layer in range(model.cfg.n_layers):
        whole = models.block(model, layer, whole)
        begin = models.block(model, layer, begin, entry=cache[layer])
    close(begin, whole[:, :3])
    for layer in range(model.cfg.n_layers):
        rest = models.block(model, layer, rest, entry=cache[layer])
    close(rest, whole[:, 3:])


def test_keys_and_values_alone_are_those_of_the_layer(model):
    resid = models.embedded(model, TOKENS)[0]
    cache = models.key_value_cache(model, 2)
    models.block(model, 1, resid, entry=cache[1])
    first = models.keys_and_values(model, 1, resid[:, :2])
    both = models.keys_and_values(model, 1, resid[:, 2:], first)
    close(both.past_keys, cache[1].past_keys)
    close(both.past_values, cache[1].past_values)
    assert first.past_keys.shape[1] == 2


def test_the_mean_embedding(model):
    expected = model.W_E.mean(0)
    if model.cfg.post_embedding_ln:
        expected = model.embed(torch.arange(model.cfg.d_vocab)[None])[0].mean(0)
    close(models.mean_embedding(model), expected)


def test_somebody_elses_hooks_are_noticed(absolute_model):
    assert not models.has_foreign_hooks(absolute_model)
    module = absolute_model.blocks[1].mlp
    for register in (module.register_forward_hook, module.register_forward_pre_hook):
        handle = register(lambda *args: None)
        assert models.has_foreign_hooks(absolute_model)
        handle.remove()
    assert not models.has_foreign_hooks(absolute_model)
