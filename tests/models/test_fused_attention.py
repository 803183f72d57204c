"""Fused attention gives what the library's own gives, and only where nothing looks into it."""

import copy

import numpy as np
import pytest
import torch

from mechinterp import (
    Prompts,
    Site,
    delete_token,
    edit,
    knockout,
    log_prob,
    models,
    read,
    run,
    scale,
    sweep,
    zero,
)
from mechinterp.engine import exactness
from mechinterp.engine.arms import prepare_arm
from mechinterp.engine.batch import WHOLE, run_batch
from mechinterp.engine.passes import forward, forward_with_graph
from mechinterp.models import fused_attention as fused_module
from mechinterp.models.fused_attention import can_fuse, with_fused_attention

IDS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4]]


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    """Blocks of 3 queries: 11 positions are four blocks."""
    monkeypatch.setattr(fused_module, "QUERIES", 3)


@pytest.fixture
def always(monkeypatch):
    """Prompts of any length are long ones."""
    monkeypatch.setattr(exactness, "FROM", 1)


@pytest.fixture
def blocks_made(monkeypatch):
    """Whether attention was fused, for each layer that ran."""
    made = []
    original = models.run_block

    def noted(*args, fused=False, **more):
        made.append(fused)
        return original(*args, fused=fused, **more)

    monkeypatch.setattr(models, "run_block", noted)
    return made


def both(model, specs, width=11):
    """What a pass gives with fused attention, and without."""
    prompts = Prompts.from_ids([ids[:width] for ids in IDS])
    outputs = []
    for fused in (True, False):
        arm = prepare_arm(model, prompts, specs)
        reading = torch.arange(arm.prompts.width).expand(2, -1)
        output = run_batch(model, [arm], reading, WHOLE, fused=fused, differentiable=False)
        outputs.append(output.logits())
    return outputs


@pytest.mark.parametrize(
    "specs",
    [
        (),
        zero(Site("z", 1, 2, pos=4)),
        scale(Site("q", 2, 1), 3.0) + zero(Site("k", 0, 0)) + scale(Site("v", 1, 1), -1.0),
        delete_token(3) + zero(Site("attn_out", 1, pos="end")),
        zero(Site("attn_out", 2)) + zero(Site("resid_pre", 1, pos=0)),
        knockout(1, 3, 7, 2) + zero(Site("z", 0, 1)),
        scale(Site("blocks.1.attn.hook_pattern"), 0.5),
        scale(Site("attn_scores", 0, 1), 2.0),
    ],
)
def test_a_fused_pass_is_the_same(model, specs):
    fused, whole = both(model, specs)
    torch.testing.assert_close(fused, whole, rtol=0, atol=1e-5)


def test_rotated_queries_are_seen(grouped_model):
    fused, whole = both(grouped_model, scale(Site("rot_q", 1, 3, pos=6), 2.0))
    torch.testing.assert_close(fused, whole, rtol=0, atol=1e-5)


def test_a_layer_that_is_looked_into_is_run_whole(absolute_model, always, blocks_made):
    prompts = Prompts.from_ids(IDS)
    exactness.resumes_exactly(absolute_model)
    blocks_made.clear()
    for site in (Site("attn_scores", 1), Site("blocks.1.attn.hook_pattern")):
        run_batch(
            absolute_model,
            [prepare_arm(absolute_model, prompts, read(site))],
            torch.full((2, 1), 10),
            WHOLE,
            fused=True,
            differentiable=False,
        )
    assert blocks_made == [True, False, True] * 2


