"""A missing gradient never counts as zero: every gradient is the same in every mode of torch.

In `inference_mode`, `no_grad` and `autocast`, with trained weights and with frozen ones, and of a
model that was loaded in `inference_mode`. Where there is no gradient, one sentence says so.
"""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from mechinterp import (
    HookError,
    Pair,
    Prompts,
    Site,
    ask,
    edit,
    kl,
    load_model,
    log_prob,
    read,
    run,
    sequence_log_prob,
    sweep,
    zero,
)
from mechinterp.attribution import gradient_x_input, integrated_gradients
from mechinterp.circuits import (
    Contrast,
    acdc,
    atp_star_edges,
    eap,
    eap_ig,
    eap_ig_activations,
    eap_ig_neurons,
    eap_ig_nodes,
    eap_neurons,
    eap_nodes,
    exact_edges,
    gim,
    learned_mask,
    qk_fixed_edges,
    relp,
    swap_edges,
    top_n,
)
from mechinterp.engine import site_gradients
from mechinterp.layers import train_lens
from mechinterp.patching import (
    atp_star,
    attribution_patching,
    integrated_patching,
    qk_fixed_patching,
)

CLEAN, CORRUPT = [[3, 1, 4, 1, 5], [6, 5, 3, 5, 2]], [[3, 1, 7, 1, 5], [6, 5, 8, 5, 2]]
Z, Q, EMBED = Site("z", 1), Site("q", 1), Site("embed")

MODES = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "trained": nullcontext,
}


class World:
    """A model and all that its gradients are asked of, made in the mode that is on."""

    def __init__(self, model):
        self.model = model
        self.clean, self.corrupt = Prompts.from_ids(CLEAN), Prompts.from_ids(CORRUPT)
        self.metric = log_prob([5, 7])
        other = run(model, self.corrupt, read(Q, Z, EMBED, Site("resid_pre", 1)))
        self.source, self.kl = other.acts, kl(other.logits[:, 0])
        first = Prompts.from_ids(CLEAN[:1])
        self.question = ask(model, first, outputs=[3, 4])
        self.whole = ask(model, first, outputs=[3, 4], metric=sequence_log_prob())
        self.contrast = Contrast.from_pair(model, Pair(self.clean, self.corrupt), self.metric)

    def patched(self, function, site=lambda head: Site("q", 1, head), over=range(4), **options):
        over = {"head": over}
        return function(
            self.model, self.clean, self.source, over, site, self.metric, **options
        ).values

    def gradient(self, metric):
        return site_gradients(self.model, self.clean, [Z], metric)[Z].numpy()

    def heads(self):
        return sweep(
            self.model, self.clean, {"layer": [0, 1]}, lambda layer: zero(Site("z", layer)), self.kl
        ).values


def some_edges(world):
    return top_n(eap(world.contrast), 30)


def of_contrast(function, **options):
    return lambda world: function(world.contrast, **options)


GRADIENTS = {
    "site_gradients": lambda world: world.gradient(world.metric),
    "of a distance": lambda world: world.gradient(world.kl),
    "attribution_patching": lambda world: world.patched(
        attribution_patching, lambda head: Site("resid_pre", 1, pos=head)
    ),
    "qk_fixed_patching": lambda world: world.patched(qk_fixed_patching),
    "atp_star": lambda world: world.patched(atp_star),
    "integrated_patching": lambda world: world.patched(integrated_patching, steps=2),
    "gradient_x_input": lambda world: gradient_x_input(world.question).values,
    "integrated_gradients": lambda world: integrated_gradients(world.whole, steps=9).values,
    "eap": of_contrast(eap),
    "eap_ig": of_contrast(eap_ig, steps=2),
    "relp": of_contrast(relp),
    "gim": of_contrast(gim),
    "qk_fixed_edges": of_contrast(qk_fixed_edges),
    "atp_star_edges": of_contrast(atp_star_edges),
    "eap_ig_activations": of_contrast(eap_ig_activations, steps=2),
    "eap_nodes": of_contrast(eap_nodes),
    "eap_ig_nodes": of_contrast(eap_ig_nodes, steps=2),
    "eap_neurons": of_contrast(eap_neurons),
    "eap_ig_neurons": of_contrast(eap_ig_neurons, steps=2),
    "learned_mask": lambda world: learned_mask(world.contrast, eap(world.contrast), 9, steps=2),
    "swap_edges": lambda world: swap_edges(
        world.contrast, top_n(eap(world.contrast), 30), rounds=1
    ),
    "acdc": of_contrast(acdc, tau=0.1),
    "train_lens": lambda world: train_lens(world.model, world.clean, steps=2).weights.numpy(),
    "a sweep, exact edges and a run, which need none": lambda world: np.concatenate(
        [world.heads().ravel(), numbers(exact_edges(world.contrast)).ravel()]
    ),
}


