"""The unchanged run: what passes that start at a later layer or position continue from.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.engine.base_run import compute_base
>>> model = load_model("toy:trigger")
>>> base = compute_base(model, tokenize(model, "bring the sesame"), {1}, 2, fused=False)
>>> base.resid[1].shape, sorted(base.entries)
(torch.Size([1, 4, 57]), [0, 1])
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.interrupts import interruptible
from mechinterp.core.modes import gradients_off
from mechinterp.core.prompts import Prompts
from mechinterp.core.turns import lock_of
from mechinterp.models.model import Model


@runtime_checkable
class CacheEntry(Protocol):
    """Keys and values `[row, pos, head, d_head]` of one layer, in a key-value cache."""

    past_keys: Tensor
    past_values: Tensor


@dataclass(frozen=True, eq=False)
class BaseRun:
    """What is kept of the unchanged run.

    `resid`: layer -> the residual stream before it, at all positions. `entries`: layer -> its keys
    and values, at the positions before the first one that passes compute.
    """

    resid: Mapping[int, Float[Tensor, "prompt pos d_model"]] = field(default_factory=dict)
    entries: Mapping[int, CacheEntry] = field(default_factory=dict)

    def rows(self, layer: int, n_arms: int, first_pos: int) -> Float[Tensor, "row pos d_model"]:
        """The residual stream before a layer, from a position on, once for each arm."""
        return self.resid[layer][:, first_pos:].repeat(n_arms, 1, 1)

    def entry(self, layer: int, n_arms: int, first_pos: int) -> CacheEntry | None:
        """Keys and values of the positions before `first_pos`, for each arm; None if it is 0."""
        if first_pos == 0:
            return None
        keys, values = self.entries[layer].past_keys, self.entries[layer].past_values
        entry: CacheEntry = models.cache_entry(
            *(_repeat(x[:, :first_pos], n_arms) for x in (keys, values))
        )
        return entry


def compute_base(
    model: Model, prompts: Prompts, layers: set[int], first_pos: int, *, fused: bool
) -> BaseRun:
    """Run the unchanged model and keep the residual stream before `layers`.

    Keys and values are kept in every layer, of the positions before `first_pos`; none if it is 0.
    `fused`: with attention that makes no scores.
    """
    resids: dict[int, Tensor] = {}
    entries: dict[int, CacheEntry] = {}
    if not layers and not first_pos:
        return BaseRun()
    top = max(layers, default=0)  # the last stream that is kept: the number of layers at most
    last = model.cfg.n_layers - 1 if first_pos else top  # the last layer that is looked into
    lock = lock_of(model)
    with lock, interruptible(lock) as interrupts, gradients_off():
        resid, _ = models.embed(model, prompts.tokens)  # [prompt, pos, d_model]
        for layer in range(last + 1):
            interrupts.check()
            if layer in layers:
                resids[layer] = resid
            if layer >= top:
                # No whole stream is kept from here on: the positions before `first_pos`, which
                # see none after them, are enough for the keys and values.
                resid = resid[:, :first_pos]
            if first_pos:
                entries[layer] = models.keys_and_values(model, layer, resid[:, :first_pos])
            if layer < max(last, top):
                resid = models.run_block(model, layer, resid, fused=fused)
        if top > last:
            resids[top] = resid
    return BaseRun(resids, entries)


def _repeat(one: Tensor, n: int) -> Tensor:
    """A block of rows `n` times, one below another; a single row is not copied."""
    return one.expand(n, *one.shape[1:]) if len(one) == 1 else one.repeat(n, *[1] * (one.ndim - 1))
