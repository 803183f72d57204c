"""What replaces an ablated activation: `Replacement`, "zero", a mean or a resampled value.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.engine.replacements import mean_of, resample_from
>>> reference = tokenize(load_model("toy:trigger"), ["bring the letter", "bring the map"])
>>> mean_of(reference).name
'mean of 2 prompts over all positions'
>>> resample_from(reference, seed=0).name
'resampled from 2 prompts, seed 0'

The model may never produce zero, and what zeroing a head removes depends on how the weights were
folded. A mean and a resampled value come from the model itself.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError, Site, narrow_index
from mechinterp.core.specs import At, Edit, read
from mechinterp.engine.runner import run
from mechinterp.models.hook_points import read_bytes
from mechinterp.models.memory import available_bytes
from mechinterp.models.model import Model


@dataclass(frozen=True, eq=False)
class Replacement:
    """What replaces an activation.

    `prepare(model, prompts, sites)` is called once for all sites of a sweep, and returns a function
    from each of these sites to the edit there. A replacement of your own needs nothing else.
    """

    name: str
    prepare: Callable[[Model, Prompts, Sequence[Site]], Callable[[Site], Edit]]


def resolve_replacement(how: Replacement | str) -> Replacement:
    """The replacement itself, or the one called "zero".

    Raises:
        ValueError: if another text is given.
    """
    if isinstance(how, Replacement):
        return how
    if how != "zero":
        raise ValueError(
            f'how={how!r} is no replacement. Give "zero", mean_of(reference) or '
            f"resample_from(reference, seed=0); the reference is a set of prompts."
        )
    return Replacement("zero", lambda model, prompts, sites: lambda site: _zero)


@checks_arguments
def mean_of(reference: Prompts, *, by_position: bool = False) -> Replacement:
    """The mean over a reference set: over all its tokens, or by position over its prompts.

    By position, position 3 gets the mean at position 3 of the reference prompts that are long
    enough, and a named position gets the mean at the position of that name.

    Raises:
        HookError: before the sweep, if the site has no mean over positions, as attention patterns
            have none, or if the reference is shorter than the prompts.
    """
    over = "each position" if by_position else "all positions"

    def prepare(model: Model, prompts: Prompts, sites: Sequence[Site]) -> Callable[[Site], Edit]:
        if by_position and reference.width < prompts.width and any(s.pos is None for s in sites):
            raise HookError(
                f"mean by position: the prompts have up to {prompts.width} tokens, the reference "
                f"{reference.width}. Give a longer reference, or by_position=False."
            )
        wide = {site: _site_to_average(site, by_position=by_position) for site in sites}
        means = _means(
            model, reference, list(dict.fromkeys(wide.values())), by_position=by_position
        )

        def at_site(site: Site) -> Edit:
            have = wide[site]
            value = means[have][narrow_index(have, replace(site, pos=have.pos), None)]

            def averaged(old: Tensor, at: At) -> Tensor:
                fits = value[0] if value.ndim > old.ndim else value
                if by_position and site.pos is None:
                    fits = fits[:, : old.shape[1]]
                return fits.to(old).expand_as(old)

            return averaged

        return at_site

    return Replacement(f"mean of {len(reference)} prompts over {over}", prepare)


@checks_arguments
def resample_from(reference: Prompts, *, seed: int) -> Replacement:
    """For each prompt, the value of one reference prompt there, drawn at random.

    The same reference prompt is used at every site of the sweep. Where no position is given, it
    must be at least as long as the prompt.

    Raises:
        ValueError: before the sweep, if a drawn prompt is too short.

    Source: causal scrubbing, Chan et al. 2022.
    """

    def prepare(model: Model, prompts: Prompts, sites: Sequence[Site]) -> Callable[[Site], Edit]:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(reference), (len(prompts),), generator=generator)
        drawn = reference.rows(rows)
        if any({"pos", "src"} & {*(s.narrowed_axes or ())} for s in sites):
            _check_long_enough(prompts, drawn, rows)
        wide = dict.fromkeys(replace(site, head=None, neuron=None) for site in sites)
        acts = run(model, drawn, read(*wide), logits_at=()).acts

        def at_site(site: Site) -> Edit:
            value, axes = acts[site], site.narrowed_axes or ()

            def resampled(old: Tensor, at: At) -> Tensor:
                fits = value
                for axis in {"pos", "src"} & {*axes}:
                    fits = fits.narrow(axes.index(axis), 0, old.shape[axes.index(axis)])
                return fits

            return resampled

        return at_site

    return Replacement(f"resampled from {len(reference)} prompts, seed {seed}", prepare)


def _zero(old: Tensor, at: At) -> Tensor:
    return torch.zeros_like(old)


def _site_to_average(site: Site, *, by_position: bool) -> Site:
    """The site that is averaged for another: with all heads or neurons, at its position or all."""
    axes = site.axes
    if axes is None or "src" in axes or site.act == "tokens":
        raise HookError(
            f"mean {site}: it has no mean over positions. Use resample_from, or another site, such "
            f"as v."
        )
    return Site(site.act, site.layer, pos=site.pos if by_position else None)


def _means(
    model: Model, reference: Prompts, sites: Sequence[Site], *, by_position: bool
) -> dict[Site, Tensor]:
    """The mean at each site. It keeps the axes of the value; axes averaged over have length 1.

    The reference runs in chunks, so that the memory needed does not grow with it.
    """
    sums: dict[Site, Tensor] = {}
    counts: dict[Site, Tensor] = {}
    for chunk in _chunks(model, reference, sites):
        acts = run(model, chunk, read(*sites), logits_at=()).acts
        for site in sites:
            value = acts[site].double()
            there = torch.ones(len(chunk), device=value.device)  # 1 where a value counts
            if site.pos is None:
                there = chunk.mask.to(value)
            there = there.reshape(*there.shape, *(1,) * (value.ndim - there.ndim))
            over = (0,) if by_position else (0, 1)
            total = (value * there).sum(over, keepdim=True)
            sums[site] = sums.get(site, 0) + total
            counts[site] = counts.get(site, 0) + there.sum(over, keepdim=True)
    return {site: sums[site] / counts[site] for site in sites}


def _chunks(model: Model, prompts: Prompts, sites: Sequence[Site]) -> Iterator[Prompts]:
    """The prompts in chunks whose reads fit into a quarter of the free memory."""
    budget = min(available_bytes(models.device(model)) // 4, 1 << 28)
    # Beside the reads a pass holds values that are as large as they are: half for each.
    each = 2 * math.ceil(read_bytes(model, prompts, sites) / len(prompts))
    size = max(1, budget // max(1, each))
    for begin in range(0, len(prompts), size):
        yield prompts.rows(torch.arange(begin, min(begin + size, len(prompts))))


def _check_long_enough(prompts: Prompts, drawn: Prompts, rows: Int[Tensor, " prompt"]) -> None:
    """Check that each drawn prompt has all the positions that are asked of it."""
    lengths = zip(prompts.lengths.tolist(), drawn.lengths.tolist(), rows.tolist(), strict=True)
    for prompt, (wanted, there, row) in enumerate(lengths):
        if there < wanted:
            raise ValueError(
                f"resample: prompt {prompt} has {wanted} tokens, but reference prompt {row}, which "
                f"was drawn for it, has {there}. Give a reference of longer prompts, or positions "
                f'such as ["end"].'
            )
