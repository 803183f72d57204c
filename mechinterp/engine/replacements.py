"""What takes the place of an ablated activation: `Replacement`: "zero", a mean, a resampled value.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.engine.replacements import mean_of, resample_from
>>> reference = tokenize(load_model("toy:trigger"), ["bring the letter", "bring the map"])
>>> mean_of(reference).name
'mean of 2 prompts over all positions'
>>> resample_from(reference, seed=0).name
'resampled from 2 prompts, seed 0'

Zero is a value that the model may never have, and what zeroing a head removes depends on how the
weights were folded; a mean and a resampled value are the model's own.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mechinterp import models
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError, Site, narrow_index
from mechinterp.core.specs import At, Edit, read
from mechinterp.engine.runner import run
from mechinterp.models.hook_points import read_bytes
from mechinterp.models.memory import available_bytes
from mechinterp.models.model import Model


@dataclass(frozen=True, eq=False)
class Replacement:
    """What takes an activation's place.

    `prepare(model, prompts, sites)` is called once for all sites of a sweep, and gives a function
    from each of these sites to the edit there. One of your own needs nothing else.
    """

    name: str
    prepare: Callable[[Any, Prompts, Sequence[Site]], Callable[[Site], Edit]]


def replacement(how: Replacement | str) -> Replacement:
    """The replacement itself, or that called "zero".

    Raises:
        ValueError: if another text is given.
    """
    if isinstance(how, Replacement):
        return how
    if how != "zero":
        raise ValueError(
            f'how={how!r}: "zero", mean_of(reference) or resample_from(reference, seed=0), '
            f"where the reference is a set of prompts to take activations from."
        )
    return Replacement("zero", lambda model, prompts, sites: lambda site: _zeroed)


def mean_of(reference: Prompts, *, by_position: bool = False) -> Replacement:
    """The mean over a reference set: over all its tokens, or, by position, over its prompts.

    By position, position 3 gets the mean at position 3 of those reference prompts that have one,
    and a named position that at the position of this name.

    Raises:
        HookError: before the sweep, where there is no mean over positions, as of attention
            patterns, or if the reference is shorter than the prompts.
    """
    over = "each position" if by_position else "all positions"

    def prepare(model: Model, prompts: Prompts, sites: Sequence[Site]) -> Callable[[Site], Edit]:
        if by_position and reference.width < prompts.width and any(s.pos is None for s in sites):
            raise HookError(
                f"mean by position: the prompts have up to {prompts.width} tokens, the reference "
                f"{reference.width}. Give a longer reference, or by_position=False."
            )
        wide = {site: _to_average(site, by_position) for site in sites}
        means = _means(model, reference, list(dict.fromkeys(wide.values())), by_position)

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


def resample_from(reference: Prompts, *, seed: int) -> Replacement:
    """For each prompt, what one prompt of the reference had there, drawn at random.

    It is the same reference prompt at every site of the sweep. Where no position is given, it has
    to be as long as the prompt or longer.

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


def _zeroed(old: Tensor, at: At) -> Tensor:
    return torch.zeros_like(old)


def _to_average(site: Site, by_position: bool) -> Site:
    """What is averaged for a site: all heads or neurons, at its position or at all."""
    axes = site.axes
    if axes is None or "src" in axes or site.act == "tokens":
        raise HookError(
            f"mean {site}: there is no mean of it over positions. Use resample_from, or another "
            f"site, such as v."
        )
    return Site(site.act, site.layer, pos=site.pos if by_position else None)


def _means(
    model: Model, reference: Prompts, sites: Sequence[Site], by_position: bool
) -> dict[Site, Tensor]:
    """The mean at each site, with the axes of the value there; those averaged over have length 1.

    The reference runs in chunks, so that what is kept at a time does not grow with it.
    """
    sums: dict[Site, Tensor] = {}
    counts: dict[Site, Tensor] = {}
    for chunk in _chunks(model, reference, sites):
        acts = run(model, chunk, read(*sites), logits_at=()).acts
        for site in sites:
            value = acts[site].double()
            there = torch.ones(len(chunk), device=value.device)
            if site.pos is None:
                there = chunk.mask.to(value)
            there = there.reshape(*there.shape, *(1,) * (value.ndim - there.ndim))
            over = (0,) if by_position else (0, 1)
            total = (value * there).sum(over, keepdim=True)
            sums[site] = sums.get(site, 0) + total
            counts[site] = counts.get(site, 0) + there.sum(over, keepdim=True)
    return {site: sums[site] / counts[site] for site in sites}


def _chunks(model: Model, prompts: Prompts, sites: Sequence[Site]) -> Iterator[Prompts]:
    budget = min(available_bytes(models.device(model)) // 4, 1 << 28)
    # Some of what a pass holds beside the reads is as large as they are, thus half for each.
    each = 2 * math.ceil(read_bytes(model, prompts, sites) / len(prompts))
    size = max(1, budget // max(1, each))
    for begin in range(0, len(prompts), size):
        yield prompts.rows(torch.arange(begin, min(begin + size, len(prompts))))


def _check_long_enough(prompts: Prompts, drawn: Prompts, rows: Int[Tensor, " prompt"]) -> None:
    lengths = zip(prompts.lengths.tolist(), drawn.lengths.tolist(), rows.tolist(), strict=True)
    for prompt, (wanted, there, row) in enumerate(lengths):
        if there < wanted:
            raise ValueError(
                f"resample: prompt {prompt} has {wanted} tokens, reference prompt {row}, which was "
                f"drawn for it, {there}. Give a reference of longer prompts, or positions such as "
                f'["end"].'
            )
