"""Estimates of patches: what they are to first order, and where the corrected ones are exact."""

import copy

import numpy as np
import pytest
import torch

from mechinterp import (
    Activations,
    HookError,
    Prompts,
    Site,
    edit,
    log_prob,
    logit_diff,
    put,
    read,
    run,
)
from mechinterp.core.metrics import top_token
from mechinterp.engine.gradients import site_gradients
from mechinterp.patching.attribution import (
    atp_star,
    attribution_patching,
    integrated_patching,
    qk_fixed_patching,
)

LAYERS = range(3)
ACTS = ("resid_pre", "attn_out", "z", "q", "k", "v", "pattern", "attn_scores")
WHOLE = [Site("embed"), *(Site(act, layer) for act in ACTS for layer in LAYERS)]
METRIC = log_prob([3, 20, 7])
LINEAR = logit_diff([3, 20, 7], 5)
CLOSE = {"atol": 2e-5, "rtol": 1e-4}
SCREENS = [attribution_patching, qk_fixed_patching, integrated_patching, atp_star]

# A grid of everything: whole activations, heads, positions by number and by name, neurons.
SITES = [
    Site("embed", pos="S2"),
    Site("resid_pre", 1),
    Site("attn_out", 0, pos="end"),
    Site("z", 2, 1, "end"),
    Site("z", 2, 1),
    Site("z", 2),
    Site("q", 1, 3, 2),
    Site("k", 0, 1, "S2"),
    Site("k", 0, 1),
    Site("v", 1, pos=0),
    Site("pattern", 1, 2, "end"),
    Site("pattern", 0),
    Site("attn_scores", 2, 0, "end"),
]
OVER = {"site": SITES}


def itself(site):
    return site


def in_double(model):
    doubled = copy.deepcopy(model).double()
    doubled.cfg.dtype = torch.float64
    return doubled


@pytest.fixture
def acts(model, source_of):
    return source_of(model)


def test_an_estimate_is_the_change_times_the_gradient(model, ragged, acts, by_hand):
    found = attribution_patching(model, ragged, acts, OVER, itself, METRIC)
    base = run(model, ragged, read(*WHOLE)).acts
    slopes = site_gradients(model, ragged, WHOLE, METRIC)
    for row, site in enumerate(SITES):
        np.testing.assert_allclose(found[row], by_hand(acts, base, slopes, site), **CLOSE)


def test_it_has_the_names_of_a_sweep(absolute_model, ragged, source_of, exact):
    over = {"layer": LAYERS, "head": [3, 1], "pos": [0, "end"]}
    acts = source_of(absolute_model)

    def site(layer, head, pos):
        return Site("z", layer, head, pos)

    found = attribution_patching(absolute_model, ragged, acts, over, site, METRIC)
    swept = exact(absolute_model, ragged, acts, over, site, METRIC)
    assert found.dims == swept.dims
    assert found.name == "log_prob"
    for name in swept.coords:
        assert list(found[name].values) == list(swept[name].values)
    tokens = ragged.tokens.numel()
    wanted = {"unit": "nats", "arms": 12, "passes": 1, "backward_passes": 1}
    wanted |= {"token_layers": 3 * tokens, "token_layers_naive": 12 * 3 * tokens}
    assert wanted.items() <= found.attrs.items()
    assert found.attrs["sign"].startswith("Negative change: the patch lowers the metric")
    assert found.attrs["supports"] == "negative"
    assert found.attrs["peak_bytes_planned"] > 0


def test_it_is_exact_where_the_model_is_linear(attention_only_model, ragged, source_of, exact):
    acts = source_of(attention_only_model)
    over = {
        "site": [Site("z", 2, 1, "end"), Site("attn_out", 2), Site("v", 2, 3), Site("pattern", 2)]
    }
    given = (attention_only_model, ragged, acts, over, itself, LINEAR)
    swept = exact(*given)
    assert abs(swept).max() > 0.1
    np.testing.assert_allclose(attribution_patching(*given), swept, **CLOSE)
    np.testing.assert_allclose(qk_fixed_patching(*given), swept, **CLOSE)


