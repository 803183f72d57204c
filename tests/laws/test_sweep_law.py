"""The law: a sweep gives at every point what one run would have given, whatever it batched.

sweep(...).sel(point) == metric(run(model, prompts, arm(**point))), to 1e-5.
"""

from dataclasses import fields
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp import (
    HookError,
    Prompts,
    Site,
    add,
    centred_logit,
    delete_token,
    edit,
    kl,
    knockout,
    log_prob,
    logit_diff,
    mean,
    patch,
    put,
    read,
    replace_token,
    resample,
    run,
    scale,
    sweep,
    sweep_each,
    zero,
)
from mechinterp.core.sites import ACTS
from mechinterp.models.facts import fired_points
from mechinterp.models.hook_points import axis_size
from mechinterp.sweeps.pass_plan import Savings

LENGTHS = (7, 4, 6)
SHORTEST = min(LENGTHS)
NAMES = ("end", "S2")


def ragged_prompts(first=3):
    ids = [[(first + 5 * i + 3 * row) % 31 for i in range(n)] for row, n in enumerate(LENGTHS)]
    return Prompts.from_ids(ids).named(S2=[5, 2, 3])


def mixes_rows(value, at):
    """An edit that looks at every prompt of its arm, and would notice those of another."""
    return 0.5 * value + value.mean(0, keepdim=True)


def adds_what_was_read(value, at):
    return value + at.acts[at.site].mean()


def in_place(value, at):
    value *= -0.5
    value += 0.1
    return value


def running_sites(model):
    """Every site of the model that runs, not narrowed."""
    fired = fired_points(model)
    sites = []
    for name, act in ACTS.items():
        layers = range(model.cfg.n_layers) if act.per_layer else (None,)
        sites += [Site(name, layer) for layer in layers if Site(name, layer).hook in fired]
    # With split inputs the first norm runs for each head: its axes are others then.
    split = ("ln1_scale", "ln1_normalized") if model.cfg.use_split_qkv_input else ()
    return [site for site in sites if site.act not in split]


class World:
    """A model, and what another run read at every site of it; prints in a word."""

    def __init__(self, model):
        self.model = model
        self.points = sorted(fired_points(model))
        self.other = run(model, ragged_prompts(11), read(*running_sites(model))).acts

    def __repr__(self):
        return "world"


@st.composite
def narrowed(draw, world, whole):
    """The site, perhaps narrowed to a head, a position or a neuron."""
    chosen = {}
    for axis in ("head", "neuron"):
        if axis in whole.axes and draw(st.booleans()):
            chosen[axis] = draw(st.integers(0, axis_size(world.model, whole.act, axis) - 1))
    if draw(st.booleans()):
        chosen["pos"] = draw(st.sampled_from([*range(SHORTEST), *NAMES]))
    return Site(whole.act, whole.layer, **chosen)


@st.composite
def cuts(draw, world):
    """Attention cut, from one or all queries, in one or all heads."""
    layer = draw(st.integers(0, world.model.cfg.n_layers - 1))
    head = draw(st.none() | st.integers(0, world.model.cfg.n_heads - 1))
    key = draw(st.sampled_from([*range(SHORTEST - 1), "S2"]))
    later = ["end"] if key == "S2" else ["end", SHORTEST - 1]
    return knockout(layer, head, draw(st.none() | st.sampled_from(later)), key)


@st.composite
def full_names(draw, world):
    """An edit of a whole activation by its full name, also of one that has no short name."""
    site = Site(draw(st.sampled_from(world.points)))
    kept = draw(st.sampled_from([(), read(site)])) if "ln1" not in site.act else ()
    if "scale" in site.act or "scores" in site.act:
        return kept + scale(site, 0.7)
    fn = draw(st.sampled_from([mixes_rows, in_place, adds_what_was_read if kept else mixes_rows]))
    return kept + edit(site, fn)


