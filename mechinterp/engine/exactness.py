"""Which shortcuts give a model's own numbers: each is tried against a whole pass before it is used.

A shortcut starts late, at a layer or a position, or runs fused attention. The trial takes a few
tokens and is made once for a model as it is: its modules, methods, mode and configuration.

>>> from mechinterp import load_model
>>> from mechinterp.engine.exactness import resumes_exactly
>>> resumes_exactly(load_model("toy:trigger"))
(True, True)
"""

from collections.abc import Hashable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mechinterp import models
from mechinterp.core.interrupts import interruptible
from mechinterp.core.modes import gradients_off
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError
from mechinterp.core.turns import lock_of
from mechinterp.engine.arms import Arm
from mechinterp.engine.base_run import compute_base
from mechinterp.engine.batch import Extent, run_batch
from mechinterp.models.fused_attention import FROM, can_fuse
from mechinterp.models.model import Model

_RESUMES: WeakKeyDictionary[Model, dict[Hashable, tuple[bool, bool]]] = WeakKeyDictionary()
_CONTINUES: WeakKeyDictionary[Model, dict[Hashable, bool]] = WeakKeyDictionary()
_FUSES: WeakKeyDictionary[Model, dict[Hashable, bool]] = WeakKeyDictionary()


def check_not_random(model: Model) -> None:
    """Check that no dropout is on: every pass would draw other numbers.

    Raises:
        HookError: if one is.
    """
    if random := models.random_part(model):
        raise HookError(
            f"{random} is a dropout in training mode, so every pass would draw other numbers. "
            f"Call model.eval()."
        )


def resumes_exactly(model: Model) -> tuple[bool, bool]:
    """Whether starting at a later layer, or at a later position, reproduces the full pass.

    Both are tried with a run of three tokens, one row for each layer to start at.

    Raises:
        HookError: if two passes over the same tokens differ.
    """
    tested, now = _RESUMES.setdefault(model, {}), models.as_it_is(model)
    if now not in tested:
        check_not_random(model)
        layers, positions = (
            models.can_start_at_any_layer(model),
            models.can_start_at_later_position(model),
        )
        both = layers and positions and model.cfg.n_ctx > 1
        both = both and _equals_whole_pass(model, 1, fused=False)
        tested[now] = both or (layers and _equals_whole_pass(model, 0, fused=False)), both
    return tested[now]


def continues_exactly(model: Model) -> bool:
    """Whether a position on top of cached keys and values gives what the whole prompt gives."""
    if not models.can_start_at_any_layer(model) or model.cfg.n_ctx < 2:
        return False
    tested, now = _CONTINUES.setdefault(model, {}), models.as_it_is(model)
    if now not in tested:
        check_not_random(model)
        ids = _three_tokens(model)
        cache = models.key_value_cache(model, 1)
        with torch.no_grad():
            for part, first in ((ids[:, :-1], 0), (ids[:, -1:], ids.shape[1] - 1)):
                resid, positions = models.embed(model, part, first)
                for layer in range(model.cfg.n_layers):
                    resid = models.run_block(model, layer, resid, positions, cache[layer])
            found = models.unembed(model, models.normalize(model, resid))[:, -1].float()
            whole = models.library_logits(model, ids)[:, -1].float()
        tested[now] = bool((found - whole).abs().max() <= _allowed(model, whole))
    return tested[now]


def _three_tokens(model: Model) -> Tensor:
    width = min(3, model.cfg.n_ctx)
    ids = torch.linspace(0, model.cfg.d_vocab - 1, width, device=models.device(model))
    return ids.long()[None]


def _allowed(model: Model, logits: Tensor) -> Tensor:
    """How far rounding may carry logits."""
    return 100 * torch.finfo(model.cfg.dtype).eps * logits.abs().max().clamp(min=1.0)


def fuses_exactly(model: Model, n_positions: int) -> bool:
    """Whether passes of so many positions run with fused attention: it pays and is exact."""
    if n_positions < FROM or not can_fuse(model):
        return False
    tested, now = _FUSES.setdefault(model, {}), models.as_it_is(model)
    if now not in tested:
        _, positions = resumes_exactly(model)
        firsts = (0, 1) if positions else (0,)
        tested[now] = all(_equals_whole_pass(model, pos, fused=True) for pos in firsts)
    return tested[now]


def _equals_whole_pass(model: Model, first_pos: int, *, fused: bool) -> bool:
    """Whether rows that start at every layer, from a position on, give the library's logits."""
    n_layers, ids = model.cfg.n_layers, _three_tokens(model)
    width, prompts = ids.shape[1], Prompts.from_ids(ids.tolist(), device=ids.device)
    reading = torch.full((n_layers + 1, 1), width - 1, device=models.device(model))
    arms = [Arm(prompts, (), 0, -1, 0, alone=False) for _ in reading]  # no specs: unchanged
    first_layers = list(range(n_layers + 1))
    extent = Extent(
        compute_base(model, prompts, set(first_layers), first_pos, fused=fused),
        first_layers,
        first_pos,
        last_queries=first_pos > 0,
        whole_logits=models.has_foreign_hooks(model),
    )
    lock = lock_of(model)
    with lock, interruptible(lock), gradients_off():
        whole, again = (
            models.library_logits(model, prompts.tokens)[:, -1].float() for _ in range(2)
        )
    allowed = _allowed(model, whole)
    if not (apart := (whole - again).abs().max()) <= allowed:
        raise HookError(
            f"two passes of the model over the same tokens differ by up to {apart:.2g}: something "
            f"in it is random, such as noise in training mode. Call model.eval()."
        )
    output = run_batch(model, arms, reading, extent, fused=fused, differentiable=False)
    off = (output.logits()[:, 0].float() - whole).abs().max()
    return bool(off <= allowed)
