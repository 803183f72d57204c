"""What one run does: an `Arm`, prompts and the specs on them, checked before anything runs.

>>> from mechinterp import load_model, tokenize, zero, Site
>>> from mechinterp.engine.arms import prepare_arm
>>> model = load_model("toy:trigger")
>>> prepare_arm(model, tokenize(model, "bring the sesame"), zero(Site("z", 1))).first_layer
1
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from mechinterp.core.activations import Activations, Copies
from mechinterp.core.prompts import DELETED, Prompts
from mechinterp.core.sites import HookError, Index, Site, narrow_index
from mechinterp.core.specs import At, HookSpec, Specs
from mechinterp.models.hook_points import check_site, first_layer
from mechinterp.models.model import Model
from mechinterp.models.tokenization import check_length

CallEdit = Callable[..., Tensor]
"""Calls a function with arguments: the user's code, in the surroundings that it expects."""


@dataclass(eq=False)
class Arm:
    """Prompts, the specs on them, and what the specs read while a pass runs.

    `first_layer`, `last_layer`: the layers between which the specs act. The number of layers stands
    for what comes after the last one. `first_pos`: the first position that the specs touch.
    `alone`: the arm shares its batch with no other, since a spec sees an activation whose axes are
    not known. `rows`: the arm's rows of the batch. `batch_first_pos`: the position of the batch's
    first column.
    """

    prompts: Prompts
    specs: Specs
    first_layer: int
    last_layer: int
    first_pos: int
    alone: bool
    point: Mapping[str, object] = field(default_factory=dict)
    rows: slice = field(default_factory=lambda: slice(None))
    batch_first_pos: int = 0
    reads: dict[Site, Tensor] = field(default_factory=dict)
    fired: set[int] = field(default_factory=set)

    @property
    def activations(self) -> Activations:
        """What was read so far."""
        return Activations(self.reads, self.prompts)

    @property
    def shown(self) -> Activations:
        """The same for an edit, which may write into what it is given."""
        return Activations(Copies(self.reads), self.prompts)

    def fire(self, number: int, rows: Tensor, call: CallEdit) -> Tensor | None:
        """Run one spec on the arm's rows of an activation: the new value, or None for a read."""
        spec = self.specs[number]
        seen = rows[self.index(spec, rows)].clone()
        self.fired.add(number)
        if spec.edit is not None:
            return call(_run_edit, spec, seen, At(spec.site, self.prompts, self.shown))
        if spec.site in self.reads and not torch.equal(self.reads[spec.site], seen):
            raise HookError(
                f"{spec.name}: {spec.site.hook} ran more than once, with different values. "
                f"Read what it is computed from instead."
            )
        self.reads[spec.site] = seen
        return None

    def index(self, spec: HookSpec, rows: Tensor) -> Index:
        """Where the site is in the arm's rows of the activation."""
        site = spec.site
        if site.axes is None:
            return ...
        if rows.ndim != len(site.axes):
            raise HookError(
                f"{spec.name}: {site.hook} has {rows.ndim} axes {list(rows.shape)} on this model, "
                f"not {' '.join(site.axes)}. Use its full hook name, Site({site.hook!r})."
            )
        positions = _positions(self.prompts, spec)
        if positions is not None and site.act != "rot_k":  # keys are rotated with the cached ones
            positions = positions - self.batch_first_pos
        return narrow_index(site.whole(), site, positions)


