"""A pass: what an arm is planned to do, and what a batch of arms gives."""

import copy
import warnings

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp import (
    HookError,
    Prompts,
    Site,
    delete_token,
    edit,
    knockout,
    load_model,
    log_prob,
    read,
    replace_token,
    run,
    scale,
    sweep,
    tokenize,
    zero,
)
from mechinterp.core.sites import ACTS
from mechinterp.engine.arms import planned
from mechinterp.engine.passes import base_run, forward, greedy, resumes_exactly


@pytest.mark.parametrize(
    ("specs", "start", "stop", "begin"),
    [
        ((), 3, -1, 6),
        (zero(Site("embed")), 0, 0, 0),
        (zero(Site("z", 1, pos=2)), 1, 1, 2),
        (zero(Site("z", 2, pos=3)) + zero(Site("resid_pre", 1)), 1, 2, 0),
        (read(Site("resid_post", 2)), 2, 2, 0),
        (delete_token(1) + zero(Site("z", 2, pos="end")), 0, 2, 1),
        (zero(Site("unembed_in")), 3, 3, 0),
        (zero(Site("z", 1, pos="S2")) + scale(Site("logits", pos=3), 2.0), 1, 3, 2),
        (read(Site("ln_final_scale")), 3, 3, 0),
        (knockout(2, None, "end", 0), 2, 2, 3),
        (zero(Site("blocks.1.hook_resid_pre")), 0, 0, 0),
    ],
)
def test_where_an_arm_begins(absolute_model, ragged, specs, start, stop, begin):
    arm = planned(absolute_model, ragged, specs)
    assert (arm.start, arm.stop, arm.begin) == (start, stop, begin)
    assert arm.alone == any(spec.site.act not in ACTS for spec in specs)


def test_tokens_are_edited_before_anything_runs(absolute_model, ragged):
    whole = Site("tokens")
    specs = replace_token(0, 30) + read(whole) + delete_token("S2")
    arm = planned(absolute_model, ragged, specs)
    assert arm.prompts.lengths.tolist() == [6, 3, 5]
    assert arm.prompts.tokens[:, 0].tolist() == [30, 30, 30]
    assert arm.activations[whole][:, 0].tolist() == [30, 30, 30]
    assert arm.activations[whole].shape == (3, 7)
    assert arm.fired == {0, 1, 2}


def test_an_edit_of_tokens_sees_its_prompts_and_what_was_read(absolute_model, ragged):
    first = Site("tokens", pos=0)

    def as_the_first(value, at):
        assert at.prompts.tokens.tolist() == ragged.tokens.tolist()
        return at.acts[first] + 1

    specs = read(first) + edit(Site("tokens", pos="end"), as_the_first)
    tokens = planned(absolute_model, ragged, specs).prompts.tokens
    assert tokens[[0, 1, 2], [6, 3, 5]].tolist() == [4, 7, 9]


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
    arms = [planned(absolute_model, ragged, s) for s in specs]
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
    arm = planned(model, ragged, zero(Site("attn_out", 2)))
    ends = ragged.lengths[:, None] - 1
    base = base_run(model, ragged, {1, 2})
    assert set(base.resid) == {1, 2}
    assert base.entries == {}
    whole = forward(model, [arm], ends).logits()
    for layer, resid in base.resid.items():
        kept = run(model, ragged, read(Site("resid_pre", layer))).acts[Site("resid_pre", layer)]
        assert torch.equal(resid, kept)
        arm = planned(model, ragged, zero(Site("attn_out", 2)))
        part = forward(model, [arm], ends, base=base, starts=[layer])
        assert torch.equal(part.logits(), whole)
    assert base_run(model, ragged, set()).resid == {}


