"""What to do where: `HookSpec`, and the functions that make them.

Every function here returns a tuple, so that specs are joined by `+`. A function of your own becomes
a spec by `edit`; nothing has to be registered.

    >>> from mechinterp.core.sites import Site
    >>> from mechinterp.core.specs import delete_token, edit, zero
    >>> specs = zero(Site("z", 1, head=6)) + delete_token(3)
    >>> specs += edit(Site("resid_mid", 0), lambda value, at: value.clamp(-1, 1), name="clamp")
    >>> [spec.name for spec in specs]
    ['zero L1H6.z', 'delete tokens@3', 'clamp L0.resid_mid']

An edit gets the rows of its own arm alone, narrowed to its site, as a private copy. It returns the
new value with the same shape, dtype and device.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.core.activations import Activations
from mechinterp.core.prompts import DELETED, Prompts
from mechinterp.core.sites import HookError, Pos, Site


@dataclass(frozen=True, eq=False)
class At:
    """What an edit may know: its site, the prompts as the model sees them, what was read so far."""

    site: Site
    prompts: Prompts
    acts: Activations


Edit = Callable[[Tensor, At], Tensor]
"""Makes the new value `[prompt, ...]` from the old one, narrowed to the site."""


@dataclass(frozen=True)
class HookSpec:
    """Where and what. With `edit=None` it reads and changes nothing; `name` is for messages.

    `needs`: another position that must exist, such as the key of a knockout.
    """

    site: Site
    edit: Edit | None
    name: str
    needs: Pos | None = None


Specs = tuple[HookSpec, ...]
"""What runs together, from left to right at one site."""


def edit(site: Site, fn: Edit, *, name: str = "") -> Specs:
    """Your own edit: `fn(value, at) -> value`, with `value` `[prompt, ...]` narrowed to the site.

    Raises:
        ValueError: if `fn` cannot be called.
    """
    if not callable(fn):
        raise ValueError(f"edit {site}: {fn!r} is not a function of (value, at).")
    name = name or getattr(fn, "__name__", "edit").replace("<lambda>", "edit")
    return (HookSpec(site, fn, f"{name} {site}"),)


def read(*sites: Site) -> Specs:
    """Keep a copy of the value at each site, after the specs to its left."""
    return tuple(HookSpec(site, None, f"read {site}") for site in sites)


def put(site: Site, value: Tensor | float) -> Specs:
    """Replace the value: by a number, by one tensor for all prompts, or by one for each.

    Raises:
        HookError: during the run, if the shape of the tensor is neither.
    """
    name = f"put {site}"
    return (HookSpec(site, lambda old, at: _fit(value, old, at, name), name),)


def zero(site: Site) -> Specs:
    """Replace the value by 0.

    What zeroing a head removes depends on how the weights were folded; what `mean` and `resample`
    remove does not.
    """
    return (HookSpec(site, lambda old, at: torch.zeros_like(old), f"zero {site}"),)


def mean(site: Site, acts: Activations) -> Specs:
    """Replace the value by its mean over the prompts of `acts`, at the site's position.

    Without a position the mean is over all their positions too, without padding.

    Raises:
        HookError: if `acts` lack the site, or the site is attention without a position.
    """
    name = f"mean {site}"
    value, axes = _take(acts, site, name), site.narrowed_axes or ()
    if "src" in axes and "pos" in axes:
        raise HookError(f"{name}: attention has no mean over positions. Give the site a pos.")
    flat = value[acts.prompts.mask] if "pos" in axes else value
    average = flat.mean(0)

    def average_everywhere(old: Tensor, at: At) -> Tensor:
        fits = old.shape[old.ndim - average.ndim :] == average.shape
        return average.expand_as(old) if fits else _fit(average, old, at, name)

    return (HookSpec(site, average_everywhere, name),)


def resample(site: Site, acts: Activations, seed: int) -> Specs:
    """Replace the value by that of a prompt of `acts`, drawn at random for each prompt.

    Source: causal scrubbing, Chan et al. 2022.
    """
    name = f"resample {site}"
    value = _take(acts, site, name)

    def drawn(old: Tensor, at: At) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(value), (len(old),), generator=generator)
        return _fit(value[rows.to(value.device)], old, at, name)

    return (HookSpec(site, drawn, name),)


def patch(site: Site, acts: Activations, source: Site | None = None) -> Specs:
    """Replace the value by that of another run, at the same site or at `source`.

    Raises:
        HookError: if `acts` lack it, or, during the run, if the shapes differ.

    Source: activation patching, Vig et al. 2020; Meng et al. 2022, arXiv 2202.05262.
    """
    name = f"patch {site}" + (f" from {source}" if source else "")
    value = _take(acts, source or site, name)
    return (HookSpec(site, lambda old, at: _fit(value, old, at, name), name),)


def add(site: Site, vector: Float[Tensor, "..."], scale: float = 1.0) -> Specs:
    """Add `scale` times a vector whose axes are the last ones of the value.

    Raises:
        HookError: during the run, if they are not.
    """
    name = f"add {site}"

    def plus(old: Tensor, at: At) -> Tensor:
        if old.shape[old.ndim - vector.ndim :] != vector.shape:
            raise HookError(
                f"{name}: the vector has shape {list(vector.shape)}, the value "
                f"{list(old.shape)}. Give a vector of its last axes ({_axes(site)})."
            )
        return old + scale * vector

    return (HookSpec(site, plus, name),)


def scale(site: Site, factor: float) -> Specs:
    """Multiply the value by a number."""
    return (HookSpec(site, lambda old, at: old * factor, f"scale {site}"),)


def knockout(layer: int, head: int | None, query: Pos | None, key: Pos) -> Specs:
    """Cut attention from a query to a key before the softmax; the other keys share its weight.

    `head=None`: every head. `query=None`: every query after the key. The key's attention to itself
    stays, so that no row of the softmax is empty.

    Raises:
        HookError: during the run, if the query comes before the key, which it cannot attend to.

    Source: Geva et al. 2023, section 3, arXiv 2304.14767.
    """
    site = Site("attn_scores", layer, head, query)
    name = f"knockout {site} to {key}"

    def cut(old: Tensor, at: At) -> Tensor:
        keys = at.prompts.positions(key)
        if query is not None:
            if bool((at.prompts.positions(query) < keys).any()):
                raise HookError(
                    f"{name}: the query comes before the key, so it does not attend to it."
                )
            old[torch.arange(len(old), device=old.device), ..., keys] = -torch.inf
            return old
        pos = torch.arange(old.shape[-1], device=old.device)
        queries = pos[
            -old.shape[-2] :
        ]  # with a key-value cache only the last positions are queries
        # link: [prompt, query, key], and a head axis before the queries where all heads are cut
        link = (pos == keys[:, None])[:, None, :] & (queries > keys[:, None])[:, :, None]
        return old.masked_fill(link if head is not None else link[:, None], -torch.inf)

    return (HookSpec(site, cut, name, needs=key),)


def delete_token(pos: Pos) -> Specs:
    """Remove a token from the input; the rest closes up. Positions mean the prompt as given."""
    site = Site("tokens", pos=pos)
    return (HookSpec(site, lambda old, at: torch.full_like(old, DELETED), f"delete {site}"),)


def replace_token(pos: Pos, token_id: int) -> Specs:
    """Replace a token by another one.

    Raises:
        ValueError: if the token id is negative.
    """
    site = Site("tokens", pos=pos)
    if token_id < 0:
        raise ValueError(
            f"replace {site}: token id {token_id} is negative. Use delete_token to delete."
        )
    return (HookSpec(site, lambda old, at: torch.full_like(old, token_id), f"replace {site}"),)


def _take(acts: Activations, site: Site, name: str) -> Tensor:
    """The value at a site of what a run read."""
    if not isinstance(acts, Activations):
        raise ValueError(
            f"{name}: give the activations that a run read, run(model, prompts, read(site)).acts, "
            f"not {type(acts).__name__}."
        )
    return acts[site]


def _fit(value: Tensor | float, old: Tensor, at: At, name: str) -> Tensor:
    """The value in the shape of the old one: a number, or a tensor for all prompts or each."""
    if not isinstance(value, Tensor):
        return torch.full_like(old, value)
    axes = at.site.narrowed_axes or ()
    if "pos" in axes and old.shape[axes.index("pos")] < at.prompts.width:
        raise HookError(
            f"{name}: the source holds every position of a run, but with a key-value cache this "
            f"pass sees {list(old.shape)}, the last of {at.prompts.width} positions. Narrow the "
            f"site to a position."
        )
    if value.shape == old.shape:
        return value
    if value.shape == old.shape[1:]:
        return value.expand_as(old)
    raise HookError(
        f"{name}: the source has shape {list(value.shape)}, the value {list(old.shape)} or "
        f"{list(old.shape[1:])} for all prompts alike. Take it from as many prompts of the same "
        f"length, or narrow the site."
    )


def _axes(site: Site) -> str:
    return " ".join(site.narrowed_axes or ("unknown",))