def prepare_arm(
    model: Model, prompts: Prompts, specs: Specs, point: Mapping[str, object] | None = None
) -> Arm:
    """Make an arm: edit its input tokens, and check all that can be checked before it runs.

    Raises:
        HookError: if a spec cannot run on this model and these prompts.
        ValueError: if the specs are not a tuple of `HookSpec`.
    """
    check_specs(specs, point)
    reads: dict[Site, Tensor] = {}
    seen = [spec.site for spec in specs if spec.edit is None]
    for spec in specs:
        check_site(model, spec.site, spec.name)
        if spec.edit is None and seen.count(spec.site) > 1:
            raise HookError(f"{spec.name}: read twice in one run. Read it once.")
    edited, fired = _edit_tokens(model, prompts, specs, reads)
    touched = [] if edited is prompts else [_first_change(prompts, edited)]
    for spec in specs:
        if spec.site.act != "tokens":
            positions = _positions(edited, spec)
            touched.append(0 if positions is None else int(positions.min()))
    layers = [first_layer(model, s.site) for s in specs]
    return Arm(
        edited,
        specs,
        first_layer=min(layers, default=model.cfg.n_layers),
        last_layer=max(layers, default=-1),
        first_pos=min(touched, default=edited.width - 1),
        alone=any(s.site.axes is None for s in specs),
        point=point or {},
        reads=reads,
        fired=fired,
    )


def check_specs(specs: object, point: Mapping[str, object] | None = None) -> None:
    """Check that the specs are a tuple of `HookSpec`; `point`: where a sweep made them.

    Raises:
        ValueError: if not.
    """
    if not isinstance(specs, tuple) or not all(isinstance(s, HookSpec) for s in specs):
        at = f"arm({', '.join(f'{k}={v!r}' for k, v in point.items())}) gave" if point else "specs:"
        raise ValueError(
            f"{at} {specs!r}, not a tuple of HookSpec. Functions such as zero(...) make tuples; "
            f"join them with +, and return them."
        )


def _positions(prompts: Prompts, spec: HookSpec) -> Int[Tensor, " prompt"] | None:
    """The site's position in each prompt; None for a site of all positions."""
    try:
        return None if spec.site.pos is None else prompts.positions(spec.site.pos)
    except ValueError as error:
        raise HookError(f"{spec.name}: {error}") from None


def _edit_tokens(
    model: Model, prompts: Prompts, specs: Specs, reads: dict[Site, Tensor]
) -> tuple[Prompts, set[int]]:
    """The prompts after the specs on tokens, and the numbers of these specs.

    Positions are those of the prompts as given: a row closes up after the last spec.
    """
    on_tokens = {n: s for n, s in enumerate(specs) if s.site.act == "tokens"}
    if not on_tokens:
        return prompts, set()
    ids = prompts.tokens.clone()
    for spec in on_tokens.values():
        index = narrow_index(Site("tokens"), spec.site, _positions(prompts, spec))
        seen = ids[index].clone()
        if spec.edit is None:
            reads[spec.site] = seen
        else:
            shown = Activations(Copies(reads), prompts)
            ids[index] = _run_edit(spec, seen, At(spec.site, prompts, shown))
        if int(ids.max()) >= model.cfg.d_vocab or int(ids.min()) < DELETED:
            raise HookError(
                f"{spec.name}: gave a token id outside the vocabulary of {model.cfg.d_vocab}."
            )
    try:
        return check_length(model, prompts.edited(ids)), set(on_tokens)
    except ValueError as error:
        names = " + ".join(spec.name for spec in on_tokens.values())
        raise HookError(f"{names}: {error}") from None


def _first_change(given: Prompts, edited: Prompts) -> int:
    """The first position at which any prompt has another token than before."""
    width = edited.width
    other = (given.tokens[:, :width] != edited.tokens) & edited.mask
    return int(other.any(0).nonzero()[0]) if bool(other.any()) else width - 1


def _run_edit(spec: HookSpec, seen: Tensor, at: At) -> Shaped[Tensor, "prompt ..."]:
    """The new value that an edit returns, checked: same shape, dtype and device."""
    assert spec.edit is not None
    shape, dtype, device = seen.shape, seen.dtype, seen.device
    tokens, version = at.prompts.tokens, at.prompts.tokens._version
    try:
        made = spec.edit(seen, at)
    except Exception as error:
        error.add_note(f"raised by the edit of {spec.name}")
        raise
    if tokens._version != version:
        raise HookError(
            f"{spec.name} wrote into at.prompts.tokens, which other runs share. Edit the input "
            f'with delete_token, replace_token, or an edit at Site("tokens").'
        )
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
