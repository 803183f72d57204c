"""The plan of a sweep: the fewest token-layers that give the same numbers, told before it runs."""

import itertools
import random
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp import (
    Prompts,
    Site,
    delete_token,
    edit,
    log_prob,
    logit_diff,
    patch,
    plan,
    read,
    replace_token,
    run,
    scale,
    sweep,
    zero,
)
from mechinterp.sweeps.pass_plan import CALL_TOKEN_LAYERS, NAIVE, Savings
from mechinterp.sweeps.planner import _ArmStart, _buckets


def tokens(width, first=3):
    return Prompts.from_ids([[(first + 5 * i) % 31 for i in range(width)]])


def plan_of(model, width, over, arm, **options):
    return plan(model, tokens(width), over, arm, logit_diff(1, 2), **options)


def test_arms_join_one_batch_at_their_layer(absolute_model):
    made = plan_of(
        absolute_model,
        15,
        {"layer": range(3), "head": range(4)},
        lambda layer, head: zero(Site("z", layer, head)),
    )
    last, others = sorted(made.passes, key=lambda p: len(p.arms))
    assert (len(last.arms), last.first_layers, last.last_queries) == (4, (2,) * 4, False)
    assert (len(others.arms), others.first_layers, others.last_queries) == (
        8,
        (0,) * 4 + (1,) * 4,
        True,
    )
    assert made.base_layers == {1, 2}
    assert made.token_layers == 15 * (4 * 3 + 4 * 2 + 4 * 1 + 2)
    assert made.token_layers_naive == 12 * 15 * 3