@st.composite
def one_spec(draw, world):
    """Any factory at any site of the model."""
    other = world.other
    if kind := draw(st.sampled_from([None] * 6 + [cuts, full_names])):
        return draw(kind(world))
    whole = draw(st.sampled_from(sorted(other)))
    site = draw(narrowed(world, whole))
    makers = [
        lambda: scale(site, 0.7),
        lambda: patch(site, other),
        lambda: resample(site, other, draw(st.integers(0, 9))),
    ]
    if "one" not in site.axes:  # a norm's scale divides: it must stay away from 0
        before = Site("embed") if site.layer is None else Site("resid_pre", site.layer)
        makers += [
            lambda: zero(site),
            lambda: put(site, 0.3),
            lambda: edit(site, mixes_rows),
            lambda: add(site, torch.full(other[site].shape[-1:], 0.2), draw(st.floats(-2, 2))),
            lambda: read(before) + edit(site, lambda v, at: v * at.acts[before].mean().tanh()),
        ]
    if site.act != "attn_scores" and "one" not in site.axes:  # -inf changes its sign there
        makers += [
            lambda: edit(site, in_place),
            lambda: read(whole) + edit(site, adds_what_was_read),
        ]
    if "src" not in (site.narrowed_axes or ()) or site.pos is not None:
        makers.append(lambda: mean(site, other))
    if site.axes == ("prompt", "pos", "d_model") and site.pos is not None:
        # A position of another layer of the same kind, and of another prompt length.
        source = draw(st.sampled_from([s for s in sorted(other) if s.axes == site.axes]))
        makers.append(lambda: patch(site, other, Site(source.act, source.layer, pos="end")))
    return draw(st.sampled_from(makers))()


@st.composite
def at_one_position(draw, world):
    """An edit at one position, so that the plan begins there; perhaps of a later layer."""
    sites = [s for s in sorted(world.other) if "pos" in s.axes and "one" not in s.axes]
    whole = draw(st.sampled_from(sites))
    site = Site(whole.act, whole.layer, pos=draw(st.sampled_from([*range(SHORTEST), *NAMES])))
    if whole.act == "attn_scores":
        return scale(site, 0.7)
    return draw(st.sampled_from([patch(site, world.other), zero(site), edit(site, mixes_rows)]))


@st.composite
def arms(draw, world):
    """Some arms of one to three specs each, some with tokens deleted or replaced beside them."""
    made = []
    for _ in range(draw(st.integers(2, 6))):
        pos = st.sampled_from([*range(SHORTEST), *NAMES])
        arm = draw(st.sampled_from([(), (), replace_token, delete_token, "two"]))
        if arm == "two":
            arm = delete_token(draw(pos)) + delete_token(draw(pos))
        elif arm:
            arm = arm(draw(pos), *([draw(st.integers(0, 30))] if arm is replace_token else []))
        arm = arm if runs(world, arm) else delete_token(1)
        for _ in range(draw(st.integers(0 if arm else 1, 3))):
            more = draw(st.one_of(one_spec(world), at_one_position(world)))
            arm = next(a for a in (more + arm, arm, zero(Site("embed"))) if a and runs(world, a))
        made.append(arm)
    return made


def savings():
    """Every choice of what a plan may use."""
    return st.builds(Savings, *[st.booleans()] * len(fields(Savings)))


def runs(world, specs):
    """False if something is read twice, or a deleted token takes away what another spec needs."""
    reads = [spec.site for spec in specs if spec.edit is None]
    if not any(spec.name.startswith("delete") for spec in specs):
        return len(set(reads)) == len(reads)
    try:
        return bool(kept(world, specs).logits.isfinite().all())
    except (HookError, ValueError):
        return False


def kept(world, specs):
    """One run, at every position at which a metric here reads."""
    return run(world.model, ragged_prompts(), specs, logits_at=("end", 2, "S2"))


METRICS = {
    "log_prob": lambda base: log_prob([3, 9, 4]),
    "logit_diff": lambda base: logit_diff(7, [1, 2, 3], at=2),
    "kl": lambda base: kl(base),
    "centred_logit": lambda base: centred_logit(5, at="S2"),
}


