"""Parts sum to the metric; each is what leaves with it when it is taken out, the scale held."""

import numpy as np
import pytest
import torch

from mechinterp import Prompts, Site, centred_logit, log_prob, logit_diff, read, run
from mechinterp.layers import direct_by_head, direct_by_layer, direct_by_neuron


@pytest.fixture(scope="module")
def prompts():
    return Prompts.from_ids([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5], [8, 9, 7, 9, 3]])


METRICS = [logit_diff([7, 11, 2], [20, 3, 5]), centred_logit([7, 11, 2]), logit_diff(4, 6, at=1)]


@pytest.mark.parametrize("metric", METRICS, ids=["difference", "centred", "elsewhere"])
def test_parts_sum_to_the_metric(model, prompts, metric):
    wanted = metric(run(model, prompts, logits_at=metric.at)).double().numpy()
    layers = direct_by_layer(model, prompts, metric)
    np.testing.assert_allclose(layers.sum("part"), wanted, atol=1e-4)
    np.testing.assert_allclose(layers.total, wanted, atol=1e-5)
    heads = direct_by_head(model, prompts, metric)
    whole = heads["from_head"].sum(("layer", "head")) + heads["from_rest"]
    whole = whole + (heads["from_attn_bias"] + heads["from_mlp"]).sum("layer")
    np.testing.assert_allclose(whole, wanted, atol=1e-4)


def test_heads_and_neurons_sum_to_what_their_layer_gives(model, prompts):
    metric = METRICS[0]
    layers = direct_by_layer(model, prompts, metric)
    heads = direct_by_head(model, prompts, metric)
    attention = heads["from_head"].sum("head") + heads["from_attn_bias"]
    for layer in range(model.cfg.n_layers):
        wanted = layers.sel(part=f"L{layer}.attn")
        np.testing.assert_allclose(attention.sel(layer=layer), wanted, atol=1e-4)
    if model.cfg.attn_only:
        return
    neurons = direct_by_neuron(model, prompts, metric, [2, 0])
    for layer in (2, 0):
        found = neurons.sel(layer=layer)
        found = found["from_neuron"].sum("neuron") + found["from_bias"]
        np.testing.assert_allclose(found, layers.sel(part=f"L{layer}.mlp"), atol=1e-4)


def slow(model, prompts, written, metric):
    """What leaves the metric when what is written is taken out, the norm's scale as it was."""
    end = Site("resid_post", model.cfg.n_layers - 1, pos="end")
    there = run(model, prompts, read(end), logits_at=()).acts[end]
    eps = getattr(model.cfg, "eps", 1e-5)
    centre = model.cfg.normalization_type in ("LN", "LNPre")

    def logits(x, scale):
        x = x - x.mean(-1, keepdim=True) if centre else x
        if model.cfg.normalization_type is None:
            return (x @ model.W_U + model.b_U)[:, None]
        x, norm = x / scale, model.ln_final
        x = x * norm.w if hasattr(norm, "w") else x
        x = x + norm.b if hasattr(norm, "b") else x
        return (x @ model.W_U + model.b_U)[:, None]

    with torch.no_grad():
        flat = there - there.mean(-1, keepdim=True) if centre else there
        scale = (flat.square().mean(-1, keepdim=True) + eps).sqrt()
        ids = metric.tokens[:, None]
        picked = [logits(x, scale).gather(2, ids) for x in (there, there - written)]
        return (metric.score(picked[0]) - metric.score(picked[1])).numpy()


def test_a_part_gives_what_leaves_with_it(model, prompts):
    metric = METRICS[0]
    layers = direct_by_layer(model, prompts, metric)
    heads = direct_by_head(model, prompts, metric)["from_head"]
    for layer in range(model.cfg.n_layers):
        site = Site("attn_out", layer, pos="end")
        written = run(model, prompts, read(site), logits_at=()).acts[site]
        wanted = slow(model, prompts, written, metric)
        np.testing.assert_allclose(layers.sel(part=f"L{layer}.attn"), wanted, atol=2e-5)
        z = Site("z", layer, head=1, pos="end")
        written = (
            run(model, prompts, read(z), logits_at=()).acts[z] @ model.blocks[layer].attn.W_O[1]
        )
        wanted = slow(model, prompts, written.detach(), metric)
        np.testing.assert_allclose(heads.sel(layer=layer, head=1), wanted, atol=2e-5)


def test_what_is_refused(grouped_model, attention_only_model, prompts, refuses):
    metric = logit_diff(7, 9)
    refuses(
        lambda: direct_by_layer(grouped_model, prompts, log_prob(7)), "not linear", "logit_diff"
    )
    refuses(lambda: direct_by_neuron(attention_only_model, prompts, metric), "no MLPs")
