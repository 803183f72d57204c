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

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.core.activations import Activations
from mechinterp.core.callables import call_error
from mechinterp.core.indices import index, is_real, real
from mechinterp.core.prompts import DELETED, Prompts
from mechinterp.core.sites import HookError, Pos, Site, as_site, narrow_index


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", as_site(self.site))


Where = Site | str
"""A site, or the full name of a hook point, such as "blocks.0.attn.hook_z"."""

Specs = tuple[HookSpec, ...]
"""What runs together, from left to right at one site."""


def edit(site: Where, fn: Edit, *, name: str = "") -> Specs:
    """Your own edit: `fn(value, at) -> value`, with `value` `[prompt, ...]` narrowed to the site.

    Raises:
        ValueError: if `fn` cannot be called with a value and an `At`.
    """
    site = as_site(site)
    if not callable(fn):
        raise ValueError(f"edit {site}: {fn!r} is not a function of (value, at).")
    if wrong := call_error(fn, None, None):
        raise ValueError(f"edit {site}: it is called as fn(value, at), but {wrong}.")
    name = name or getattr(fn, "__name__", "edit").replace("<lambda>", "edit")
    return (HookSpec(site, fn, f"{name} {site}"),)


def read(*sites: Where) -> Specs:
    """Keep a copy of the value at each site, after the specs to its left."""
    return tuple(HookSpec(site, None, f"read {site}") for site in map(as_site, sites))


def put(site: Where, value: Tensor | float) -> Specs:
    """Replace the value: by a number, by one tensor for all prompts, or by one for each.

    Raises:
        HookError: during the run, if the shape of the tensor is neither.
        ValueError: if it is neither a number nor a tensor.
    """
    site = as_site(site)
    if not isinstance(value, Tensor):
        if not is_real(value):
            raise ValueError(f"put {site}: {value!r} is neither a number nor a tensor.")
        value = float(value)
    name = f"put {site}"
    return (HookSpec(site, lambda old, at: _fit(value, old, at, name), name),)


def zero(site: Where) -> Specs:
    """Replace the value by 0.

    What zeroing a head removes depends on how the weights were folded; what `mean` and `resample`
    remove does not.
    """
    site = as_site(site)
    return (HookSpec(site, lambda old, at: torch.zeros_like(old), f"zero {site}"),)


def mean(site: Where, acts: Activations) -> Specs:
    """Replace the value by its mean over the prompts of `acts`, at the site's position.

    Without a position the mean is over all their positions too, without padding.

    Raises:
        HookError: if `acts` lack the site, or the site is attention without a position.
    """
    site = as_site(site)
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


def resample(site: Where, acts: Activations, seed: int) -> Specs:
    """Replace the value by that of a prompt of `acts`, drawn at random for each prompt.

    Source: causal scrubbing, Chan et al. 2022.
    """
    site = as_site(site)
    name = f"resample {site}"
    seed = index(seed, f"{name}: the seed", least=None)
    value = _take(acts, site, name)

    def drawn(old: Tensor, at: At) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(value), (len(old),), generator=generator)
        return _fit(value[rows.to(value.device)], old, at, name)

    return (HookSpec(site, drawn, name),)


def patch(
    site: Where, acts: Activations | Mapping[str, Tensor], source: Where | None = None
) -> Specs:
    """Replace the value by that of another run, at the same site or at `source`.

    `acts`: what `run` read; or tensors by full hook name, as the cache of `run_with_cache`, which
    knows no named positions.

    Raises:
        HookError: if `acts` lack it, or, during the run, if the shapes differ.

    Source: activation patching, Vig et al. 2020; Meng et al. 2022, arXiv 2202.05262.
    """
    site, source = as_site(site), None if source is None else as_site(source)
    name = f"patch {site}" + (f" from {source}" if source else "")
    value = _take_tensor(acts, source or site, name)
    return (HookSpec(site, lambda old, at: _fit(value, old, at, name), name),)


def add(site: Where, vector: Float[Tensor, "..."], scale: float = 1.0) -> Specs:
    """Add `scale` times a vector whose axes are the last ones of the value.

    Raises:
        HookError: during the run, if they are not.
        ValueError: if it is no tensor, or the scale no number.
    """
    site = as_site(site)
    name = f"add {site}"
    if not isinstance(vector, Tensor):
        raise ValueError(f"{name}: the vector is a {type(vector).__name__}. Give a tensor.")
    scale = real(scale, f"{name}: the scale")

    def plus(old: Tensor, at: At) -> Tensor:
        if old.shape[old.ndim - vector.ndim :] != vector.shape:
            raise HookError(
                f"{name}: the vector has shape {list(vector.shape)}, the value "
                f"{list(old.shape)}. Give a vector of its last axes ({_axes(site)})."
            )
        return old + scale * vector

    return (HookSpec(site, plus, name),)


def scale(site: Where, factor: float) -> Specs:
    """Multiply the value by a number.

    Raises:
        ValueError: if it is none.
    """
    site = as_site(site)
    factor = real(factor, f"scale {site}: the factor")
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
        ValueError: if the token id is negative, or no whole number.
    """
    site = Site("tokens", pos=pos)
    token_id = index(token_id, f"replace {site}: token id", least=None)
    if token_id < 0:
        raise ValueError(
            f"replace {site}: token id {token_id} is negative. Use delete_token to delete."
        )
    return (HookSpec(site, lambda old, at: torch.full_like(old, token_id), f"replace {site}"),)


def _take(acts: object, site: Site, name: str) -> Tensor:
    """The value at a site of what a run read."""
    if not isinstance(acts, Activations):
        raise ValueError(
            f"{name}: give the activations that a run read, run(model, prompts, read(site)).acts, "
            f"not {type(acts).__name__}."
        )
    return acts[site]


def _take_tensor(acts: Activations | Mapping[str, Tensor], site: Site, name: str) -> Tensor:
    """The value at a site of what a run read, or of tensors by full hook name."""
    by_name: object = getattr(acts, "cache_dict", acts)  # of a cache of TransformerLens
    if isinstance(acts, Activations) or not isinstance(by_name, Mapping):
        return _take(acts, site, name)
    whole: object = by_name.get(site.hook)
    if not isinstance(whole, Tensor):
        raise HookError(f"{name}: the tensors given have no {site.hook}.")
    if site.axes is None:
        return whole
    if whole.ndim != len(site.axes):
        raise HookError(
            f"{name}: {site.hook} has shape {list(whole.shape)} there, not the axes "
            f"{' '.join(site.axes)}. Keep the batch dimension."
        )
    if isinstance(site.pos, str):
        raise HookError(
            f"{name}: these tensors do not say where {site.pos!r} is. Give its number, or "
            f"run(model, prompts, read(site)).acts."
        )
    at = None if site.pos is None else torch.full((len(whole),), site.pos, device=whole.device)
    for axis in ("head", "pos", "neuron"):
        number = getattr(site, axis)
        if number is not None and number >= whole.shape[site.axes.index(axis)]:
            raise HookError(f"{name}: the tensor {list(whole.shape)} has no {axis} {number}.")
    return whole[narrow_index(site.whole(), site, at)]


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
