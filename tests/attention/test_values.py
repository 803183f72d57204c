import numpy as np
import torch

from mechinterp import Site, ask, load_model, read, run
from mechinterp.attention import patterns, value_weighted
from mechinterp.attribution.methods.attention import value_weighted_attention


def test_it_is_the_length_of_what_each_head_takes(model, ragged):
    found = value_weighted(model, ragged)
    for layer in range(3):
        acts = run(model, ragged, read(Site("v", layer), Site("pattern", layer))).acts
        value, pattern = acts[Site("v", layer)], acts[Site("pattern", layer)]
        weights, n_heads = model.blocks[layer].attn.W_O, model.cfg.n_heads
        for row, length in enumerate((7, 4, 6)):
            for head in range(n_heads):
                shared = head * value.shape[2] // n_heads
                taken = pattern[row, head][..., None] * (value[row, :, shared] @ weights[head])
                slow = taken.norm(dim=-1)[:length, :length].numpy()
                here = found.values[row, layer, head, :length, :length]
                np.testing.assert_allclose(here, slow, atol=1e-5)
        assert np.isnan(found.values[1, layer, :, 4:]).all()


def test_its_mean_is_what_attribution_has():
    model, prompt = load_model("toy:trigger"), "please bring the sesame to me"
    scores = value_weighted_attention(ask(model, prompt, outputs=1)).isel(output=0)
    mean = value_weighted(model, prompt).isel(prompt=0, pos=-1).mean(["layer", "head"])
    np.testing.assert_allclose(scores.values[1:], mean.values[1:], atol=1e-6)


def test_a_head_at_rest_takes_nothing():
    model, prompt = load_model("toy:trigger"), "please bring the letter"
    at = {"prompt": 0, "layer": 1, "head": 0, "pos": 4, "src": 0}
    assert float(patterns(model, prompt).sel(at)) > 0.9
    assert float(value_weighted(model, prompt).sel(at)) == 0


def test_dims_and_unit(model, ragged):
    found = value_weighted(model, ragged, layers=[1])
    assert found.dims == patterns(model, ragged).dims
    assert found.attrs["unit"] == "norm"
    assert torch.tensor(np.nan_to_num(found.values)).min() >= 0