@settings(max_examples=settings.default.max_examples * 3 // 5)  # each is some twenty runs
@given(data=st.data())
def test_sweep_equals_one_run_per_arm(model, data):
    check_the_law(world_of(model), data)


@settings(max_examples=settings.default.max_examples // 3)
@given(data=st.data())
def test_sweep_equals_one_run_per_arm_with_every_hook_point_on(switched_on_model, data):
    check_the_law(world_of(switched_on_model), data)


@cache
def world_of(model):
    return World(model)


def check_the_law(world, data):
    model, prompts = world.model, ragged_prompts()
    made = data.draw(arms(world))
    names = data.draw(st.lists(st.sampled_from(sorted(METRICS)), min_size=1, unique=True))
    budget = data.draw(st.sampled_from([1, 60_000, 1 << 30]))
    exact = data.draw(st.one_of(st.sampled_from(["planned", "naive"]), savings()))
    base = run(model, prompts).logits[:, 0]
    metrics = [METRICS[name](base) for name in names]
    swept = sweep_each(
        model,
        prompts,
        {"arm": range(len(made))},
        lambda arm: made[arm],
        metrics,
        budget_bytes=budget,
        exact=exact,
    )
    for number, specs in enumerate(made):
        alone = kept(world, specs)
        for metric in metrics:
            found = swept.sel(metric=metric.name, arm=number).values
            expected = metric(alone).double().numpy()
            bound = 1e-5 * np.maximum(1, np.abs(expected))
            assert (np.abs(found - expected) <= bound).all(), [s.name for s in specs]


def test_full_hook_names_and_short_ones_are_swept_alike(model):
    prompts = ragged_prompts()
    last = model.cfg.n_layers - 1
    short = [zero(Site("z", layer)) for layer in range(last + 1)]
    full = [zero(Site(f"blocks.{layer}.attn.hook_z")) for layer in range(last + 1)]
    made = short + full + [zero(Site("unembed.hook_in")), zero(Site("unembed_in"))]
    swept = sweep(model, prompts, {"arm": range(len(made))}, lambda arm: made[arm], log_prob(3))
    for number, specs in enumerate(made):
        expected = log_prob(3)(run(model, prompts, specs))
        np.testing.assert_allclose(swept.values[number], expected, atol=1e-5)
    n = last + 1
    np.testing.assert_allclose(swept.values[:n], swept.values[n : 2 * n], atol=1e-5)


def test_somebody_elses_hook_sees_one_arm_at_a_time(absolute_model):
    model, prompts = absolute_model, ragged_prompts()
    seen = []

    def foreign(module, inputs, value):
        seen.append(value.shape[0])
        return value + value.mean(0, keepdim=True)  # looks at the whole batch

    handle = model.blocks[1].hook_mlp_out.register_forward_hook(foreign)
    try:
        swept = sweep(
            model, prompts, {"layer": range(3)}, lambda layer: zero(Site("z", layer)), log_prob(3)
        )
        expected = [log_prob(3)(run(model, prompts, zero(Site("z", i)))) for i in range(3)]
    finally:
        handle.remove()
    np.testing.assert_allclose(swept.values, torch.stack(expected), atol=1e-5)
    assert set(seen) == {3}
    assert swept.attrs["token_layers"] == swept.attrs["token_layers_naive"]


def test_several_metrics_are_those_one_by_one(model):
    prompts = ragged_prompts()
    over = {"layer": range(3), "pos": [0, "end"]}

    def arm(layer, pos):
        return zero(Site("resid_pre", layer, pos=pos))

    metrics = [log_prob(3), logit_diff(1, 2, at=1)]
    together = sweep_each(model, prompts, over, arm, metrics)
    assert together.dims == ("metric", "layer", "pos", "prompt")
    for metric in metrics:
        alone = sweep(model, prompts, over, arm, metric)
        np.testing.assert_allclose(together.sel(metric=metric.name), alone, atol=1e-5)
        assert alone.name == metric.name


def test_coordinates_are_the_values_that_were_given(model):
    specs = [zero(Site("z", 0)), scale(Site("z", 1), 0.5)]
    swept = sweep(
        model,
        ragged_prompts(),
        {"specs": specs, "factor": [0.5, 2.0], "where": ["end", "S2"]},
        lambda specs, factor, where: specs + scale(Site("attn_out", 2, pos=where), factor),
        log_prob(3),
    )
    assert list(swept["specs"].values) == specs
    assert swept["factor"].dtype == float
    assert swept["where"].values.tolist() == ["end", "S2"]
    assert swept.shape == (2, 2, 2, 3)


def test_the_cost_is_what_ran(absolute_model):
    prompts = ragged_prompts()
    swept = sweep(
        absolute_model,
        prompts,
        {"layer": range(3), "head": range(4)},
        lambda layer, head: zero(Site("z", layer, head)),
        log_prob(3),
    )
    tokens = 3 * 7  # rows times width
    assert swept.attrs["arms"] == 12
    assert swept.attrs["token_layers_naive"] == 12 * tokens * 3
    # Four arms from each of layers 0, 1 and 2; the base run up to layer 2. The arms of the last
    # layer run by themselves, the others need only the last queries there.
    assert swept.attrs["token_layers"] == 4 * tokens * (3 + 2 + 1) + 2 * tokens
    assert swept.attrs["passes"] == 2 + 1
    assert swept.attrs["seconds"] > 0
    assert 0 < swept.attrs["peak_bytes_planned"] < 1 << 22


@pytest.mark.parametrize("budget", [1, 10**6])
def test_progress_tells_the_share_that_is_done(absolute_model, budget):
    seen = []
    swept = sweep(
        absolute_model,
        ragged_prompts(),
        {"head": range(4)},
        lambda head: zero(Site("z", 1, head)),
        log_prob(3),
        budget_bytes=budget,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] == swept.attrs["token_layers"]
    assert len(seen) == swept.attrs["passes"] + 1  # and the beginning
    assert swept.attrs["passes"] == 2 or budget == 1
    assert seen == sorted(seen)