def numbers(found):
    """The numbers of whatever a function gives."""
    for name in ("mean", "mask", "values"):
        if hasattr(found, name) and not isinstance(found, np.ndarray):
            made = getattr(found, name)
            return np.asarray(made() if callable(made) else made, dtype=float)
    return np.asarray(found, dtype=float)


@pytest.fixture(scope="module")
def right(tiny):
    world = World(tiny("absolute"))
    return {name: numbers(of(world)) for name, of in GRADIENTS.items()}


@pytest.fixture(scope="module", params=MODES)
def mode_and_world(request, tiny):
    model = tiny("absolute")
    model.requires_grad_(request.param == "trained")
    with MODES[request.param]():
        return MODES[request.param], World(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_the_same_in_every_mode(mode_and_world, right, name):
    mode, world = mode_and_world
    with mode():
        inside = numbers(GRADIENTS[name](world))
    np.testing.assert_allclose(inside, right[name], atol=1e-6, rtol=1e-5)
    assert np.nanmax(np.abs(inside)) > 1e-3
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("name", ["eap", "integrated_gradients", "of a distance", "atp_star"])
def test_what_was_made_in_inference_mode_is_of_use_outside(absolute_model, right, name):
    with torch.inference_mode():
        world = World(absolute_model)
    np.testing.assert_allclose(numbers(GRADIENTS[name](world)), right[name], atol=1e-6, rtol=1e-5)


def test_of_a_model_that_was_loaded_in_inference_mode():
    site, metric = Site("z", 1), log_prob(2)

    def slope(model):
        return site_gradients(model, "please bring the sesame", [site], metric)[site]

    with torch.inference_mode():
        inside = load_model("toy:trigger")
    assert torch.equal(slope(inside), slope(load_model("toy:trigger")))
    assert float(slope(inside).abs().max()) > 1e-3


def test_of_ones_own_model_made_in_inference_mode_a_sentence_says_what_to_do(tiny, refuses):
    with torch.inference_mode():
        model = tiny("absolute")
    refuses(
        lambda: site_gradients(model, Prompts.from_ids(CLEAN), [Z], log_prob(5)),
        "site_gradients: a tensor that was made inside torch.inference_mode has no gradients",
        "copy.deepcopy(model), made outside",
        kind=HookError,
    )
    outside = copy.deepcopy(model)
    found = site_gradients(outside, Prompts.from_ids(CLEAN), [Z], log_prob(5))[Z]
    assert float(found.abs().max()) > 1e-3


def test_an_edit_keeps_the_mode_of_its_caller(absolute_model):
    kept = []

    def keep(value, at):
        buffer.copy_(value)  # which torch allows in inference mode alone
        kept.append(torch.is_inference_mode_enabled())
        return value

    with torch.inference_mode():
        value = run(absolute_model, Prompts.from_ids(CLEAN), read(Z)).acts[Z]
        buffer = torch.empty_like(value)
        run(absolute_model, Prompts.from_ids(CLEAN), edit(Z, keep))
    assert kept == [True]
    assert torch.equal(buffer, value)
    assert not value.is_inference()
