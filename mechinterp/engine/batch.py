"""A batch: the rows of several arms, taken through a model's layers with the arms' hooks on.

How much of the model is computed is said by an `Extent`; whether that gives the numbers of a whole
pass is found out in `exactness`, and used by `passes`, which most code calls.

>>> from mechinterp import load_model, tokenize, zero, Site
>>> from mechinterp.engine.arms import prepare_arm
>>> from mechinterp.engine.batch import WHOLE, run_batch
>>> model = load_model("toy:trigger")
>>> arm = prepare_arm(model, tokenize(model, "bring the sesame"), zero(Site("z", 1)))
>>> last = arm.prompts.reading(["end"])
>>> run_batch(model, [arm], last, WHOLE, fused=False, differentiable=False).logits().shape[:2]
torch.Size([1, 1])
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp import models
from mechinterp.core.interrupts import interruptible
from mechinterp.core.modes import gradients_off, gradients_on
from mechinterp.core.sites import ACTS
from mechinterp.core.turns import lock_of, set_running
from mechinterp.engine.arms import Arm
from mechinterp.engine.base_run import BaseRun
from mechinterp.engine.hooks import Hooks, Watch
from mechinterp.models.model import Model

LINKS = tuple(ACTS[act].hook for act in ("attn_scores", "pattern"))
"""The hook points of activations that fused attention does not make."""


@dataclass(frozen=True, eq=False)
class Extent:
    """How much of the model a pass computes; by default all of it.

    `base`: the unchanged run that the pass continues. `first_layers`: the layer at which each arm
    joins the batch, from the residual stream of `base`, in rising order (default: all at the
    embedding). `first_pos`: the position from which on the pass computes, with the keys and values
    of `base` before it. `stop_layer`: the layer before which it ends, where no logits are read
    (default: none). `last_queries`: in the last layer, which no spec touches then, compute only
    from the first position that is read. `whole_logits`: unembed every position, by the library's
    own unembedding with its hooks.
    """

    base: BaseRun = field(default_factory=BaseRun)
    first_layers: Sequence[int] = ()
    first_pos: int = 0
    stop_layer: int | None = None
    last_queries: bool = False
    whole_logits: bool = False


WHOLE = Extent()
"""Every layer and every position, from the embedding."""


@dataclass(eq=False)
class PassOutput:
    """What a pass gave: the final norm's output `[row, k, d_model]`, from which logits are made.

    `k` counts the positions that were asked for. `_logits` exist already if a spec touched them.
    """

    model: Model
    normalized: Float[Tensor, "row k d_model"]
    _logits: Float[Tensor, "row k vocab"] | None = None

    def logits(self) -> Float[Tensor, "row k vocab"]:
        """Logits of the whole vocabulary, computed once."""
        if self._logits is None:
            with self._mode():
                self._logits = models.unembed(self.model, self.normalized)
        return self._logits

    def logits_of(self, tokens: Int[Tensor, "row n"], k: Sequence[int]) -> Tensor:
        """Logits `[row, len(k), n]` of a few tokens in each row."""
        if self._logits is not None:
            picked = self._logits[:, list(k)]
            return picked.gather(2, tokens[:, None].expand(-1, len(k), -1))
        with self._mode():
            return models.unembed(self.model, self.normalized[:, list(k)], tokens)

    def _mode(self) -> gradients_on | gradients_off:
        return gradients_on() if self.normalized.requires_grad else gradients_off()


def run_batch(
    model: Model,
    arms: Sequence[Arm],
    reading: Int[Tensor, "row k"],
    extent: Extent,
    *,
    fused: bool,
    differentiable: bool,
    watch: Watch | None = None,
) -> PassOutput:
    """One pass of all arms, read at the positions `reading` of each row.

    All arms have prompts of one width. `fused`: do not make the attention scores of layers where no
    spec looks at them. `differentiable`: keep the graph, for gradients at what edits return.

    Raises:
        HookError: if a spec goes wrong, or did not run.
    """
    base, first_pos = extent.base, extent.first_pos
    first_layers = extent.first_layers or [0] * len(arms)
    n_prompts, n_layers = len(arms[0].prompts), model.cfg.n_layers
    # Hooks behind the last layer run only if the pass goes to its end.
    stop_layer = n_layers
    if extent.stop_layer is not None and not extent.whole_logits:
        stop_layer = extent.stop_layer
    for place, arm in enumerate(arms):
        # Arms stand below one another: n_prompts rows each, in the order in which they join.
        arm.rows = slice(place * n_prompts, (place + 1) * n_prompts)
        arm.batch_first_pos = first_pos
    seen_hooks = {spec.site.hook for arm in arms for spec in arm.specs}
    in_inference = torch.is_inference_mode_enabled() and not differentiable
    lock = lock_of(model)
    interrupts = interruptible(lock)
    hooks = Hooks(model, arms, interrupts, in_inference=in_inference)
    with lock, interrupts, gradients_on() if differentiable else gradients_off():
        before = set_running(hooks)
        try:
            hooks.add(watch)
            # resid: [row, pos, d_model], its positions from first_pos on. Rows of arms that have
            # not joined yet are missing at the bottom, so that rows above keep their numbers.
            resid, positions = _embed(model, arms[: first_layers.count(0)], first_pos)
            for layer in range(min(first_layers), stop_layer):
                interrupts.check()
                n_joining = first_layers.count(layer) if layer else 0
                resid = _join(resid, base, layer, n_joining, first_pos)
                entry = base.entry(layer, len(resid) // n_prompts, first_pos)
                if (
                    extent.last_queries
                    and layer == n_layers - 1
                    and (skip := int(reading.min()) - first_pos)
                ):
                    # Of positions before the first that is read, the last layer needs keys and
                    # values alone: those go into the cache, and the batch continues without them.
                    entry = models.keys_and_values(model, layer, resid[:, :skip], entry)
                    resid, first_pos = resid[:, skip:], first_pos + skip
                unseen = fused and seen_hooks.isdisjoint(link.format(layer=layer) for link in LINKS)
                resid = models.run_block(model, layer, resid, positions, entry, fused=unseen)
            # Arms that act behind the last layer alone.
            resid = _join(resid, base, n_layers, first_layers.count(n_layers), first_pos)
            reading = reading - first_pos
            rows = torch.arange(len(reading), device=reading.device)[:, None]
            if not extent.whole_logits:
                # The norm acts on each position by itself: [row, k, d_model] is enough of it.
                output = PassOutput(model, models.normalize(model, resid[rows, reading]))
            else:
                normalized = models.normalize(model, resid)
                logits = models.unembed_with_hooks(model, normalized)
                output = PassOutput(model, normalized[rows, reading], logits[rows, reading])
        finally:
            set_running(before)
            hooks.remove()
    hooks.check_all_fired()
    return output


def _embed(
    model: Model, arms: Sequence[Arm], first_pos: int
) -> tuple[Float[Tensor, "row pos d_model"] | None, Float[Tensor, "row pos d_model"] | None]:
    """The residual stream of the arms that start from their tokens, and a shortformer's positions.

    None where all arms start later.
    """
    if not arms:
        return None, None
    tokens = torch.cat([arm.prompts.tokens for arm in arms])
    return models.embed(model, tokens[:, first_pos:], first_pos)


def _join(
    resid: Float[Tensor, "row pos d_model"] | None,
    base: BaseRun,
    layer: int,
    n_arms: int,
    first_pos: int,
) -> Float[Tensor, "all_rows pos d_model"]:
    """The batch, with the rows of the arms that join at this layer below it."""
    new = base.rows(layer, n_arms, first_pos) if n_arms else None
    parts = [part for part in (resid, new) if part is not None]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