@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_pass_may_begin_at_a_position_and_arms_join_it(model, ragged, first):
    n_layers = model.cfg.n_layers
    base = base_run(model, ragged, {1, n_layers}, first)
    assert set(base.entries) == set(range(n_layers))
    made = [
        zero(Site("embed", pos="end")),
        scale(Site("z", 1, 2, pos=3), 2.0),
        zero(Site("k", 1, 0, pos=3)) + read(Site("pattern", 2, 1, pos=3)),
        (),
    ]
    arms = [planned(model, ragged, specs) for specs in made]
    ends = ragged.lengths[:, None] - 1
    starts = [0, 1, 1, n_layers]
    reading = ends.repeat(len(arms), 1)
    output = forward(model, arms, reading, base=base, starts=starts, first=first)
    for place, specs in enumerate(made):
        alone = run(model, ragged, specs)
        rows = slice(3 * place, 3 * place + 3)
        torch.testing.assert_close(output.logits()[rows], alone.logits, atol=1e-5, rtol=1e-5)
        for site, value in alone.acts.items():
            torch.testing.assert_close(arms[place].activations[site], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [0, 2])
def test_the_last_layer_needs_only_the_queries_that_are_read(model, ragged, first):
    base = base_run(model, ragged, set(), first)
    arms = [planned(model, ragged, scale(Site("z", 1, i, pos=3), 3.0)) for i in range(2)]
    reading = torch.stack([ragged.lengths - 1, torch.tensor([3, 3, 3])], 1).repeat(2, 1)
    whole = forward(model, arms, reading, base=base, first=first).logits()
    part = forward(model, arms, reading, base=base, first=first, last_queries=True).logits()
    torch.testing.assert_close(part, whole, atol=1e-5, rtol=1e-5)


def test_which_models_resume_exactly(model, absolute_model, monkeypatch):
    assert resumes_exactly(model) == (True, True)
    state = {"calls": 0}

    def differs(module, args, kwargs):
        state["calls"] += 1
        return (args[0] * (1 + 1e-2 * state["calls"]),), kwargs

    assert resumes_exactly(tiny_model_again(absolute_model, switched_on=True)) == (True, False)
    uneven = tiny_model_again(absolute_model)
    handle = uneven.blocks[1].register_forward_pre_hook(differs, with_kwargs=True)
    assert resumes_exactly(uneven) == (False, False)
    handle.remove()


def tiny_model_again(model, switched_on=False):
    again = copy.deepcopy(model)
    again.cfg.use_split_qkv_input = switched_on
    return again


def test_a_few_logits_are_those_of_all(model, ragged):
    for specs in ((), zero(Site("unembed_in", pos=0))):
        reading = torch.stack([ragged.lengths - 1, torch.tensor([0, 1, 2])], 1)
        output = forward(model, [planned(model, ragged, specs)], reading)
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
    arm = planned(absolute_model, ragged, zero(Site("z", 1)))
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


def test_greedy_continues_as_the_whole_passes_would(model):
    for start in ([3, 1, 4], [7]):
        ids = list(start)
        made = greedy(model, tokenize(model, torch.tensor(ids)), 6)
        for token in made:
            assert token == int(model(torch.tensor([ids]))[0, -1].argmax())
            ids.append(token)
        assert len(made) == 6
    assert greedy(model, tokenize(model, torch.tensor([3])), 0) == []


def test_greedy_with_somebody_elses_hooks(absolute_model):
    prompts = tokenize(absolute_model, torch.tensor([3, 1, 4]))
    last = absolute_model.blocks[2].hook_resid_post
    handle = last.register_forward_hook(lambda module, args, value: value.flip(-1))
    try:
        made, ids = greedy(absolute_model, prompts, 5), [3, 1, 4]
        for token in made:
            assert token == int(absolute_model(torch.tensor([ids]))[0, -1].argmax())
            ids.append(token)
    finally:
        handle.remove()
    assert made != greedy(absolute_model, prompts, 5)


def test_greedy_ends_at_the_end_token():
    model = load_model("toy:trigger")
    prompts = tokenize(model, "please bring the sesame")
    free = greedy(model, prompts, 4)
    assert len(free) == 4
    model.tokenizer.eos_token = model.tokenizer.convert_ids_to_tokens(free[1])
    assert greedy(model, prompts, 4) == free[: free.index(free[1]) + 1]


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
    assert greedy(model, prompts, 4) == made[0, 5:].tolist()
