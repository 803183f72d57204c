"""What a model is said to have is what runs, with the axes that are said."""

import re

import pytest
import torch

from mechinterp import HookError, Prompts, Site, describe, load_model, read, run
from mechinterp.core.sites import ACTS
from mechinterp.models.facts import SWITCHES, fired_points
from mechinterp.models.hook_points import axis_size, check_site, first_layer, read_bytes


def values_by_hand(model, ids):
    """Every activation of a pass, by full name."""
    kept = {}
    with torch.no_grad():
        model.run_with_hooks(
            torch.tensor(ids),
            fwd_hooks=[(lambda name: True, lambda value, hook: kept.update({hook.name: value}))],
        )
    return kept


def listed(model):
    """What describe says, line by line: short name -> the rest."""
    lines = describe(model).split("\n\n")[1].splitlines()
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def test_describe_lists_what_is_there_and_what_runs(model):
    check_description(model)


def test_describe_with_every_hook_point_on(switched_on_model):
    check_description(switched_on_model)


def check_description(model):
    fired = values_by_hand(model, [[1, 2, 3, 4], [5, 6, 7, 8]])
    lines = listed(model)
    last = model.cfg.n_layers - 1
    for name, act in ACTS.items():
        hook = act.hook.format(layer=last)
        assert (name in lines) == (hook in model.hook_dict or name == "tokens")
        if name in lines and name != "tokens":
            switched_off = act.switch and not getattr(model.cfg, SWITCHES[act.switch])
            if hook in fired:
                assert re.search(r" on$", lines[name])
            elif switched_off:
                assert lines[name].endswith(f"off: load_model(..., {act.switch}=True)")
            else:
                assert lines[name].endswith("never runs on this model")
            assert ("L0..L2" in lines[name]) == act.per_layer


def test_axes_are_as_long_as_is_said(model):
    check_axes(model)


def test_axes_with_every_hook_point_on(switched_on_model):
    check_axes(switched_on_model)


def check_axes(model):
    values = values_by_hand(model, [[1, 2, 3, 4], [5, 6, 7, 8]])
    checked = 0
    for name, act in ACTS.items():
        value = values.get(act.hook.format(layer=1))
        if value is None or (name.startswith("ln1") and model.cfg.use_split_qkv_input):
            continue
        sizes = {"prompt": 2, "pos": 4, "src": 4}
        said = [sizes[a] if a in sizes else axis_size(model, name, a) for a in act.axes]
        assert list(value.shape) == said, name
        checked += 1
    assert checked > 12


@pytest.mark.parametrize(
    ("option", "act"),
    [
        ("attn_in", "attn_in"),
        ("split_qkv", "v_input"),
        ("mlp_in", "mlp_in"),
        ("head_result", "result"),
    ],
)
def test_each_option_switches_its_points_on(option, act):
    off, on = load_model("toy:and"), load_model("toy:and", **{option: True})
    assert listed(off)[act].endswith(f"off: load_model(..., {option}=True)")
    assert listed(on)[act].endswith(" on")
    assert f"blocks.0.{ACTS[act].hook.split('.', 2)[2]}" in fired_points(on) - fired_points(off)


def test_points_without_a_short_name_are_listed_in_full():
    text = describe(load_model("toy:induction"))
    assert "induction" in text.splitlines()[0]
    assert "layers" in text.splitlines()[1]
    assert "unembedding" in text.splitlines()[2]
    assert "ln1_scale" not in text


def test_every_point_is_listed_once(model):
    text = describe(model)
    short, _, full = text.partition("by full hook name only")
    named = {a.hook.format(layer=2) for n, a in ACTS.items() if re.search(rf"^{n} ", short, re.M)}
    others = set(full.split(":", 1)[1].split()) if full else set()
    of_last_layer = {h for h in model.hook_dict if not re.match(r"blocks\.[01]\.", h)}
    unnamed = {h for h in of_last_layer if h not in named}
    assert unnamed == {h for h in others if "." in h or h.startswith("hook_")}


def test_fired_points_are_those_that_run(model, snapshot):
    before = snapshot(model)
    assert fired_points(model) == set(values_by_hand(model, [[0]]))
    before.check()


def test_a_site_of_the_model_passes(model):
    check_site(model, Site("tokens", pos=99), "x")
    check_site(model, Site("z", 2, model.cfg.n_heads - 1), "x")
    check_site(model, Site("blocks.1.hook_resid_pre"), "x")
    with pytest.raises(HookError, match=r"^my spec: layer 3 is out of range"):
        check_site(model, Site("z", 3), "my spec")


@pytest.mark.parametrize(
    ("site", "layer"),
    [
        (Site("embed"), 0),
        (Site("tokens"), 0),
        (Site("resid_pre", 0), 0),
        (Site("z", 2), 2),
        (Site("ln_final_normalized"), 3),
        (Site("unembed_in"), 3),
        (Site("logits"), 3),
        (Site("unembed.hook_out"), 3),
    ],
)
def test_the_layer_that_a_site_touches_first(absolute_model, site, layer):
    assert first_layer(absolute_model, site) == layer


def test_bytes_that_reads_keep(grouped_model):
    prompts = Prompts.from_ids([[1, 2, 3, 4, 5], [6, 7]])
    sites = [
        Site("z", 0),
        Site("k", 1),
        Site("k", 1, 0, "end"),
        Site("pattern", 2),
        Site("pattern", 2, 1, 0),
        Site("mlp_post", 0, pos="end", neuron=2),
        Site("resid_pre", 1),
        Site("logits", pos="end"),
    ]
    acts = run(grouped_model, prompts, read(*sites)).acts
    kept = sum(acts[site].numel() * 4 for site in sites)
    assert read_bytes(grouped_model, prompts, sites) == kept
    assert read_bytes(grouped_model, prompts, []) == 0
