"""Where in a model: `Site`, and `ACTS`, the one table from short name to hook point and axes.

A site is data: it can be hashed, sorted, printed, used as a label. What happens there is a
`HookSpec` (`core.specs`). `models.check_site` checks that a given model has the site.

    >>> from mechinterp.core.sites import Site
    >>> str(Site("z", layer=9, head=6, pos="end"))
    'L9H6.z@end'
    >>> Site("blocks.9.attn.hook_z", head=6) == Site("z", layer=9, head=6)
    True
"""

import difflib
import re
from dataclasses import dataclass
from types import EllipsisType

import torch
from jaxtyping import Int
from torch import Tensor

from mechinterp.core.indices import index, is_index

Pos = int | str
"""A position: its index in the prompt as it was given, or its name, such as "end"."""

Index = EllipsisType | tuple[slice | int | Tensor, ...]
"""What a tensor is indexed by."""


class HookError(RuntimeError):
    """A run that cannot do what its specs say. The message names the spec and what to try."""


@dataclass(frozen=True)
class Act:
    """One kind of activation: its hook point, its axes, and the option that enables it."""

    hook: str
    axes: tuple[str, ...]
    switch: str = ""

    @property
    def per_layer(self) -> bool:
        """True if each layer has one: a site then needs a layer."""
        return "{layer}" in self.hook


_RESID = ("prompt", "pos", "d_model")
_HEADS = ("prompt", "pos", "head", "d_head")
_INPUTS = ("prompt", "pos", "head", "d_model")
_LINKS = ("prompt", "head", "pos", "src")
_NEURONS = ("prompt", "pos", "neuron")
_SCALE = ("prompt", "pos", "one")

ACTS: dict[str, Act] = {
    "tokens": Act("tokens", ("prompt", "pos")),
    "embed": Act("hook_embed", _RESID),
    "pos_embed": Act("hook_pos_embed", _RESID),
    "resid_pre": Act("blocks.{layer}.hook_resid_pre", _RESID),
    "attn_in": Act("blocks.{layer}.hook_attn_in", _INPUTS, "attn_in"),
    "q_input": Act("blocks.{layer}.hook_q_input", _INPUTS, "split_qkv"),
    "k_input": Act("blocks.{layer}.hook_k_input", _INPUTS, "split_qkv"),
    "v_input": Act("blocks.{layer}.hook_v_input", _INPUTS, "split_qkv"),
    "ln1_scale": Act("blocks.{layer}.ln1.hook_scale", _SCALE),
    "ln1_normalized": Act("blocks.{layer}.ln1.hook_normalized", _RESID),
    "q": Act("blocks.{layer}.attn.hook_q", _HEADS),
    "k": Act("blocks.{layer}.attn.hook_k", _HEADS),
    "v": Act("blocks.{layer}.attn.hook_v", _HEADS),
    "rot_q": Act("blocks.{layer}.attn.hook_rot_q", _HEADS),
    "rot_k": Act("blocks.{layer}.attn.hook_rot_k", _HEADS),
    "attn_scores": Act("blocks.{layer}.attn.hook_attn_scores", _LINKS),
    "pattern": Act("blocks.{layer}.attn.hook_pattern", _LINKS),
    "z": Act("blocks.{layer}.attn.hook_z", _HEADS),
    "result": Act("blocks.{layer}.attn.hook_result", _INPUTS, "head_result"),
    "attn_out": Act("blocks.{layer}.hook_attn_out", _RESID),
    "resid_mid": Act("blocks.{layer}.hook_resid_mid", _RESID),
    "mlp_in": Act("blocks.{layer}.hook_mlp_in", _RESID, "mlp_in"),
    "ln2_scale": Act("blocks.{layer}.ln2.hook_scale", _SCALE),
    "ln2_normalized": Act("blocks.{layer}.ln2.hook_normalized", _RESID),
    "mlp_pre": Act("blocks.{layer}.mlp.hook_pre", _NEURONS),
    "mlp_pre_linear": Act("blocks.{layer}.mlp.hook_pre_linear", _NEURONS),
    "mlp_mid": Act("blocks.{layer}.mlp.hook_mid", _NEURONS),
    "mlp_post": Act("blocks.{layer}.mlp.hook_post", _NEURONS),
    "mlp_out": Act("blocks.{layer}.hook_mlp_out", _RESID),
    "resid_post": Act("blocks.{layer}.hook_resid_post", _RESID),
    "ln_final_scale": Act("ln_final.hook_scale", _SCALE),
    "ln_final_normalized": Act("ln_final.hook_normalized", _RESID),
    "unembed_in": Act("unembed.hook_in", _RESID),
    "logits": Act("unembed.hook_out", ("prompt", "pos", "vocab")),
}
"""Every short name, in the order in which a forward pass computes them."""