def test_what_a_layer_shows_is_the_same(model, always):
    prompts = Prompts.from_ids(IDS)
    sites = [Site(act, 1) for act in ("z", "q", "v", "resid_post", "pattern")]
    fused = run(model, prompts, read(*sites), logits_at=[10]).acts
    for site in sites:
        alone = run(model, prompts, read(site)).acts[site]  # with all logits: the library's pass
        torch.testing.assert_close(fused[site], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("act", ["z", "resid_pre", "pattern"])
def test_a_fused_sweep_equals_the_slow_loop(model, always, blocks_made, act):
    prompts = Prompts.from_ids(IDS)
    over = {"layer": range(3), "pos": range(2, 6)}

    def arm(layer, pos):
        return zero(Site(act, layer, pos=pos))

    found = sweep(model, prompts, over, arm, log_prob(7))
    assert any(blocks_made)
    slow = sweep(model, prompts, over, arm, log_prob(7), exact="naive")
    np.testing.assert_allclose(found.values, slow.values, atol=1e-5)


def test_short_prompts_are_not_fused(absolute_model, blocks_made):
    run(absolute_model, Prompts.from_ids(IDS), logits_at=[10])
    assert blocks_made
    assert not any(blocks_made)


def test_hooks_of_others_and_gradients_are_not_fused(absolute_model, always, blocks_made):
    prompts = Prompts.from_ids(IDS)
    reading = torch.full((2, 1), 10)
    exactness.resumes_exactly(absolute_model)
    blocks_made.clear()
    handle = absolute_model.blocks[1].attn.hook_pattern.register_forward_hook(lambda *args: None)
    try:
        forward(absolute_model, [prepare_arm(absolute_model, prompts, ())], reading)
    finally:
        handle.remove()
    forward_with_graph(absolute_model, [prepare_arm(absolute_model, prompts, ())], reading)
    assert blocks_made == [False] * 6


@pytest.mark.parametrize(
    "config",
    [
        {"attn_scores_soft_cap": 5.0},
        {"use_local_attn": True},
        {"positional_embedding_type": "alibi"},
        {"attention_dir": "bidirectional"},
        {"use_attention_sinks": True},
        {"dtype": torch.bfloat16},
    ],
)
def test_attention_of_another_kind_is_not_fused(absolute_model, config):
    model = copy.deepcopy(absolute_model)
    assert can_fuse(model)
    for name, value in config.items():
        setattr(model.cfg, name, value)
    assert not can_fuse(model)


def test_attention_with_a_method_of_somebody_else_is_not_fused(absolute_model):
    model = copy.deepcopy(absolute_model)
    own = model.blocks[1].attn.calculate_attention_scores
    model.blocks[1].attn.calculate_attention_scores = lambda q, k: own(q, k) * 2
    assert not can_fuse(model)

    class Mine(type(model.blocks[2].attn)):
        pass

    model = copy.deepcopy(absolute_model)
    model.blocks[2].attn.__class__ = Mine
    assert not can_fuse(model)


def test_where_it_would_differ_it_is_not_used(absolute_model, always, monkeypatch):
    """Another version of the library, whose scores are not those that are known here."""
    model = copy.deepcopy(absolute_model)
    kind, own = type(model.blocks[0].attn), type(model.blocks[0].attn).apply_causal_mask
    monkeypatch.setattr(
        kind, "apply_causal_mask", lambda attn, scores, *more: own(attn, 2 * scores, *more)
    )
    assert can_fuse(model)
    output = run(model, Prompts.from_ids(IDS), logits_at=[10])
    with torch.no_grad():
        torch.testing.assert_close(output.logits[:, 0], model(torch.tensor(IDS))[:, 10])
    assert not exactness.fuses_exactly(model, 11)


def test_nothing_is_left_and_new_weights_are_used(absolute_model, always, snapshot):
    before = snapshot(absolute_model)
    run(absolute_model, Prompts.from_ids(IDS), logits_at=[10])
    before.check()
    model = copy.deepcopy(absolute_model)
    run(model, Prompts.from_ids(IDS), logits_at=[10])
    model.blocks[0].attn.W_Q = torch.nn.Parameter(model.blocks[0].attn.W_Q * 2, False)
    found = run(model, Prompts.from_ids(IDS), logits_at=[10]).logits[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(found, model(torch.tensor(IDS))[:, 10], rtol=0, atol=1e-5)


def test_a_copy_shares_what_it_does_not_replace(absolute_model):
    block = absolute_model.blocks[1]
    made = with_fused_attention(block)
    assert made.mlp is block.mlp
    assert made.attn.W_Q is block.attn.W_Q
    assert made.attn.hook_z is block.attn.hook_z
    assert made.attn is not block.attn
    assert "calculate_z_scores" not in vars(block.attn)


def test_an_edit_that_reads_the_pattern_of_another_layer(absolute_model):
    pattern = Site("pattern", 0)

    def weighed(value, at):
        return value * at.acts[pattern][:, 0].sum(-1)[..., None, None]

    fused, whole = both(absolute_model, read(pattern) + edit(Site("z", 1), weighed))
    torch.testing.assert_close(fused, whole, rtol=0, atol=1e-5)
