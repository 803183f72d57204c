"""One forward pass: arms as blocks of rows of a batch, each with its specs, nothing left behind.

`forward` puts several arms below one another into a batch; an edit is given the rows of its own
arm alone, so that it cannot tell whether it runs with others. The only file in which a model runs,
and hooks are put on one.

>>> from mechinterp import Site, load_model, tokenize, zero
>>> from mechinterp.arms import planned
>>> from mechinterp.passes import forward
>>> model = load_model("toy:trigger")
>>> arm = planned(model, tokenize(model, "please bring the sesame"), zero(Site("z", 1)))
>>> forward(model, [arm], arm.prompts.lengths[:, None] - 1).logits().shape[:2]
torch.Size([1, 1])
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp import models
from mechinterp.arms import Arm
from mechinterp.interrupts import interruptible
from mechinterp.prompts import Prompts
from mechinterp.sites import HookError


class Hooks:
    """The hooks of some arms on a model: `add`, `remove`, and whether all of them ran."""

    def __init__(self, model: Any, arms: Sequence[Arm], interrupts: interruptible) -> None:
        self._model = model
        self._arms = arms
        self._interrupts = interrupts
        self._handles: list[Any] = []

    def add(self, watch: Callable[[str, Tensor], None] | None = None) -> None:
        """Put them on. `watch` is shown every activation of the model as it passes."""
        wired: dict[str, list[tuple[Arm, int]]] = {}
        for arm in self._arms:
            for number, spec in enumerate(arm.specs):
                if spec.site.act != "tokens":
                    wired.setdefault(spec.site.hook, []).append((arm, number))
        for name in self._model.hook_dict if watch else wired:
            hook = self._hook(name, wired.get(name, []), watch)
            self._handles.append(self._model.hook_dict[name].register_forward_hook(hook))

    def remove(self) -> None:
        """Take them off again; other hooks stay."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def check_all_fired(self) -> None:
        """Nothing, if every spec ran.

        Raises:
            HookError: naming one that did not.
        """
        for arm in self._arms:
            for number, spec in enumerate(arm.specs):
                if number not in arm.fired:
                    raise HookError(
                        f"{spec.name} never ran: this model never passes {spec.site.hook}. "
                        f"describe(model) lists the sites that run."
                    )

    def _hook(
        self,
        name: str,
        wired: Sequence[tuple[Arm, int]],
        watch: Callable[[str, Tensor], None] | None,
    ) -> Callable[..., Tensor | None]:
        def hook(module: Any, args: Any, value: Tensor) -> Tensor | None:
            self._interrupts.check()
            new: Tensor | None = None
            for arm, number in wired:
                rows = (value if new is None else new)[arm.rows]
                made = arm.fire(number, rows, self._interrupts)
                if made is not None:
                    new = value.clone() if new is None else new
                    rows = new[arm.rows]
                    rows[arm.index(arm.specs[number], rows)] = made
            if watch is not None:
                watch(name, value if new is None else new)
            return new

        return hook


@dataclass(eq=False)
class Output:
    """What a pass gave: the final norm's output `[row, k, d_model]`, from which logits are made.

    `k` counts the positions that were asked for. `_logits` are there already when a spec touched
    them.
    """

    model: Any
    normalized: Float[Tensor, "row k d_model"]
    _logits: Float[Tensor, "row k vocab"] | None = None

    def logits(self) -> Float[Tensor, "row k vocab"]:
        """Logits of the whole vocabulary, made once."""
        if self._logits is None:
            self._logits = models.unembedded(self.model, self.normalized)
        return self._logits

    def logits_of(self, tokens: Int[Tensor, "row n"], k: Sequence[int]) -> Tensor:
        """Logits `[row, len(k), n]` of a few tokens a row."""
        if self._logits is not None:
            picked = self._logits[:, list(k)]
            return picked.gather(2, tokens[:, None].expand(-1, len(k), -1))
        return models.unembedded(self.model, self.normalized[:, list(k)], tokens)


def forward(
    model: Any,
    arms: Sequence[Arm],
    reading: Int[Tensor, "row k"],
    *,
    start: int = 0,
    resid: Float[Tensor, "row pos d_model"] | None = None,
    watch: Callable[[str, Tensor], None] | None = None,
    differentiable: bool = False,
) -> Output:
    """One pass of all arms, read at the positions `reading` of each row.

    `start` and `resid`: the layer to begin at and the residual stream before it. All arms have
    prompts of one width. `differentiable`: keep the graph, for gradients at what edits return.

    Raises:
        HookError: if a spec goes wrong, or did not run.
    """
    n_prompts = len(arms[0].prompts)
    for place, arm in enumerate(arms):
        arm.rows = slice(place * n_prompts, (place + 1) * n_prompts)
    full = watch is not None or any(a.through_logits for a in arms)
    full = full or models.has_foreign_hooks(model)
    interrupts = interruptible()
    hooks = Hooks(model, arms, interrupts)
    with interrupts, torch.set_grad_enabled(differentiable):
        try:
            hooks.add(watch)
            positions = None  # only models that cannot resume have them beside the residual
            if resid is None:
                tokens = torch.cat([a.prompts.tokens for a in arms])
                resid, positions = models.embedded(model, tokens)
            for layer in range(start, model.cfg.n_layers):
                interrupts.check()
                resid = models.block(model, layer, resid, positions)
            rows = torch.arange(len(reading), device=reading.device)[:, None]
            if not full:
                output = Output(model, models.normalized(model, resid[rows, reading]))
            else:
                normalized = models.normalized(model, resid)
                logits = models.hooked_unembedded(model, normalized)
                output = Output(model, normalized[rows, reading], logits[rows, reading])
        finally:
            hooks.remove()
    hooks.check_all_fired()
    return output


def residuals(
    model: Any, prompts: Prompts, layers: set[int]
) -> dict[int, Float[Tensor, "prompt pos d_model"]]:
    """The residual stream of the unchanged model, which can resume, before each of some layers."""
    kept: dict[int, Tensor] = {}
    if not layers:
        return kept
    with interruptible() as interrupts, torch.no_grad():
        resid, _ = models.embedded(model, prompts.tokens)
        for layer in range(max(layers) + 1):
            interrupts.check()
            if layer in layers:
                kept[layer] = resid
            if layer < max(layers):
                resid = models.block(model, layer, resid)
    return kept


def greedy(model: Any, prompts: Prompts, n: int) -> list[int]:
    """The model's own continuation of one prompt: up to `n` tokens, or to its end token.

    Each step is one position on top of cached keys and values; where that is not exact (somebody's
    hooks on the model, or positions that each layer reads), each step is a whole pass.
    """
    end = getattr(model.tokenizer, "eos_token_id", None)
    cached = models.can_resume(model) and not models.has_foreign_hooks(model)
    cache = models.key_value_cache(model, 1) if cached else None
    ids = prompts.tokens
    made: list[int] = []
    with interruptible() as interrupts, torch.no_grad():
        while len(made) < n and (not made or made[-1] != end):
            first = ids.shape[1] - 1 if cached and made else 0
            resid, positions = models.embedded(model, ids[:, first:], first)
            for layer in range(model.cfg.n_layers):
                interrupts.check()
                resid = models.block(model, layer, resid, positions, cache)
            last = models.unembedded(model, models.normalized(model, resid[:, -1:]))
            made.append(int(last[0, 0].argmax()))
            ids = torch.cat([ids, ids.new_tensor([made[-1:]])], 1)
    return made