_ORDER = {name: place for place, name in enumerate(ACTS)}
_OTHER_AXES = ("ln1_scale", "ln1_normalized")
"""They have a head axis more where the inputs of attention are split: by full name they are whole,
of whatever axes."""
_SHORT = {act.hook: name for name, act in ACTS.items() if name not in _OTHER_AXES}
_OF_LAYER = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True)
class Site:
    """Where: an activation, optionally narrowed to one head, position or neuron.

    `act` is a short name of `ACTS`, or a full hook name of the model, such as
    "blocks.0.attn.hook_z". One that has a short name becomes it; another cannot be narrowed, since
    its axes are not known. Leaving out `head`, `pos` or `neuron` means all of them. `pos` is
    an index into the prompt as it was given, or a position that the prompts name ("end", "S2").
    Under grouped-query attention the heads of `k` and `v` are the key-value heads.

    Raises:
        ValueError: if the act is misspelt, lacks a layer or has no such axis.
    """

    act: str
    layer: int | None = None
    head: int | None = None
    pos: Pos | None = None
    neuron: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.act, str):
            raise ValueError(f'{self.act!r} is no activation. Give its name: Site("z", layer=0).')
        self._shorten_full_name()
        self._check_numbers()
        act = ACTS.get(self.act)
        if act is None:
            self._check_full_name()
        else:
            self._check_narrowing(act)

    def _shorten_full_name(self) -> None:
        """Put the short name in the place of a full hook name that has one."""
        if self.act in ACTS:
            return
        found = _OF_LAYER.match(self.act)
        short = _SHORT.get(_OF_LAYER.sub("blocks.{layer}.", self.act, count=1))
        if short is None:
            return
        layer = int(found[1]) if found else None
        if self.layer not in (None, layer):
            raise ValueError(f"{self!r}: the name is of layer {layer}. Leave layer out.")
        object.__setattr__(self, "act", short)
        object.__setattr__(self, "layer", layer)

    def _check_narrowing(self, act: Act) -> None:
        """Check that the activation has the layer and the axes to which the site is narrowed."""
        if act.per_layer and self.layer is None:
            raise ValueError(f"{self!r}: {self.act} exists in every layer. Give one: layer=0.")
        if not act.per_layer and self.layer is not None:
            raise ValueError(f"{self!r}: {self.act} belongs to no layer. Leave layer out.")
        for axis in ("head", "pos", "neuron"):
            if getattr(self, axis) is not None and axis not in act.axes:
                better = [n for n, a in ACTS.items() if axis in a.axes and a.per_layer]
                close = difflib.get_close_matches(self.act, better, 3, cutoff=0) or better[:3]
                raise ValueError(
                    f"{self!r}: {self.act} has axes {' '.join(act.axes)}, no {axis}. "
                    f"Did you mean one of {', '.join(close)}?"
                )

    def _check_numbers(self) -> None:
        """Check that each axis is given as one number from 0 on, or a name."""
        for axis in ("layer", "head", "pos", "neuron"):
            number = getattr(self, axis)
            if number is None or (type(number) is int and number >= 0):
                continue
            if isinstance(number, list | tuple | range):
                raise ValueError(
                    f"{self!r}: a site has one {axis}. Make one for each, and join specs with +."
                )
            if axis == "pos" and isinstance(number, str):
                continue
            if is_index(number) and number < 0:
                raise ValueError(
                    f"{self!r}: {axis}={number} is negative. Count from 0; the last position of "
                    f'each prompt is pos="end".'
                )
            object.__setattr__(self, axis, index(number, f"{self!r}: {axis}"))  # of numpy, too

    def _check_full_name(self) -> None:
        """Check that the act could be a full hook name, and is not narrowed."""
        if "hook_" not in self.act:
            names = difflib.get_close_matches(self.act.lower(), ACTS, 3, cutoff=0.4) or list(ACTS)
            raise ValueError(
                f"{self.act!r} is no activation. Did you mean {names[0]!r}? "
                f"Close: {', '.join(names)}. A full hook name such as "
                f'"blocks.0.attn.hook_z" is accepted too.'
            )
        if (self.layer, self.head, self.pos, self.neuron) != (None,) * 4:
            raise ValueError(
                f"{self!r}: the axes of a full hook name are not known, so it cannot be "
                f"narrowed. Use a short name ({', '.join(list(ACTS)[:6])} ...), or narrow "
                f"inside your edit."
            )

    @property
    def axes(self) -> tuple[str, ...] | None:
        """The axes of the whole activation; None for a full hook name."""
        act = ACTS.get(self.act)
        return act.axes if act else None

    @property
    def hook(self) -> str:
        """The full name of the hook point."""
        act = ACTS.get(self.act)
        return act.hook.format(layer=self.layer) if act else self.act

    @property
    def narrowed_axes(self) -> tuple[str, ...] | None:
        """The axes that an edit at this site sees."""
        if self.axes is None:
            return None
        return tuple(a for a in self.axes if getattr(self, a, None) is None)

    def whole(self) -> "Site":
        """The same activation, not narrowed."""
        return Site(self.act, self.layer)

    def __str__(self) -> str:
        where = "" if self.layer is None else f"L{self.layer}"
        where += "" if self.head is None else f"H{self.head}"
        text = f"{where}.{self.act}" if where else self.act
        text += "" if self.neuron is None else f"[{self.neuron}]"
        return text if self.pos is None else f"{text}@{self.pos}"

    def __lt__(self, other: "Site") -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[int, int, str, int, str, int]:
        act = _ORDER.get(self.act, len(_ORDER))
        layer = self.layer if self.layer is not None else (-1 if act < 3 else 1 << 30)
        last = len(_ORDER) if self.head is None else self.head
        return (layer, act, self.act, last, str(self.pos), self.neuron or 0)


def as_site(where: object) -> Site:
    """The site itself, or that of a full hook name.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(where, Site):
        return where
    if isinstance(where, str):
        return Site(where)
    raise ValueError(
        f'{where!r} is no site. Give one, Site("z", layer=0), or a full hook name; for several '
        f"sites join what each gives with +."
    )


def narrow_index(have: Site, want: Site, positions: Int[Tensor, " prompt"] | None) -> Index:
    """The index that narrows the value at `have` `[prompt, ...]` to the site `want` inside it.

    `positions`: where the position of `want` stands in each row, if `want` narrows to one.
    """
    axes = have.narrowed_axes
    if axes is None:
        return ...
    chosen: list[slice | int | Tensor] = [slice(None)] * len(axes)
    for axis in ("head", "neuron"):
        if axis in axes and getattr(want, axis) is not None:
            chosen[axes.index(axis)] = getattr(want, axis)
    if positions is not None and "pos" in axes:
        chosen[0] = torch.arange(len(positions), device=positions.device)
        chosen[axes.index("pos")] = positions
    return tuple(chosen)
