"""One forward pass: arms as blocks of rows of a batch, each with its specs, nothing left behind.

An `Arm` is what one `run` does: prompts, and the specs on them. `forward` puts several arms below
one another into a batch; an edit is given the rows of its own arm alone, so that it cannot tell
whether it runs with others. The only file in which a model runs, and hooks are put on one.

>>> from mechinterp import Site, load_model, tokenize, zero
>>> from mechinterp.passes import forward, planned
>>> model = load_model("toy:trigger")
>>> arm = planned(model, tokenize(model, "please bring the sesame"), zero(Site("z", 1)))
>>> forward(model, [arm], arm.prompts.lengths[:, None] - 1).logits().shape[:2]
torch.Size([1, 1])
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mechinterp import models
from mechinterp.activations import Activations
from mechinterp.hook_points import check_site, first_layer
from mechinterp.interrupts import interruptible
from mechinterp.prompts import DELETED, Prompts
from mechinterp.sites import HookError, Site, narrow_index
from mechinterp.specs import At, HookSpec, Specs
from mechinterp.tokenization import check_length


@dataclass(eq=False)
class Arm:
    """Specs on prompts, checked, and what they read while a pass runs.

    `start`: the first layer that the specs touch. `through_logits`: some spec touches what comes
    after the last layer. `alone`: a spec sees an activation whose axes are not known, so that no
    other arm may share the batch.
    """

    prompts: Prompts
    specs: Specs
    start: int
    through_logits: bool
    alone: bool
    point: Mapping[str, Any] = field(default_factory=dict)
    rows: slice = field(default_factory=lambda: slice(None))
    reads: dict[Site, Tensor] = field(default_factory=dict)
    fired: set[int] = field(default_factory=set)

    @property
    def activations(self) -> Activations:
        """What was read so far."""
        return Activations(self.reads, self.prompts)

    def fire(self, number: int, rows: Tensor, interrupts: interruptible) -> Tensor | None:
        """Run one spec on the arm's rows of an activation: the new value, or None for a read."""
        spec = self.specs[number]
        seen = rows[self.index(spec, rows)].clone()
        again = number in self.fired
        self.fired.add(number)
        if spec.edit is not None:
            at = At(spec.site, self.prompts, self.activations)
            return interrupts.call(_edited, spec, seen, at)
        if again and not torch.equal(self.reads[spec.site], seen):
            raise HookError(
                f"{spec.name}: {spec.site.hook} ran more than once, with different values. "
                f"Read what it is computed from instead."
            )
        self.reads[spec.site] = seen
        return None

    def index(self, spec: HookSpec, rows: Tensor) -> Any:
        """Where the site is in the arm's rows of the activation."""
        site = spec.site
        if site.axes is None:
            return ...
        if rows.ndim != len(site.axes):
            raise HookError(
                f"{spec.name}: {site.hook} has {rows.ndim} axes {list(rows.shape)} on this model, "
                f"not {' '.join(site.axes)}. Use its full hook name, Site({site.hook!r})."
            )
        at = None if site.pos is None else self.prompts.positions(site.pos)
        return narrow_index(site.whole(), site, at)


def planned(
    model: Any, prompts: Prompts, specs: Specs, point: Mapping[str, Any] | None = None
) -> Arm:
    """The arm, its input tokens edited and everything checked that can be before it runs.

    Raises:
        HookError: if a spec cannot run on this model and these prompts.
        ValueError: if the specs are no tuple of `HookSpec`.
    """
    if not isinstance(specs, tuple) or not all(isinstance(s, HookSpec) for s in specs):
        at = f"arm({', '.join(f'{k}={v!r}' for k, v in point.items())}) gave" if point else "specs:"
        raise ValueError(
            f"{at} {specs!r}, not a tuple of HookSpec. Functions such as zero(...) make tuples; "
            f"join them with +, and return them."
        )
    reads: dict[Site, Tensor] = {}
    seen = [spec.site for spec in specs if spec.edit is None]
    for spec in specs:
        check_site(model, spec.site, spec.name)
        if spec.edit is None and seen.count(spec.site) > 1:
            raise HookError(f"{spec.name}: read twice in one run. Read it once.")
    edited, fired = _edit_tokens(model, prompts, specs, reads)
    for spec in specs:
        if spec.site.pos is not None and spec.site.act != "tokens":
            _check_position(edited, spec)
    layers = [first_layer(model, s.site) for s in specs]
    return Arm(
        edited,
        specs,
        start=min(layers, default=model.cfg.n_layers),
        through_logits=max(layers, default=0) == model.cfg.n_layers,
        alone=any(s.site.axes is None for s in specs),
        point=point or {},
        reads=reads,
        fired=fired,
    )


