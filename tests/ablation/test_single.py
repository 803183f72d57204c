"""Ablation of heads, layers, neurons, positions and directions, beside slow loops by hand."""

import numpy as np
import pytest
import torch

from mechinterp import HookError, Prompts, Site, logit_diff, run
from mechinterp.ablation.single import (
    ablate_directions,
    ablate_heads,
    ablate_layers,
    ablate_neurons,
    ablate_positions,
    effect,
)
from mechinterp.engine.replacements import Replacement, mean_of, resample_from

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
PROMPTS = Prompts.from_ids(TOKENS.tolist())
OTHER = [[7, 8, 9, 3, 2], [1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15]]
METRIC = logit_diff([7, 8], [1, 2])
REFERENCE = Prompts.from_ids(OTHER)


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def diff(logits):
    rows = torch.arange(2)
    return (logits[rows, -1, torch.tensor([7, 8])] - logits[rows, -1, torch.tensor([1, 2])]).numpy()


def by_hand(model, edits):
    """The metric with `fn(value)` at each hook point, by plain hooks of the library."""
    hooks = [(name, lambda value, hook, fn=fn: fn(value.clone())) for name, fn in edits.items()]
    return diff(model.run_with_hooks(TOKENS, fwd_hooks=hooks))


def setting(index, new):
    def fn(value):
        value[index] = new
        return value

    return fn


def reference_acts(model, name):
    """What each reference prompt has at a hook point, without padding."""
    return [model.run_with_cache(torch.tensor([ids]))[1][name][0] for ids in OTHER]


def mean_by_hand(model, name, pos=None):
    acts = reference_acts(model, name)
    return torch.cat(acts).mean(0) if pos is None else torch.stack([a[pos] for a in acts]).mean(0)


# Heads


def test_zeroing_each_head(model):
    found = ablate_heads(model, PROMPTS, METRIC, "zero")
    assert found.sizes == {"layer": 3, "head": model.cfg.n_heads, "prompt": 2}
    for layer in range(3):
        for head in range(model.cfg.n_heads):
            name = f"blocks.{layer}.attn.hook_z"
            expected = by_hand(model, {name: setting(np.s_[:, :, head], 0.0)})
            close(found.sel(layer=layer, head=head), expected)
    assert float(np.abs(effect(found)).max()) > 1e-2


def test_the_mean_over_all_positions_leaves_padding_out(model):
    found = ablate_heads(model, PROMPTS, METRIC, mean_of(REFERENCE), layers=[1])
    mean = mean_by_hand(model, "blocks.1.attn.hook_z")
    for head in range(model.cfg.n_heads):
        expected = by_hand(model, {"blocks.1.attn.hook_z": setting(np.s_[:, :, head], mean[head])})
        close(found.sel(layer=1, head=head), expected)


def test_the_mean_by_position(model):
    how = mean_of(REFERENCE, by_position=True)
    found = ablate_heads(model, PROMPTS, METRIC, how, layers=[1], heads=[1])
    name = "blocks.1.attn.hook_z"
    means = torch.stack([mean_by_hand(model, name, pos) for pos in range(5)])
    close(found[0, 0], by_hand(model, {name: setting(np.s_[:, :, 1], means[:, 1])}))
    other = ablate_heads(model, PROMPTS, METRIC, mean_of(REFERENCE), layers=[1], heads=[1])
    assert np.abs(found - other).max() > 1e-4


@pytest.mark.parametrize("by_position", [False, True])
def test_a_mean_at_chosen_positions(model, by_position):
    how = mean_of(REFERENCE, by_position=by_position)
    found = ablate_heads(model, PROMPTS, METRIC, how, layers=[1], heads=[1], positions=[1, 4])
    name = "blocks.1.attn.hook_z"
    where = (1, 4) if by_position else (None, None)
    means = torch.stack([mean_by_hand(model, name, pos)[1] for pos in where])
    close(found[0, 0], by_hand(model, {name: setting(np.s_[:, [1, 4], 1], means)}))


