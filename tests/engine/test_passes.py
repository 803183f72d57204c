"""A pass: what a batch of arms gives, wherever it starts."""

import warnings

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp import (
    HookError,
    Prompts,
    Site,
    edit,
    log_prob,
    read,
    run,
    scale,
    sweep,
    zero,
)
from mechinterp.engine.arms import prepare_arm
from mechinterp.engine.batch import Extent
from mechinterp.engine.generation import generate_greedy
from mechinterp.engine.passes import forward, run_base


def test_arms_share_a_batch_and_see_themselves_alone(absolute_model, ragged):
    seen = []

    def look(value, at):
        seen.append((at.site, value.shape, at.prompts.lengths.tolist(), len(at.acts)))
        return value + value.mean(0, keepdim=True)

    specs = [
        edit(Site("z", 0, 2), look),
        read(Site("z", 0)) + edit(Site("z", 1, pos="end"), look),
        edit(Site("pattern", 1, 3, "S2"), look),
    ]
    arms = [prepare_arm(absolute_model, ragged, s) for s in specs]
    ends = torch.cat([arm.prompts.lengths[:, None] - 1 for arm in arms])
    logits = forward(absolute_model, arms, ends).logits()
    assert seen == [
        (Site("z", 0, 2), (3, 7, 6), [7, 4, 6], 0),
        (Site("pattern", 1, 3, "S2"), (3, 7), [7, 4, 6], 0),
        (Site("z", 1, pos="end"), (3, 4, 6), [7, 4, 6], 1),
    ]
    for number, s in enumerate(specs):
        alone = run(absolute_model, ragged, s).logits
        torch.testing.assert_close(logits[3 * number : 3 * number + 3], alone, atol=1e-5, rtol=1e-5)


def test_a_pass_may_begin_at_a_layer(model, ragged):
    arm = prepare_arm(model, ragged, zero(Site("attn_out", 2)))
    ends = ragged.lengths[:, None] - 1
    base = run_base(model, ragged, {1, 2})
    assert set(base.resid) == {1, 2}
    assert base.entries == {}
    whole = forward(model, [arm], ends).logits()
    for layer, resid in base.resid.items():
        kept = run(model, ragged, read(Site("resid_pre", layer))).acts[Site("resid_pre", layer)]
        assert torch.equal(resid, kept)
        arm = prepare_arm(model, ragged, zero(Site("attn_out", 2)))
        part = forward(model, [arm], ends, Extent(base, [layer]))
        assert torch.equal(part.logits(), whole)
    assert run_base(model, ragged, set()).resid == {}


@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_pass_may_begin_at_a_position_and_arms_join_it(model, ragged, first):
    n_layers = model.cfg.n_layers
    base = run_base(model, ragged, {1, n_layers}, first)
    assert set(base.entries) == set(range(n_layers))
    made = [
        zero(Site("embed", pos="end")),
        scale(Site("z", 1, 2, pos=3), 2.0),
        zero(Site("k", 1, 0, pos=3)) + read(Site("pattern", 2, 1, pos=3)),
        (),
    ]
    arms = [prepare_arm(model, ragged, specs) for specs in made]
    ends = ragged.lengths[:, None] - 1
    first_layers = [0, 1, 1, n_layers]
    reading = ends.repeat(len(arms), 1)
    output = forward(model, arms, reading, Extent(base, first_layers, first))
    for place, specs in enumerate(made):
        alone = run(model, ragged, specs)
        rows = slice(3 * place, 3 * place + 3)
        torch.testing.assert_close(output.logits()[rows], alone.logits, atol=1e-5, rtol=1e-5)
        for site, value in alone.acts.items():
            torch.testing.assert_close(arms[place].activations[site], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [0, 2])
def test_the_last_layer_needs_only_the_queries_that_are_read(model, ragged, first):
    base = run_base(model, ragged, set(), first)
    arms = [prepare_arm(model, ragged, scale(Site("z", 1, i, pos=3), 3.0)) for i in range(2)]
    reading = torch.stack([ragged.lengths - 1, torch.tensor([3, 3, 3])], 1).repeat(2, 1)
    whole = forward(model, arms, reading, Extent(base, first_pos=first)).logits()
    fewer = Extent(base, first_pos=first, last_queries=True)
    part = forward(model, arms, reading, fewer).logits()
    torch.testing.assert_close(part, whole, atol=1e-5, rtol=1e-5)


def test_a_few_logits_are_those_of_all(model, ragged):
    for specs in ((), zero(Site("unembed_in", pos=0))):
        reading = torch.stack([ragged.lengths - 1, torch.tensor([0, 1, 2])], 1)
        output = forward(model, [prepare_arm(model, ragged, specs)], reading)
        tokens = torch.tensor([[0, 5], [7, 7], [30, 2]])
        few = output.logits_of(tokens, [1])
        assert few.shape == (3, 1, 2)
        both = output.logits_of(tokens, [0, 1])
        for row in range(3):
            expected = output.logits()[row][:, tokens[row]]
            torch.testing.assert_close(both[row], expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(few[row], expected[1:], atol=1e-5, rtol=1e-5)


def test_a_watcher_sees_every_activation_as_the_specs_leave_it(absolute_model, ragged):
    seen = {}
    arm = prepare_arm(absolute_model, ragged, zero(Site("z", 1)))
    forward(absolute_model, [arm], ragged.lengths[:, None] - 1, watch=seen.__setitem__)
    assert not seen["blocks.1.attn.hook_z"].any()
    assert seen["blocks.0.attn.hook_z"].any()
    assert {"hook_embed", "unembed.hook_out", "blocks.2.hook_resid_post"} <= set(seen)


def test_a_point_that_runs_more_than_once(switched_on_model, ragged):
    if switched_on_model.cfg.normalization_type is None:
        return
    # With split inputs the norm runs for the queries, the keys and the values.
    times = []
    norm = Site("blocks.1.ln1.hook_normalized")
    run(switched_on_model, ragged, edit(norm, lambda value, at: times.append(1) or value))
    assert len(times) == 3
    if switched_on_model.cfg.n_key_value_heads is None:  # the same value each time: no question
        done = run(switched_on_model, ragged, read(norm))
        assert done.acts[norm].shape[2] == switched_on_model.cfg.n_heads
    halved = scale(Site("k_input", 1, 0), 0.5)
    with pytest.raises(HookError, match="ran more than once, with different values"):
        run(switched_on_model, ragged, halved + read(norm))


def test_positions_that_every_layer_reads_reach_every_layer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cfg = HookedTransformerConfig(
            n_layers=2,
            d_model=20,
            d_head=5,
            n_heads=3,
            d_vocab=31,
            n_ctx=16,
            attn_only=True,
            normalization_type="LN",
            positional_embedding_type="shortformer",
            device="cpu",
        )
        model = HookedTransformer(cfg)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    model.requires_grad_(False)
    prompts = Prompts.from_ids([[3, 1, 4, 1, 5]])
    expected = model(prompts.tokens)[0, -1]
    assert (run(model, prompts).logits[0, 0] - expected).abs().max() < 1e-5
    zeroed = run(model, prompts, zero(Site("z", 1, head=1))).logits[0, 0]
    swept = sweep(model, prompts, {"head": [1]}, lambda head: zero(Site("z", 1, head)), log_prob(7))
    assert abs(swept.item() - float(zeroed.log_softmax(-1)[7])) < 1e-5
    made = prompts.tokens
    for _ in range(4):
        made = torch.cat([made, model(made)[:, -1:].argmax(-1)], 1)
    assert generate_greedy(model, prompts, 4) == made[0, 5:].tolist()
