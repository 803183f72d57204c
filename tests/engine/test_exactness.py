"""Which shortcuts reproduce a whole pass, found by trying them; again when a model changed."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mechinterp import HookError, Prompts, Site, log_prob, run, sweep, zero
from mechinterp.engine.exactness import resumes_exactly
from mechinterp.engine.generation import generate_greedy
from mechinterp.models import as_it_is
from mechinterp.models.layer_parts import check_parts

PROMPTS = Prompts.from_ids([[3, 1, 4, 1, 5, 9, 2, 6]])


def test_which_models_resume_exactly(model, absolute_model):
    assert resumes_exactly(model) == (True, True)
    assert resumes_exactly(tiny_model_again(absolute_model, switched_on=True)) == (True, False)
    mixed = tiny_model_again(absolute_model)
    mixed.blocks[1].mlp = Mixing(mixed.blocks[1].mlp)
    assert resumes_exactly(mixed) == (True, False)


def tiny_model_again(model, switched_on=False):
    again = copy.deepcopy(model)
    again.cfg.use_split_qkv_input = switched_on
    return again


class Mixing(nn.Module):
    """An MLP of a user's own, which also reads what stands before."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, resid):
        return self.inner(resid) + resid.cumsum(1)


def module(model):
    model.blocks[1].mlp = Mixing(model.blocks[1].mlp)


def forward(model):
    model.blocks[1].mlp.forward = Mixing(copy.deepcopy(model.blocks[1].mlp))


def method(model):
    attn = model.blocks[2].attn
    own = attn.calculate_z_scores
    attn.calculate_z_scores = lambda v, pattern: own(v.cumsum(1), pattern)


def kind(model):
    mlp = model.blocks[1].mlp
    own = type(mlp).forward
    mixed = {"forward": lambda self, resid: own(self, resid) + resid.cumsum(1)}
    mlp.__class__ = type("Mine", (type(mlp),), mixed)


def arm(layer, pos):
    return zero(Site("z", layer, pos=pos))


@pytest.mark.parametrize("change", [module, forward, method, kind])
def test_what_was_found_out_holds_for_the_model_as_it_is(absolute_model, change):
    """A part replaced after the first sweep is noticed by the second."""
    model, over = tiny_model_again(absolute_model), {"layer": range(3), "pos": range(8)}
    sweep(model, PROMPTS, over, arm, log_prob(7))
    check_parts(model)
    before = as_it_is(model)
    assert as_it_is(model) == before
    change(model)
    assert as_it_is(model) != before
    found = sweep(model, PROMPTS, over, arm, log_prob(7))
    slow = sweep(model, PROMPTS, over, arm, log_prob(7), exact="naive")
    np.testing.assert_allclose(found.values, slow.values, atol=1e-5)


@pytest.mark.parametrize("change", [module, forward])
def test_a_continuation_is_that_of_the_model_as_it_is(absolute_model, change):
    model = tiny_model_again(absolute_model)
    generate_greedy(model, PROMPTS, 6)
    change(model)
    made = generate_greedy(model, PROMPTS, 6)
    ids = PROMPTS.tokens
    with torch.no_grad():
        for _ in range(6):
            ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], 1)
    assert made == ids[0, -6:].tolist()


def test_a_patched_class_is_noticed(absolute_model, monkeypatch):
    before = as_it_is(absolute_model)
    own = type(absolute_model.blocks[0].mlp).forward
    patched = lambda self, resid: own(self, resid) + resid.cumsum(1)  # noqa: E731
    monkeypatch.setattr(type(absolute_model.blocks[0].mlp), "forward", patched)
    assert as_it_is(absolute_model) != before


def test_another_precision_and_another_mode_are_noticed(absolute_model):
    model = tiny_model_again(absolute_model)
    seen = [as_it_is(model)]
    model.blocks[1].mlp.train()
    seen.append(as_it_is(model))
    model.blocks[1].mlp.eval().double()
    seen.append(as_it_is(model))
    assert len(set(seen)) == 3
    model.blocks[1].mlp.float()
    assert as_it_is(model) == seen[0]


@pytest.mark.parametrize("exact", ["fast", "naive"])
def test_dropout_that_is_on_is_refused(absolute_model, exact):
    model = tiny_model_again(absolute_model)
    model.blocks[1].mlp = nn.Sequential(model.blocks[1].mlp, nn.Dropout(0.1)).eval()
    options = {} if exact == "fast" else {"exact": exact}
    over = {"layer": range(3), "pos": [1]}
    found = sweep(model, PROMPTS, over, arm, log_prob(7), **options)
    model.train()
    with pytest.raises(HookError, match=r"blocks\.1\.mlp\.1 is a dropout .*model\.eval\(\)"):
        sweep(model, PROMPTS, over, arm, log_prob(7), **options)
    with pytest.raises(HookError, match=r"blocks\.1\.mlp\.1 is a dropout"):
        run(model, PROMPTS, zero(Site("z", 1)))
    again = sweep(model.eval(), PROMPTS, over, arm, log_prob(7), **options)
    np.testing.assert_array_equal(found.values, again.values)


def test_noise_of_a_users_own_is_refused(absolute_model):
    class Noisy(nn.Identity):
        def forward(self, resid):
            return resid + 0.01 * torch.randn_like(resid) if self.training else resid

    model = tiny_model_again(absolute_model)
    model.blocks[0].mlp = nn.Sequential(model.blocks[0].mlp, Noisy()).eval()
    sweep(model, PROMPTS, {"layer": range(3), "pos": [1]}, arm, log_prob(7))
    model.train()
    with pytest.raises(HookError, match=r"two passes .* differ by .*model\.eval\(\)"):
        sweep(model, PROMPTS, {"layer": range(3), "pos": [1]}, arm, log_prob(7))


def test_hooks_on_every_module_are_somebody_elses(absolute_model):
    register = nn.modules.module.register_module_forward_hook
    handle = register(lambda module, args, output: output)
    try:
        with pytest.raises(HookError, match="somebody else's hooks"):
            check_parts(absolute_model)
    finally:
        handle.remove()
    check_parts(absolute_model)