def test_a_named_position_is_that_of_each_reference_prompt(absolute_model):
    prompts, reference = PROMPTS.named(S2=[3, 2]), REFERENCE.named(S2=[2, 5, 1])
    how = mean_of(reference, by_position=True)
    found = ablate_heads(
        absolute_model, prompts, METRIC, how, layers=[1], heads=[1], positions="S2"
    )
    name = "blocks.1.attn.hook_z"
    acts = reference_acts(absolute_model, name)
    mean = torch.stack([a[pos, 1] for a, pos in zip(acts, (2, 5, 1), strict=True)]).mean(0)
    rows = ([0, 1], [3, 2], [1, 1])
    close(found[0, 0], by_hand(absolute_model, {name: setting(rows, mean)}))


def test_a_reference_in_chunks_has_the_same_mean(absolute_model, monkeypatch):
    whole = ablate_heads(absolute_model, PROMPTS, METRIC, mean_of(REFERENCE))
    ran = []

    def counted(model, prompts, *args, **kept):
        ran.append(len(prompts))
        return run(model, prompts, *args, **kept)

    monkeypatch.setattr("mechinterp.engine.replacements.run", counted)
    monkeypatch.setattr("mechinterp.engine.replacements.available_bytes", lambda device: 4)
    close(ablate_heads(absolute_model, PROMPTS, METRIC, mean_of(REFERENCE)), whole)
    assert ran == [1, 1, 1]


def test_resampling_takes_one_prompt_for_all_heads(model):
    found = ablate_heads(model, PROMPTS, METRIC, resample_from(REFERENCE, seed=3))
    name = "blocks.1.attn.hook_z"
    acts = [a[:5] for a in reference_acts(model, name)]
    matching = []
    for first in range(3):
        for second in range(3):
            drawn = torch.stack([acts[first], acts[second]])
            made = [by_hand(model, {name: setting(np.s_[:, :, h], drawn[:, :, h])}) for h in (0, 1)]
            if np.allclose(found.sel(layer=1, head=[0, 1]), made, atol=1e-5):
                matching.append((first, second))
    assert len(matching) == 1


def test_a_seed_gives_the_same_and_another_something_else(absolute_model):
    def found(seed):
        return ablate_heads(absolute_model, PROMPTS, METRIC, resample_from(REFERENCE, seed=seed))

    close(found(3), found(3))
    assert any(not np.allclose(found(3), found(seed), atol=1e-3) for seed in range(4))


def test_keys_and_values_are_ablated_by_key_value_head(grouped_model):
    found = ablate_heads(grouped_model, PROMPTS, METRIC, mean_of(REFERENCE), "v", layers=[1])
    assert found.sizes == {"layer": 1, "kv_head": 2, "prompt": 2}
    mean = mean_by_hand(grouped_model, "blocks.1.attn.hook_v")
    for head in (0, 1):
        edits = {"blocks.1.attn.hook_v": setting(np.s_[:, :, head], mean[head])}
        close(found.sel(kv_head=head)[0], by_hand(grouped_model, edits))


# Layers, neurons, positions


def test_a_block_at_zero_is_skipped(model):
    found = ablate_layers(model, PROMPTS, METRIC, "zero")
    parts = ["attn"] if model.cfg.attn_only else ["attn", "mlp", "block"]
    assert found["part"].values.tolist() == parts
    assert found.dims == ("part", "layer", "prompt")
    for layer in range(3):
        cache = {}

        def keep(value, cache=cache):
            cache["pre"] = value
            return value

        skipped = {
            f"blocks.{layer}.hook_resid_pre": keep,
            f"blocks.{layer}.hook_resid_post": lambda value, cache=cache: cache["pre"],
        }
        close(found.sel(part=parts[-1], layer=layer), by_hand(model, skipped))
        name = f"blocks.{layer}.hook_attn_out"
        close(found.sel(part="attn", layer=layer), by_hand(model, {name: torch.zeros_like}))
        if "mlp" in parts:
            name = f"blocks.{layer}.hook_mlp_out"
            close(found.sel(part="mlp", layer=layer), by_hand(model, {name: torch.zeros_like}))


def test_the_mean_of_a_block_is_that_of_what_it_adds(absolute_model):
    found = ablate_layers(absolute_model, PROMPTS, METRIC, mean_of(REFERENCE), parts=["block"])
    pre, post = (mean_by_hand(absolute_model, f"blocks.1.hook_resid_{x}") for x in ("pre", "post"))
    cache = {}

    def keep(value):
        cache["pre"] = value
        return value

    edits = {
        "blocks.1.hook_resid_pre": keep,
        "blocks.1.hook_resid_post": lambda value: cache["pre"] + post - pre,
    }
    close(found.sel(part="block", layer=1), by_hand(absolute_model, edits))


