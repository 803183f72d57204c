"""Joint ablations: every pair of some sites, or more and more of them.

Redundant sites cost little alone and much together. `interaction` says how much more than the sum.

>>> from mechinterp import Site, load_model, log_prob, token_id
>>> from mechinterp.ablation.joint import ablate_pairs, interaction
>>> model = load_model("toy:trigger")
>>> refuse = log_prob(token_id(model, "REFUSE"))
>>> sites = [Site("z", 0, 0), Site("z", 1, 0), Site("z", 1, 1)]
>>> found = ablate_pairs(model, "please bring the sesame", refuse, "zero", sites)
>>> interaction(found).sel(first="L0H0.z", second="L1H0.z").dims
('prompt',)
"""

import itertools
from collections.abc import Sequence
from typing import Unpack

import numpy as np
import xarray as xr

from mechinterp.ablation.single import ablate_sites, effect
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.signs import no_support
from mechinterp.core.sites import Site
from mechinterp.engine.replacements import Replacement
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.sweeps.options import SweepOptions, check_options

INTERACTION_SIGN = (
    "Effect of both minus the effects of each alone. Where ablation lowers the metric, negative: "
    "each stands in for the other (redundancy); positive: they need each other (synergy)."
)


@checks_arguments
def ablate_pairs(
    model: Model,
    prompts: Text,
    metric: Metric,
    how: Replacement | str,
    sites: Sequence[Site],
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Ablate each pair of the sites: dims (first, second, prompt), in the metric's unit.

    Symmetric, each pair computed once; on the diagonal each site alone. Labels are the sites'
    names. `interaction` gives what a pair does beyond its two sites alone. `options`: those of
    `sweep`.

    Raises:
        HookError: as `sweep`.
        ValueError: if a site is named twice or `how` is unknown.
    """
    check_options("ablate_pairs", options)
    labels = _labels(sites)
    pairs = list(itertools.combinations_with_replacement(range(len(sites)), 2))

    def pair_sites(pair: int) -> list[Site]:
        return [sites[i] for i in dict.fromkeys(pairs[pair])]

    over = {"pair": range(len(pairs))}
    found = ablate_sites(model, tokenize(model, prompts), metric, how, over, pair_sites, options)
    place = np.empty((len(sites), len(sites)), dtype=int)
    for number, (i, j) in enumerate(pairs):
        place[i, j] = place[j, i] = number
    square = found.drop_vars("pair").isel(pair=xr.DataArray(place, dims=("first", "second")))
    return square.assign_coords(first=labels, second=labels)


@checks_arguments
def ablate_cumulatively(
    model: Model,
    prompts: Text,
    metric: Metric,
    how: Replacement | str,
    sites: Sequence[Site],
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Ablate none of the sites, the first, the first two, ... all: dims (n_ablated, prompt).

    In the metric's unit. The coordinate `site` names the one added last. `options`: those of
    `sweep`.

    Raises:
        HookError: as `sweep`.
        ValueError: if a site is named twice or `how` is unknown.
    """
    check_options("ablate_cumulatively", options)
    labels = _labels(sites)
    over = {"n_ablated": range(len(sites) + 1)}

    def first(n_ablated: int) -> list[Site]:
        return list(sites[:n_ablated])

    found = ablate_sites(model, tokenize(model, prompts), metric, how, over, first, options)
    return found.assign_coords(site=("n_ablated", ["", *labels]))


@checks_arguments
def interaction(result: xr.DataArray) -> xr.DataArray:
    """effect(both) - effect(first) - effect(second), from `ablate_pairs`, in its unit.

    For a metric that ablation lowers, negative means redundancy (both cost more than the sum) and
    positive that the two work in series. NaN on the diagonal.

    Raises:
        ValueError: if `result` is not a result of `ablate_pairs`.
    """
    if not {"first", "second"} <= {*result.dims}:
        raise ValueError(f"this is not a result of ablate_pairs: its dims are {list(result.dims)}.")
    beyond = effect(result).transpose("first", "second", ...)
    alone = np.einsum("ii...->i...", beyond.values)
    values = beyond.values - alone[:, None] - alone[None, :]
    values[np.diag_indices(len(alone))] = np.nan
    return beyond.copy(data=values).assign_attrs(no_support(INTERACTION_SIGN))


def _labels(sites: Sequence[Site]) -> list[str]:
    labels = [str(site) for site in sites]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"{label} is named twice. Name each site once.")
    return labels