def test_the_budget_holds_a_pass_and_what_the_unchanged_run_keeps(absolute_model):
    def made(budget):
        return plan_of(
            absolute_model,
            15,
            {"layer": range(3), "head": range(4), "pos": range(8)},
            lambda layer, head, pos: zero(Site("z", layer, head, pos=pos)),
            budget_bytes=budget,
        )

    whole = made(10**9).planned_bytes
    for budget in range(whole // 4, whole, whole // 40):
        planned = made(budget)
        assert planned.base_bytes > 0
        assert planned.planned_bytes <= budget


def test_positions_that_nothing_touches_are_not_computed():
    model = long_model()
    made = plan_of(model, 256, {"pos": range(256)}, delete_token)
    assert made.token_layers / made.token_layers_naive <= 0.56
    assert len(made.passes) > 8
    assert {p.first_pos for p in made.passes if p.width == 255} >= {0}
    for p in made.passes:
        assert p.first_pos <= min(p.arms)
    alone = plan_of(model, 256, {"pos": [250]}, lambda pos: zero(Site("z", 0, pos=pos)))
    # Of one arm the unchanged run costs as much as it saves.
    assert alone.token_layers <= alone.token_layers_naive


def test_ranges_of_positions_are_the_best_there_are():
    chance = random.Random(0)
    for _ in range(60):
        n_layers, width, n_prompts = 4, 60, chance.choice([1, 3])
        group = [
            _ArmStart(i, chance.randrange(n_layers + 1), chance.choice([0, 5, 9, 30, 45, 59]))
            for i in range(chance.randint(1, 25))
        ]
        buckets = _buckets(group, width, n_prompts, n_layers)
        assert sorted(r.arm for b in buckets for r in b) == list(range(len(group)))

        def cost(parts, n_layers=n_layers, width=width, n_prompts=n_prompts):
            total = 0
            for part in parts:
                first = min(r.first_pos for r in part)
                total += n_prompts * (width - first) * sum(n_layers - r.first_layer for r in part)
                total += CALL_TOKEN_LAYERS * (n_layers - min(r.first_layer for r in part))
            return total

        firsts = sorted({r.first_pos for r in group})
        best = min(
            cost([[r for r in group if r.first_pos in part] for part in cuts(firsts)])
            for cuts in partitions(len(firsts))
        )
        assert cost(buckets) == pytest.approx(best)


def partitions(n):
    """Every way to cut a list of n into ranges."""
    for ends in itertools.product([False, True], repeat=n - 1):

        def cut(values, ends=ends):
            parts = [[values[0]]]
            for value, new in zip(values[1:], ends, strict=True):
                if new:
                    parts.append([])
                parts[-1].append(value)
            return parts

        yield cut


def test_arms_that_repeat_another_run_once(model):
    calls = []

    def counted(value, at):
        calls.append(1)
        return value * 0

    shared = edit(Site("z", 1), counted)
    over = {"i": range(5)}
    made = plan(model, tokens(6), over, lambda i: shared, log_prob(3))
    assert made.same_as == (0, 0, 0, 0, 0)
    assert [p.arms for p in made.passes] == [(0,)]
    swept = sweep(model, tokens(6), over, lambda i: shared, log_prob(3))
    assert len(calls) == 1
    assert (swept.values == swept.values[0]).all()
    assert "4 repeat another" in str(made)
    sweep(model, tokens(6), over, lambda i: shared, log_prob(3), exact="naive")
    assert len(calls) == 6


def test_deleting_either_of_two_equal_tokens_is_one_arm_unless_they_are_told_apart(model):
    prompts = Prompts.from_ids([[3, 7, 7, 7, 5, 2]])
    over = {"pos": range(6)}
    made = plan(model, prompts, over, delete_token, log_prob(3))
    assert made.same_as == (0, 1, 1, 1, 4, 5)
    between = plan(model, prompts, over, delete_token, log_prob(3, at=2))
    assert between.same_as == (0, 1, 1, 3, 4, 5)  # 2 is read at 1, 1, 1, 2, 2, 2 then
    beside = plan(
        model, prompts, over, lambda pos: delete_token(pos) + zero(Site("z", 1)), log_prob(3)
    )
    assert beside.same_as == tuple(range(6))
    swept = sweep(model, prompts, over, delete_token, log_prob(3, at=2))
    for pos in range(6):
        alone = log_prob(3, at=2)(run(model, prompts, delete_token(pos), logits_at=2))
        assert swept.sel(pos=pos).item() == pytest.approx(alone.item(), abs=1e-5)


def test_a_plan_says_what_it_costs(absolute_model):
    made = plan_of(
        absolute_model, 12, {"layer": range(3)}, lambda layer: zero(Site("z", layer, pos="end"))
    )
    text = str(made)
    assert f"{made.token_layers:,} token-layers, naive {3 * 12 * 3:,}" in text
    assert text.count("\n") == 1 + len(made.passes) + (made.base_token_layers > 0)
    swept = sweep(
        absolute_model,
        tokens(12),
        {"layer": range(3)},
        lambda layer: zero(Site("z", layer, pos="end")),
        logit_diff(1, 2),
    )
    for name in ("token_layers", "token_layers_naive"):
        assert swept.attrs[name] == getattr(made, name)
    assert swept.attrs["passes"] == made.n_passes
    assert swept.attrs["peak_bytes_planned"] == made.planned_bytes


def test_a_full_hook_name_and_somebody_elses_hooks_run_plainly(absolute_model):
    def full(i):
        return scale(Site("blocks.1.ln1.hook_normalized"), 0.5 + i)

    made = plan_of(absolute_model, 8, {"i": range(3)}, full)
    assert [(p.arms, p.first_layers, p.first_pos) for p in made.passes] == [
        ((i,), (0,), 0) for i in range(3)
    ]
    handle = absolute_model.blocks[0].register_forward_hook(lambda *args: None)
    try:
        made = plan_of(absolute_model, 8, {"i": range(3)}, lambda i: zero(Site("z", i)))
    finally:
        handle.remove()
    assert made.token_layers == made.token_layers_naive
    assert all(p.whole_logits for p in made.passes)
    naive = plan_of(absolute_model, 8, {"i": range(3)}, full, exact="naive")
    assert naive.passes == plan_of(absolute_model, 8, {"i": range(3)}, full, exact=NAIVE).passes


def long_model(**changed):
    """A model with room for long prompts."""
    sizes = {"n_layers": 3, "d_model": 16, "d_head": 4, "n_heads": 4, "d_mlp": 32, "d_vocab": 40}
    sizes |= {"n_ctx": 260, "act_fn": "gelu", "device": "cpu", "seed": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(HookedTransformerConfig(**(sizes | changed)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "changed",
    [
        {"use_local_attn": True, "window_size": 3, "attn_types": ["global", "local", "local"]},
        {"positional_embedding_type": "alibi"},
        {"attention_dir": "bidirectional"},
        {"use_attn_scale": False, "attn_scores_soft_cap": 5.0, "output_logits_soft_cap": 4.0},
        {"use_qk_norm": True},
        {"positional_embedding_type": "shortformer"},
        {"dtype": torch.float64},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_the_law_on_models_of_other_kinds(changed):
    """What does not hold on a model is found out, and not used."""
    model = long_model(**changed)
    prompts = tokens(40)
    other = run(model, tokens(40, first=8), read(*(Site("z", n) for n in range(3)))).acts
    made = [patch(Site("z", layer, 2, pos), other) for layer in range(3) for pos in (0, 20, 38)]
    made += [replace_token(30, 5), zero(Site("k", 1, 0)), delete_token(17), delete_token(38)]
    given = (model, prompts, {"i": range(len(made))}, lambda i: made[i], log_prob(3))
    fast, slow = sweep(*given), sweep(*given, exact="naive")
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    windowed = changed.keys() & {"use_local_attn", "attention_dir", "positional_embedding_type"}
    if windowed - {"positional_embedding_type"}:
        assert all(p.first_pos == 0 for p in plan(*given).passes)
    if changed.get("positional_embedding_type") == "shortformer":
        assert all(set(p.first_layers) == {0} for p in plan(*given).passes)


@pytest.mark.parametrize("name", list(Savings.__dataclass_fields__))
def test_each_saving_alone_gives_the_same(model, name):
    prompts = tokens(12)
    made = [
        zero(Site("z", layer, head, pos)) for layer in (0, 2) for head in (0, 1) for pos in (0, 9)
    ]
    given = (model, prompts, {"i": range(8)}, lambda i: made[i], log_prob(3))
    alone = Savings(**{f: f == name for f in Savings.__dataclass_fields__})
    np.testing.assert_allclose(sweep(*given, exact=alone), sweep(*given, exact="naive"), atol=1e-5)


def test_what_cannot_be_planned(absolute_model, refuses):
    given = (absolute_model, tokens(6), {"i": range(3)}, lambda i: zero(Site("z", i)), log_prob(3))
    refuses(lambda: sweep(*given, exact="fast"), "exact='fast'", "planned", "naive")
    swept = sweep(*given).mean("prompt")
    refuses(lambda: sweep(*given, only=swept), "only", "bool", "float64", "top_k")
    refuses(lambda: sweep(*given, only=(swept > 0).rename(i="j")), "over i [3]", "over j [3]")
    refuses(lambda: sweep(*given, only=swept > 1e9), "selects no point")
    refuses(lambda: sweep(*given, only=(swept < 0).assign_coords(i=[3, 4, 5])), "mask's i differ")


def test_only_some_points(model):
    given = (model, tokens(6), {"a": range(3), "b": range(2)}, lambda a, b: zero(Site("z", a, b)))
    full = sweep(*given, log_prob(3))
    mean = full.mean("prompt")
    only = mean > mean.median("a")
    found = sweep(*given, log_prob(3), only=only)
    np.testing.assert_allclose(found, full.where(only), atol=1e-5)
    assert found.attrs["arms"] == 2
    assert found.attrs["token_layers_naive"] == 2 * 6 * 3


def test_arms_that_read_other_tokens_are_no_repeats(model):
    site = Site("attn_out", 1, pos=5)
    last = edit(site, lambda v, at: v * (1 + at.acts[Site("tokens", pos=2)][:, None].to(v)))
    kept, put_in = read(Site("tokens", pos=2)), replace_token(2, 20)
    made = [kept + put_in + last, put_in + kept + last]
    swept = sweep(model, tokens(6), {"i": [0, 1]}, lambda i: made[i], log_prob(3))
    for i in (0, 1):
        assert swept[i].item() == pytest.approx(log_prob(3)(run(model, tokens(6), made[i])).item())
    assert swept[0].item() != pytest.approx(swept[1].item())


def test_edits_are_told_apart_by_which_they_are_and_need_no_hash(model):
    @dataclass
    class Scaled:
        factor: float

        def __call__(self, value, at):
            return value * self.factor

    made = [edit(Site("z", 1), Scaled(2.0)), edit(Site("z", 1), Scaled(2.0))]
    swept = sweep(model, tokens(6), {"i": [0, 1]}, lambda i: made[i], log_prob(3))
    assert swept[0].item() == pytest.approx(swept[1].item())


def test_bytes_of_a_model_that_makes_its_biases_at_the_first_run():
    model = long_model(positional_embedding_type="alibi")
    given = (model, tokens(8), {"i": [0, 1]})
    swept = sweep(*given, lambda i: scale(Site("resid_post", i, pos=3), 2.0), log_prob(3))
    assert swept.attrs["peak_bytes_planned"] > 0


def test_passes_that_begin_at_two_positions_take_what_is_before_each():
    model, prompts = long_model(), tokens(240)
    sites = [Site("z", layer, pos=pos) for layer in range(3) for pos in (90, 230)]
    given = (model, prompts, {"i": range(6)}, lambda i: zero(sites[i]), log_prob(3))
    assert {p.first_pos for p in plan(*given).passes} == {90, 230}
    np.testing.assert_allclose(sweep(*given), sweep(*given, exact="naive"), atol=1e-4)


def test_a_pass_begins_at_the_first_position_that_is_read_in_any_prompt():
    model = long_model()
    ids = [[(3 + 5 * i + j) % 31 for i in range(240)] for j in range(2)]
    prompts, metric = Prompts.from_ids(ids).named(asked=[150, 235]), log_prob(3, at="asked")
    sites = [Site("z", layer, head, pos=200) for layer in range(3) for head in range(4)]
    given = (model, prompts, {"i": range(12)}, lambda i: zero(sites[i]), metric)
    assert {p.first_pos for p in plan(*given).passes} == {150}
    np.testing.assert_allclose(sweep(*given), sweep(*given, exact="naive"), atol=1e-4)