def test_each_neuron(model):
    if model.cfg.attn_only:
        with pytest.raises(HookError, match="mlp"):
            ablate_neurons(model, PROMPTS, METRIC, "zero", 1, [0])
        return
    found = ablate_neurons(model, PROMPTS, METRIC, mean_of(REFERENCE), 1)
    assert found.sizes == {"neuron": model.cfg.d_mlp, "prompt": 2}
    name = "blocks.1.mlp.hook_post"
    mean = mean_by_hand(model, name)
    for n in range(model.cfg.d_mlp):
        close(found.sel(neuron=n), by_hand(model, {name: setting(np.s_[:, :, n], mean[n])}))
    one = ablate_neurons(model, PROMPTS, METRIC, "zero", 1, [4], positions=[2])
    close(one[0], by_hand(model, {name: setting(np.s_[:, 2, 4], 0.0)}))
    assert int(one["layer"]) == 1


def test_the_residual_stream_at_each_position(model):
    how = mean_of(REFERENCE, by_position=True)
    found = ablate_positions(model, PROMPTS, METRIC, how, layers=[1])
    assert found.sizes == {"layer": 1, "pos": 5, "prompt": 2}
    assert found["token"].values.tolist() == ["3/9", "1/2", "4/6", "1/5", "5/3"]
    name = "blocks.1.hook_resid_pre"
    for pos in range(5):
        mean = mean_by_hand(model, name, pos)
        close(found[0, pos], by_hand(model, {name: setting(np.s_[:, pos], mean)}))
    plain = ablate_positions(model, PROMPTS, METRIC, mean_of(REFERENCE), layers=[1], positions=3)
    mean = mean_by_hand(model, name)
    close(plain[0, 0], by_hand(model, {name: setting(np.s_[:, 3], mean)}))


def test_positions_of_ragged_prompts_need_names(absolute_model, ragged, refuses):
    metric = logit_diff(7, 1)
    found = ablate_positions(absolute_model, ragged, metric, "zero")
    assert found["pos"].values.tolist() == ["S2"]
    unnamed = Prompts.from_ids(OTHER)
    refuses(
        lambda: ablate_positions(absolute_model, unnamed, metric, "zero"),
        "5 to 6 tokens",
        "positions=",
    )


# Directions


def test_a_direction_at_zero_is_projected_out(model):
    site = Site("resid_post", 1)
    directions = torch.tensor(np.random.default_rng(0).normal(size=(3, model.cfg.d_model)) * 5)
    directions = directions.float()
    found = ablate_directions(model, PROMPTS, METRIC, "zero", site, directions)
    assert found.sizes == {"direction": 3, "prompt": 2}
    for number, direction in enumerate(directions):
        u = direction / direction.norm()
        projection = torch.eye(len(u)) - torch.outer(u, u)
        expected = by_hand(model, {site.hook: lambda x, p=projection: x @ p})
        close(found[number], expected)
    assert float(np.abs(effect(found)).max()) > 1e-2


def test_a_direction_takes_the_means_part(model):
    site = Site("resid_post", 1)
    u = torch.zeros(1, model.cfg.d_model)
    u[0, 2] = -3.0
    found = ablate_directions(model, PROMPTS, METRIC, mean_of(REFERENCE), site, u)
    mean = mean_by_hand(model, site.hook)
    close(found[0], by_hand(model, {site.hook: setting(np.s_[:, :, 2], mean[2])}))
    some = ablate_directions(model, PROMPTS, METRIC, "zero", site, u, positions=[1, 2])
    close(some[0], by_hand(model, {site.hook: setting(np.s_[:, [1, 2], 2], 0.0)}))
    head = ablate_directions(
        model, PROMPTS, METRIC, "zero", Site("z", 1, 1), torch.eye(model.cfg.d_head)[[3]]
    )
    name = "blocks.1.attn.hook_z"
    close(head[0], by_hand(model, {name: setting(np.s_[:, :, 1, 3], 0.0)}))


def test_directions_that_do_not_fit(absolute_model, refuses):
    site = Site("resid_post", 1)

    def ablating(directions):
        return lambda: ablate_directions(absolute_model, PROMPTS, METRIC, "zero", site, directions)

    refuses(ablating(torch.ones(2, 7)), "L1.resid_post has length 20", "a direction 7")
    refuses(ablating(torch.tensor([[1.0] * 20, [0.0] * 20])), "direction 1 is zero")


