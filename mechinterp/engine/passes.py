"""One forward pass: arms as blocks of rows of a batch, each with its specs, nothing left behind.

`forward` puts several arms below one another into a batch; an edit is given the rows of its own
arm alone, so that it cannot tell whether it runs with others. The only file in which a model runs,
and hooks are put on one.

>>> from mechinterp import Site, load_model, tokenize, zero
>>> from mechinterp.engine.arms import planned
>>> from mechinterp.engine.passes import forward
>>> model = load_model("toy:trigger")
>>> arm = planned(model, tokenize(model, "please bring the sesame"), zero(Site("z", 1)))
>>> forward(model, [arm], arm.prompts.lengths[:, None] - 1).logits().shape[:2]
torch.Size([1, 1])
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp import models
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import ACTS, HookError
from mechinterp.engine.arms import Arm
from mechinterp.engine.interrupts import interruptible
from mechinterp.models.fused_attention import FROM, can_fuse
from mechinterp.models.model import Model

LINKS = tuple(ACTS[act].hook for act in ("attn_scores", "pattern"))
"""What fused attention does not make."""


class Hooks:
    """The hooks of some arms on a model: `add`, `remove`, and whether all of them ran."""

    def __init__(self, model: Model, arms: Sequence[Arm], interrupts: interruptible) -> None:
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

    model: Model
    normalized: Float[Tensor, "row k d_model"]
    _logits: Float[Tensor, "row k vocab"] | None = None

    def logits(self) -> Float[Tensor, "row k vocab"]:
        """Logits of the whole vocabulary, made once."""
        if self._logits is None:
            self._logits = models.unembed(self.model, self.normalized)
        return self._logits

    def logits_of(self, tokens: Int[Tensor, "row n"], k: Sequence[int]) -> Tensor:
        """Logits `[row, len(k), n]` of a few tokens a row."""
        if self._logits is not None:
            picked = self._logits[:, list(k)]
            return picked.gather(2, tokens[:, None].expand(-1, len(k), -1))
        return models.unembed(self.model, self.normalized[:, list(k)], tokens)


@dataclass(frozen=True, eq=False)
class Base:
    """The unchanged run: what passes that begin at a later layer or position go on from.

    `resid`: layer -> the residual stream before it. `entries`: layer -> its keys and values.
    """

    resid: Mapping[int, Float[Tensor, "prompt pos d_model"]] = field(default_factory=dict)
    entries: Mapping[int, Any] = field(default_factory=dict)

    def rows(self, layer: int, n_arms: int, first: int) -> Float[Tensor, "row pos d_model"]:
        """The residual stream from a position on, once for each arm."""
        return self.resid[layer][:, first:].repeat(n_arms, 1, 1)

    def entry(self, layer: int, n_arms: int, first: int) -> Any:
        """Keys and values of the positions before `first`, for each arm; None if there are none."""
        if first == 0:
            return None
        keys, values = self.entries[layer].past_keys, self.entries[layer].past_values
        return models.cache_entry(*(_repeated(x[:, :first], n_arms) for x in (keys, values)))


def _repeated(one: Tensor, n: int) -> Tensor:
    """One block of rows below another; a single row is not copied."""
    return one.expand(n, *one.shape[1:]) if len(one) == 1 else one.repeat(n, *[1] * (one.ndim - 1))


def forward(
    model: Model,
    arms: Sequence[Arm],
    reading: Int[Tensor, "row k"],
    *,
    base: Base | None = None,
    starts: Sequence[int] | None = None,
    stop: int | None = None,
    first: int = 0,
    last_queries: bool = False,
    whole_logits: bool = False,
    watch: Callable[[str, Tensor], None] | None = None,
    differentiable: bool = False,
    fused: bool | None = None,
) -> Output:
    """One pass of all arms, read at the positions `reading` of each row.

    All arms have prompts of one width. `starts`: the layer at which each arm joins the batch, from
    the residual stream of `base`; in rising order (default: all at the embedding). `stop`: the
    layer before which it ends, where no logits are read (default: the whole model). `first`: the
    position from which on they are computed, with the keys and values of `base` before it.
    `last_queries`: in the last layer, which no spec touches then, only from the first position that
    is read. `whole_logits`: by the library's own unembedding, at every position.
    `differentiable`: keep the graph, for gradients at what edits return. `fused`: without making
    the attention scores of layers where no arm looks at them (default: of long prompts).

    Raises:
        HookError: if a spec goes wrong, or did not run.
    """
    base, starts = base or Base(), starts or [0] * len(arms)
    n_prompts, n_layers = len(arms[0].prompts), model.cfg.n_layers
    for place, arm in enumerate(arms):
        arm.rows, arm.first = slice(place * n_prompts, (place + 1) * n_prompts), first
    full = whole_logits or watch is not None or any(a.stop == n_layers for a in arms)
    full = full or models.has_foreign_hooks(model)
    interrupts = interruptible()
    hooks = Hooks(model, arms, interrupts)
    if fused is None:
        fused = not (full or differentiable) and _fuses(model, arms[0].prompts.width - first)
    looked_at = {spec.site.hook for arm in arms for spec in arm.specs}
    with interrupts, torch.set_grad_enabled(differentiable):
        try:
            hooks.add(watch)
            resid, positions = _embedded(model, arms[: starts.count(0)], first)
            for layer in range(min(starts), n_layers if stop is None or full else stop):
                interrupts.check()
                resid = _joined(resid, base, layer, starts.count(layer) if layer else 0, first)
                entry = base.entry(layer, len(resid) // n_prompts, first)
                if last_queries and layer == n_layers - 1 and (skip := int(reading.min()) - first):
                    entry = models.keys_and_values(model, layer, resid[:, :skip], entry)
                    resid, first = resid[:, skip:], first + skip
                unseen = fused and looked_at.isdisjoint(link.format(layer=layer) for link in LINKS)
                resid = models.run_block(model, layer, resid, positions, entry, fused=unseen)
            resid = _joined(resid, base, n_layers, starts.count(n_layers), first)
            reading = reading - first
            rows = torch.arange(len(reading), device=reading.device)[:, None]
            if not full:
                output = Output(model, models.normalize(model, resid[rows, reading]))
            else:
                normalized = models.normalize(model, resid)
                logits = models.unembed_with_hooks(model, normalized)
                output = Output(model, normalized[rows, reading], logits[rows, reading])
        finally:
            hooks.remove()
    hooks.check_all_fired()
    return output


def _embedded(model: Model, arms: Sequence[Arm], first: int) -> tuple[Tensor | None, Tensor | None]:
    """The residual stream of the arms that begin with their tokens."""
    if not arms:
        return None, None
    return models.embed(model, torch.cat([a.prompts.tokens for a in arms])[:, first:], first)


def _joined(resid: Tensor | None, base: Base, layer: int, n_arms: int, first: int) -> Tensor:
    """The batch, and below it the rows of the arms that begin at this layer."""
    new = base.rows(layer, n_arms, first) if n_arms else None
    parts = [part for part in (resid, new) if part is not None]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def base_run(
    model: Model, prompts: Prompts, layers: set[int], first: int = 0, fused: bool | None = None
) -> Base:
    """The unchanged model: the residual stream before some layers, and keys and values.

    These are those of the positions before `first`, in every layer; none if it is 0. `fused`: as
    in `forward`.
    """
    resids: dict[int, Tensor] = {}
    entries: dict[int, Any] = {}
    top = max(layers, default=0)
    end = model.cfg.n_layers - 1 if first else top
    if fused is None:
        fused = not models.has_foreign_hooks(model) and _fuses(model, prompts.width)
    if not layers and not first:
        return Base()
    with interruptible() as interrupts, torch.no_grad():
        resid, _ = models.embed(model, prompts.tokens)
        for layer in range(end + 1):
            interrupts.check()
            if layer in layers:
                resids[layer] = resid
            if layer >= top:  # from here on for the keys and values alone
                resid = resid[:, :first]
            if first:
                entries[layer] = models.keys_and_values(model, layer, resid[:, :first])
            if layer < max(end, top):
                resid = models.run_block(model, layer, resid, fused=fused)
        if top > end:
            resids[top] = resid
    return Base(resids, entries)


_TESTED: WeakKeyDictionary[Any, dict[str, tuple[bool, bool]]] = WeakKeyDictionary()
_FUSED: WeakKeyDictionary[Any, dict[str, bool]] = WeakKeyDictionary()


def resumes_exactly(model: Model) -> tuple[bool, bool]:
    """Whether passes that begin at a later layer, and at a later position, equal whole ones here.

    Found once for a model and its switches, by a run of three tokens: against the library's own
    pass, one row for each layer to begin at.
    """
    tested, switches = _TESTED.setdefault(model, {}), models.configuration_text(model)
    if switches not in tested:
        resumes, late = (
            models.can_start_at_any_layer(model),
            models.can_start_at_later_position(model),
        )
        both = resumes and late and model.cfg.n_ctx > 1 and _equals_a_whole_pass(model, 1)
        tested[switches] = both or (resumes and _equals_a_whole_pass(model, 0)), both
    return tested[switches]


def _fuses(model: Model, n_positions: int) -> bool:
    """Whether layers of so many positions are run with fused attention; tried once, as above."""
    if n_positions < FROM or not can_fuse(model):
        return False
    tested, switches = _FUSED.setdefault(model, {}), models.configuration_text(model)
    if switches not in tested:
        late = resumes_exactly(model)[1]
        tested[switches] = all(_equals_a_whole_pass(model, n, True) for n in range(1 + late))
    return tested[switches]


def _equals_a_whole_pass(model: Model, first: int, fused: bool = False) -> bool:
    n_layers, width = model.cfg.n_layers, min(3, model.cfg.n_ctx)
    ids = torch.linspace(0, model.cfg.d_vocab - 1, width).long().tolist()
    prompts = Prompts.from_ids([ids], device=models.device(model))
    reading = torch.full((n_layers + 1, 1), width - 1, device=models.device(model))
    arms = [Arm(prompts, (), 0, -1, 0, False) for _ in reading]
    starts = list(range(n_layers + 1))
    base = base_run(model, prompts, set(starts), first, fused)
    with torch.no_grad():
        whole = models.library_logits(model, prompts.tokens)[:, -1].float()
    late = first > 0
    output = forward(
        model,
        arms,
        reading,
        base=base,
        starts=starts,
        first=first,
        last_queries=late,
        fused=fused,
    )
    off = (output.logits()[:, 0].float() - whole).abs().max()
    precision = torch.finfo(model.cfg.dtype).eps
    return bool(off <= 100 * precision * whole.abs().max().clamp(min=1.0))


def greedy(model: Model, prompts: Prompts, n: int) -> list[int]:
    """The model's own continuation of one prompt: up to `n` tokens, or to its end token.

    Each step is one position on top of cached keys and values; where that is not exact (somebody's
    hooks on the model, or positions that each layer reads), each step is a whole pass.
    """
    end = getattr(model.tokenizer, "eos_token_id", None)
    cached = models.can_start_at_any_layer(model) and not models.has_foreign_hooks(model)
    cache = models.key_value_cache(model, 1) if cached else [None] * model.cfg.n_layers
    ids = prompts.tokens
    made: list[int] = []
    with interruptible() as interrupts, torch.no_grad():
        while len(made) < n and (not made or made[-1] != end):
            first = ids.shape[1] - 1 if cached and made else 0
            resid, positions = models.embed(model, ids[:, first:], first)
            for layer in range(model.cfg.n_layers):
                interrupts.check()
                resid = models.run_block(model, layer, resid, positions, cache[layer])
            last = models.unembed(model, models.normalize(model, resid[:, -1:]))
            made.append(int(last[0, 0].argmax()))
            ids = torch.cat([ids, ids.new_tensor([made[-1:]])], 1)
    return made
