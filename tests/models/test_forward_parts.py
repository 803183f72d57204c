"""The steps of a forward pass, put together, are the model's own pass."""

import torch

from mechinterp import Site, models, read, run

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_the_parts_together_are_the_model(model):
    expected = model(TOKENS)
    resid = models.embed(model, TOKENS)[0]
    for layer in range(model.cfg.n_layers):
        site = Site("resid_pre", layer)
        assert torch.equal(resid, run(model, TOKENS, read(site)).acts[site])
        resid = models.run_block(model, layer, resid)
    normalized = models.normalize(model, resid)
    assert torch.equal(models.unembed_with_hooks(model, normalized), expected)
    close(models.unembed(model, normalized), expected)
    ids = torch.tensor([[0, 5, 5], [36, 1, 2]])
    few = models.unembed(model, normalized, ids)
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
        found = models.unembed(absolute_model, normalized, ids)[..., 0]
        close(found, torch.stack([capped[0, :, 4], capped[1, :, 7]]))
    finally:
        absolute_model.cfg.output_logits_soft_cap = -1.0
    assert torch.equal(absolute_model(TOKENS), plain)


def test_cached_keys_and_values(model):
    whole = models.embed(model, TOKENS)[0]
    cache = models.key_value_cache(model, 2)
    begin = models.embed(model, TOKENS[:, :3])[0]
    rest = models.embed(model, TOKENS[:, 3:], 3)[0]
    for layer in range(model.cfg.n_layers):
        whole = models.run_block(model, layer, whole)
        begin = models.run_block(model, layer, begin, entry=cache[layer])
    close(begin, whole[:, :3])
    for layer in range(model.cfg.n_layers):
        rest = models.run_block(model, layer, rest, entry=cache[layer])
    close(rest, whole[:, 3:])


def test_keys_and_values_alone_are_those_of_the_layer(model):
    resid = models.embed(model, TOKENS)[0]
    cache = models.key_value_cache(model, 2)
    models.run_block(model, 1, resid, entry=cache[1])
    first = models.keys_and_values(model, 1, resid[:, :2])
    both = models.keys_and_values(model, 1, resid[:, 2:], first)
    close(both.past_keys, cache[1].past_keys)
    close(both.past_values, cache[1].past_values)
    assert first.past_keys.shape[1] == 2