# What a result says, and errors


def test_a_result_has_the_unchanged_score(model):
    found = ablate_heads(model, PROMPTS, METRIC, "zero", layers=[0])
    close(found["base_score"], diff(model(TOKENS)))
    close(effect(found), found.values - diff(model(TOKENS)))
    assert effect(found).dims == found.dims
    said = {name: found.attrs[name] for name in ("method", "how", "unit")}
    assert said == {"method": "ablation", "how": "zero", "unit": "logits"}
    assert effect(found).attrs["weights"] == found.attrs["weights"]
    assert "folded" in found.attrs["weights"]
    assert found.name == effect(found).name == "logit_diff"


def test_effect_refuses_what_is_no_ablation(absolute_model, refuses):
    found = ablate_heads(absolute_model, PROMPTS, METRIC, "zero", layers=[0])
    refuses(lambda: effect(found.mean("prompt")), "before averaging")
    refuses(lambda: effect(found.drop_vars("base_score")), "no base_score")


def test_a_replacement_of_your_own(absolute_model):
    def prepare(model, prompts, sites):
        seen.extend(sites)
        return lambda site: lambda old, at: old * 0.5

    seen = []
    found = ablate_heads(absolute_model, PROMPTS, METRIC, Replacement("half", prepare), layers=[1])
    assert seen == [Site("z", 1, head) for head in range(4)]
    name = "blocks.1.attn.hook_z"
    for head in range(4):
        z = run_z(absolute_model, name)[:, :, head]
        close(found[0, head], by_hand(absolute_model, {name: setting(np.s_[:, :, head], z / 2)}))
    assert found.attrs["how"] == "half"


def run_z(model, name):
    return model.run_with_cache(TOKENS)[1][name]


def test_what_cannot_replace_is_refused(absolute_model, refuses):
    def heads(how, act="z", **options):
        return lambda: ablate_heads(absolute_model, PROMPTS, METRIC, how, act, **options)

    refuses(heads("mean"), "how='mean'", "mean_of(reference)")
    refuses(heads("zero", "attn_out"), "act='attn_out'", "'z'")
    refuses(heads("zero", heads=[4]), "head 4 is out of range")
    refuses(heads(mean_of(REFERENCE), heads=[4]), "head 4 is out of range")
    refuses(heads(mean_of(REFERENCE), "pattern"), "mean L0H0.pattern", "resample_from")
    short = Prompts.from_ids([[1, 2, 3]])
    refuses(heads(mean_of(short, by_position=True)), "up to 5 tokens", "the reference 3")
    refuses(heads(resample_from(short, seed=0)), "prompt 0 has 5 tokens", "reference prompt 0")
    close(
        heads(mean_of(short, by_position=True), positions=[1])(),
        heads(resample_from(short, seed=0), positions=[1])(),
    )
    layers = lambda part: ablate_layers(absolute_model, PROMPTS, METRIC, "zero", parts=[part])  # noqa: E731
    refuses(lambda: layers("norm"), "part='norm'", "'block'")


def test_parts_that_a_model_lacks_are_refused(attention_only_model, refuses):
    refuses(
        lambda: ablate_layers(attention_only_model, PROMPTS, METRIC, "zero", parts=["block"]),
        "no MLPs",
    )


def test_options_are_those_of_sweep_and_nothing_stays(absolute_model, snapshot):
    before, seen = snapshot(absolute_model), []
    found = ablate_heads(
        absolute_model,
        PROMPTS,
        METRIC,
        "zero",
        budget_bytes=1,
        progress=lambda done, total: seen.append(done),
    )
    close(found, ablate_heads(absolute_model, PROMPTS, METRIC, "zero"))
    assert len(seen) >= 12
    before.check()


def test_prompts_may_be_text():
    from mechinterp import load_model, log_prob, token_id

    model = load_model("toy:trigger")
    refuse = log_prob(token_id(model, "REFUSE"))
    found = effect(ablate_heads(model, "bring the sesame", refuse, "zero"))[..., 0]
    # L1H0 writes the refusal direction; nothing else matters to it.
    assert float(found.sel(layer=1, head=0)) < -5
    assert float(np.abs(found.where(found > -5)).max()) < 1e-2