def _check_position(prompts: Prompts, spec: HookSpec) -> None:
    try:
        assert spec.site.pos is not None
        prompts.positions(spec.site.pos)
    except ValueError as error:
        raise HookError(f"{spec.name}: {error}") from None


def _edit_tokens(
    model: Any, prompts: Prompts, specs: Specs, reads: dict[Site, Tensor]
) -> tuple[Prompts, set[int]]:
    """The prompts with the specs on tokens done, in the positions of the prompts as given."""
    on_tokens = {n: s for n, s in enumerate(specs) if s.site.act == "tokens"}
    if not on_tokens:
        return prompts, set()
    ids = prompts.tokens.clone()
    for spec in on_tokens.values():
        if spec.site.pos is not None:
            _check_position(prompts, spec)
        at = None if spec.site.pos is None else prompts.positions(spec.site.pos)
        index = narrow_index(Site("tokens"), spec.site, at)
        seen = ids[index].clone()
        if spec.edit is None:
            reads[spec.site] = seen
        else:
            ids[index] = _edited(spec, seen, At(spec.site, prompts, Activations(reads, prompts)))
        if int(ids.max()) >= model.cfg.d_vocab or int(ids.min()) < DELETED:
            raise HookError(
                f"{spec.name}: gave a token id outside the vocabulary of {model.cfg.d_vocab}."
            )
    try:
        return check_length(model, prompts.edited(ids)), set(on_tokens)
    except ValueError as error:
        names = " + ".join(spec.name for spec in on_tokens.values())
        raise HookError(f"{names}: {error}") from None


def _edited(spec: HookSpec, seen: Tensor, at: At) -> Shaped[Tensor, "prompt ..."]:
    """The new value of an edit, or an error that says what is wrong with it."""
    assert spec.edit is not None
    shape, dtype, device = seen.shape, seen.dtype, seen.device
    try:
        made = spec.edit(seen, at)
    except Exception as error:
        error.add_note(f"raised by the edit of {spec.name}")
        raise
    if made is None:
        raise HookError(f"{spec.name} returned None. Return the new value.")
    if not isinstance(made, Tensor):
        raise HookError(f"{spec.name} returned {type(made).__name__}, not a tensor.")
    if made.shape != shape:
        raise HookError(
            f"{spec.name} returned shape {list(made.shape)}, not {list(shape)} "
            f"({' '.join(spec.site.narrowed_axes or ('axes not known',))}). Return the same shape."
        )
    if (made.dtype, made.device) != (dtype, device):
        raise HookError(
            f"{spec.name} returned {made.dtype} on {made.device}, not {dtype} on {device}. "
            f"End it with .to(value)."
        )
    return made


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
) -> Output:
    """One pass of all arms, read at the positions `reading` of each row.

    `start` and `resid`: the layer to begin at and the residual stream before it. All arms have
    prompts of one width.

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
    with interrupts, torch.no_grad():
        try:
            hooks.add(watch)
            if resid is None:
                resid = models.embedded(model, torch.cat([a.prompts.tokens for a in arms]))
            for layer in range(start, model.cfg.n_layers):
                interrupts.check()
                resid = models.block(model, layer, resid)
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
    """The residual stream of the unchanged model before each of some layers."""
    kept: dict[int, Tensor] = {}
    with interruptible() as interrupts, torch.no_grad():
        resid = models.embedded(model, prompts.tokens)
        for layer in range(max(layers, default=-1) + 1):
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
            resid = models.embedded(model, ids[:, first:], first)
            for layer in range(model.cfg.n_layers):
                interrupts.check()
                resid = models.block(model, layer, resid, cache)
            last = models.unembedded(model, models.normalized(model, resid[:, -1:]))
            made.append(int(last[0, 0].argmax()))
            ids = torch.cat([ids, ids.new_tensor([made[-1:]])], 1)
    return made
