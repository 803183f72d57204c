"""Patched queries and keys: the pattern is computed, and only what follows is estimated."""

import copy

import numpy as np
import pytest
import torch

from mechinterp import (
    Site,
    load_model,
    log_prob,
    logit_diff,
    patch,
    read,
    run,
    token_id,
)
from mechinterp.engine.gradients import site_gradients
from mechinterp.patching.attribution import (
    attribution_patching,
    qk_fixed_patching,
)

LAYERS = range(3)
METRIC = log_prob([3, 20, 7])
LINEAR = logit_diff([3, 20, 7], 5)
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def itself(site):
    return site


def links(model):
    """Queries and keys of every layer, in all heads, the first and the last, at any position."""
    heads = {"q": model.cfg.n_heads, "k": model.cfg.n_key_value_heads or model.cfg.n_heads}
    rotary = ("rot_q", "rot_k") if model.cfg.positional_embedding_type == "rotary" else ()
    return [
        Site(act, layer, head, pos)
        for act in ("q", "k", *rotary)
        for layer in LAYERS
        for head in (None, 0, heads[act[-1]] - 1)
        for pos in (None, 0, 2, "end", "S2")
    ]


def test_it_is_the_change_of_the_pattern_times_its_gradient(model, ragged, source_of, by_hand):
    sites, patterns = links(model), [Site("pattern", layer) for layer in LAYERS]
    acts = source_of(model, list(dict.fromkeys(site.whole() for site in sites)))
    found = qk_fixed_patching(model, ragged, acts, {"site": sites}, itself, METRIC)
    base = run(model, ragged, read(*patterns)).acts
    slopes = site_gradients(model, ragged, patterns, METRIC)
    for row, site in enumerate(sites):
        pattern = patterns[site.layer]
        patched = run(model, ragged, patch(site, acts) + read(pattern)).acts
        np.testing.assert_allclose(found[row], by_hand(patched, base, slopes, pattern), **CLOSE)
    acts_patched = {site.act for site in sites}
    assert found.attrs["passes"] == 1 + 2 * len(acts_patched), "each with S2 in a pass of its own"


def saturated(model):
    """The same model with so large queries that every softmax picks one key."""
    sharp = copy.deepcopy(model)
    with torch.no_grad():
        for block in sharp.blocks:
            block.attn.W_Q *= 60
    return sharp


@pytest.mark.parametrize("pos", [None, 1, "end", "S2"])
def test_it_finds_what_saturation_hides(attention_only_model, ragged, pos, source_of, exact):
    sharp = saturated(attention_only_model)
    acts = source_of(sharp)
    # After the last layer's pattern the model is linear, so that the fix is exact there.
    over = {"site": [Site(act, 2, head, pos) for act in ("q", "k") for head in range(5)]}
    given = (sharp, ragged, acts, over, itself, LINEAR)
    swept = exact(*given)
    assert abs(swept).max() > 0.1
    np.testing.assert_allclose(qk_fixed_patching(*given), swept, atol=1e-4, rtol=1e-3)
    off = abs(attribution_patching(*given) - swept).mean()
    assert off > 0.5 * abs(swept).mean(), "the gradient at a query or key says little"


def test_the_trigger_is_read_by_a_saturated_head(exact):
    model = load_model("toy:trigger")
    refuse, comply = token_id(model, "REFUSE"), token_id(model, "COMPLY")
    keys = [Site("k", layer) for layer in (0, 1)]
    acts = run(model, "please bring the garden", read(*keys)).acts
    heads = {"layer": [0, 1], "head": [0, 1, 2]}
    given = (
        model,
        "please bring the sesame",
        acts,
        heads,
        lambda layer, head: Site("k", layer, head),
        logit_diff(refuse, comply),
    )
    swept, plain, fixed = exact(*given), attribution_patching(*given), qk_fixed_patching(*given)
    np.testing.assert_allclose(fixed, swept, atol=1e-3)
    assert abs(plain[1, 0]).item() < 0.1 * abs(swept[1, 0]).item()
    assert abs(fixed[1, 0] - swept[1, 0]).item() < 0.01 * abs(swept[1, 0]).item()