def test_a_small_change_has_the_effect_that_was_estimated(model, ragged, source_of):
    double = in_double(model)
    acts, base = source_of(double), run(double, ragged, read(*WHOLE)).acts
    found = attribution_patching(double, ragged, acts, OVER, itself, METRIC)
    step = 1e-5
    for row, site in enumerate(SITES):
        change = (acts[site] - base[site]).nan_to_num()
        towards = edit(site, lambda value, at, change=change: value + step * change)
        moved = METRIC(run(double, ragged, towards)) - METRIC(run(double, ragged))
        np.testing.assert_allclose(found[row], moved.numpy() / step, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("screen", SCREENS)
def test_prompts_in_several_passes_are_prompts_in_one(model, ragged, acts, screen):
    told = []
    given = (model, ragged, acts, OVER, itself, METRIC)
    together = screen(*given)
    one_by_one = screen(*given, budget_bytes=1, progress=lambda *at: told.append(at))
    np.testing.assert_allclose(one_by_one, together, **CLOSE)
    n = one_by_one.attrs["backward_passes"]
    assert n == len(told) - 1
    assert told == [(done * 7 * 3, n * 7 * 3) for done in range(n + 1)], "in token-layers"


@pytest.mark.parametrize("screen", SCREENS)
def test_a_ragged_batch_is_each_prompt_alone(model, ragged, acts, screen):
    answers = [3, 20, 7]
    over = {"site": [site for site in SITES if site.act != "attn_scores"]}
    together = screen(model, ragged, acts, over, itself, log_prob(answers))
    for row, length in enumerate(ragged.lengths.tolist()):
        ids = [p.tokens[row, :length].tolist() for p in (ragged, acts.prompts)]
        s2 = [int(p.positions("S2")[row]) for p in (ragged, acts.prompts)]
        one, other = (Prompts.from_ids([i]).named(S2=at) for i, at in zip(ids, s2, strict=True))
        source = run(model, other, read(*WHOLE)).acts
        alone = screen(model, one, source, over, itself, log_prob(answers[row]))
        np.testing.assert_allclose(together[:, row], alone[:, 0], **CLOSE)


@pytest.mark.parametrize("screen", SCREENS)
def test_a_source_that_kept_only_what_is_patched_is_enough(model, ragged, acts, screen):
    other = acts.prompts
    narrow = run(model, other, read(*dict.fromkeys([Site("embed"), *SITES]))).acts
    given = (OVER, itself, METRIC)
    np.testing.assert_allclose(
        screen(model, ragged, narrow, *given), screen(model, ragged, acts, *given), **CLOSE
    )


def test_neurons(absolute_model, ragged, source_of, by_hand):
    neurons = {"layer": LAYERS, "neuron": range(28)}
    sites = [Site("mlp_post", layer) for layer in LAYERS]
    acts = source_of(absolute_model, sites)

    def site(layer, neuron):
        return Site("mlp_post", layer, neuron=neuron, pos="end")

    found = attribution_patching(absolute_model, ragged, acts, neurons, site, METRIC)
    base = run(absolute_model, ragged, read(*sites)).acts
    slopes = site_gradients(absolute_model, ragged, sites, METRIC)
    for layer in LAYERS:
        for neuron in (0, 27):
            wanted = by_hand(acts, base, slopes, site(layer, neuron))
            np.testing.assert_allclose(found[layer, neuron], wanted, **CLOSE)


# Queries and keys


# Between the base and the source


def test_integrated_patching_is_the_mean_of_gradients_on_the_way(model, ragged, acts, by_hand):
    embed = Site("embed")
    base = run(model, ragged, read(*WHOLE)).acts
    found = integrated_patching(model, ragged, acts, OVER, itself, METRIC, steps=2)
    halves = [
        site_gradients(
            model, ragged, WHOLE, METRIC, put(embed, base[embed] + a * (acts[embed] - base[embed]))
        )
        for a in (0.25, 0.75)
    ]
    for row, site in enumerate(SITES):
        wanted = sum(by_hand(acts, base, slopes, site) for slopes in halves) / 2
        np.testing.assert_allclose(found[row], wanted, **CLOSE)


def test_integrated_patching_is_complete_at_the_embedding(model, ragged, source_of):
    double = in_double(model)
    acts = source_of(double)
    over = {"site": [Site("embed")]}
    whole = run(double, ragged, put(Site("embed"), acts[Site("embed")]))
    wanted = (METRIC(whole) - METRIC(run(double, ragged))).numpy()
    off = []
    for steps in (4, 32, 256):
        given = (double, ragged, acts, over, itself, METRIC)
        found = integrated_patching(*given, steps=steps)
        off.append(np.abs(found[0] - wanted).mean().item())
        assert found.attrs["completeness_error"] == pytest.approx(off[-1], rel=1e-6)
    assert off[2] < 1e-3
    assert off[2] < off[1] / 8, "the midpoint rule's error falls with the square of the steps"


def test_a_source_without_embeddings(absolute_model, ragged, refuses, source_of):
    acts = source_of(absolute_model, [Site("z", 1)])
    over = {"site": [Site("z", 1)]}
    given = (absolute_model, ragged, acts, over, itself, METRIC)
    refuses(lambda: integrated_patching(*given), "embed was not read", "Add read(")
    refuses(lambda: integrated_patching(*given, steps=0), "steps=0")


# With a layer's gradient dropped


def test_atp_star_is_the_mean_size_with_each_layer_dropped(model, ragged, acts, by_hand):
    sites = [Site("z", 0, 1), Site("z", 1, 2, "end"), Site("resid_pre", 1), Site("embed")]
    found = atp_star(model, ragged, acts, {"site": sites}, itself, METRIC)
    base = run(model, ragged, read(*WHOLE)).acts
    total = np.zeros((len(sites), len(ragged)))
    for layer in LAYERS:
        writers = [Site("attn_out", layer)]
        writers += [] if model.cfg.attn_only else [Site("mlp_out", layer)]
        specs = ()
        for writer in writers:
            specs += edit(writer, lambda value, at: value.detach())
        slopes = site_gradients(model, ragged, WHOLE, METRIC, specs)
        total += np.abs([by_hand(acts, base, slopes, site) for site in sites])
    np.testing.assert_allclose(found, total / 2, **CLOSE)
    assert found.attrs["sign"].startswith("Size of the effect")
    assert found.attrs["supports"] == "none"


def test_atp_star_sees_effects_that_cancel(attention_only_model):
    model = copy.deepcopy(attention_only_model)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_O.zero_()
        # Layer 0 takes away from the only token all that is there: three heads of 7 make 21.
        for head in range(3):
            part = torch.eye(21)[:, 7 * head : 7 * head + 7]
            model.blocks[0].attn.W_V[head], model.blocks[0].attn.W_O[head] = part, -part.T
    site = Site("resid_pre", 0)
    base, other = (run(model, Prompts.from_ids([[token]]), read(site)).acts for token in (4, 11))
    given = (model, base.prompts, other, {"site": [site]}, itself, logit_diff(3, 5))
    direct = (other[site] - base[site])[0, 0] @ (model.W_U[:, 3] - model.W_U[:, 5])
    assert abs(direct) > 0.1
    # With layer 0 dropped the direct way is left; with layer 1 or 2, which do nothing, both.
    np.testing.assert_allclose(atp_star(*given), abs(direct.item()) / 2, rtol=1e-4)
    np.testing.assert_allclose(attribution_patching(*given), 0, atol=1e-5)


def test_atp_star_needs_another_layer(absolute_model, ragged, refuses, monkeypatch, source_of):
    monkeypatch.setattr(absolute_model.cfg, "n_layers", 1)
    acts = source_of(absolute_model, [Site("z", 0)])
    over = {"site": [Site("z", 0)]}
    refuses(lambda: atp_star(absolute_model, ragged, acts, over, itself, METRIC), "one layer")


# What is refused, and what is left behind


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_is_left(model, ragged, acts, screen, snapshot):
    before = snapshot(model)
    screen(model, ragged, acts, OVER, itself, METRIC)
    before.check()
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("screen", SCREENS)
def test_what_is_refused(absolute_model, ragged, screen, refuses, source_of):
    acts = source_of(absolute_model)

    def ask(site=SITES[0], source=acts, metric=METRIC, over=None, fn=itself):
        over = {"site": [site]} if over is None else over
        return lambda: screen(absolute_model, ragged, source, over, fn, metric)

    refuses(ask(Site("tokens")), "token ids")
    refuses(ask(Site("blocks.1.ln1.hook_scale")), "full hook name")
    refuses(ask(Site("z", 3)), "out of range")
    refuses(ask(Site("z", 1, 9)), "head 9 is out of range")
    refuses(ask(Site("mlp_out", 1)), "L1.mlp_out was not read")
    refuses(ask(Site("z", 1, pos="S9")), "no position is called 'S9'")
    refuses(ask(metric=top_token()), "no gradient")
    refuses(ask(over={"prompt": [0]}), "Rename it")
    refuses(ask(over={"site": []}), "no values")
    refuses(ask(fn=lambda site: "z"), "not a Site")
    fewer = Prompts.from_ids([[1, 2, 3, 4, 5, 6, 7]])
    source = run(absolute_model, fewer, read(*WHOLE)).acts
    refuses(ask(Site("z", 1), source), "the source has shape [1, 7, 4, 6], the value [3, 7, 4, 6]")


def test_what_is_not_finite_is_refused(absolute_model, ragged):
    site = Site("attn_scores", 1)
    scores = run(absolute_model, ragged, read(site)).acts[site].clone()
    scores[:, 0, 3, 1] = -torch.inf
    cut = Activations({site: scores}, ragged)
    with pytest.raises(HookError, match=r"not finite for \{'site': Site\(.*patch \"pattern\""):
        attribution_patching(absolute_model, ragged, cut, {"site": [site]}, itself, METRIC)
