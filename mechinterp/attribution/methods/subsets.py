"""Attribution from many sets of inputs removed together: Shapley values and a sparse surrogate.

Leave-one-out asks what an input does when all others are present; these ask what it does on average
when others are missing too. So two words of which either is enough get half each:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.subsets import shapley
>>> question = ask(load_model("toy:trigger"), "the sesame and some sesame", outputs=1)
>>> shapley(question)[0, 1:].values.round().astype(int).tolist()
[0, 4, 0, 0, 4]

`shapley` is exact and takes all 2^n sets. `kernel_shap` estimates it from some of them: use it
where scores must add up. `sparse_surrogate` suits long inputs of which few matter. An output's
score never depends on later inputs: they get exactly 0 and are left out of the fits.
"""

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Unpack

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechinterp.attribution.methods.subset_fits import (
    N_FOLDS,
    Places,
    fit_sparse,
    fit_with_sum,
    paired_sets,
)
from mechinterp.attribution.question.definition import DropOptions, Question, can_remove, drops
from mechinterp.attribution.question.removals import Removal, RemoveOne, removal_of
from mechinterp.attribution.scores import label_scores, sweep_cost
from mechinterp.core.arguments import checks_arguments
from mechinterp.stats.additivity import additivity_residual
from mechinterp.sweeps.options import check_options

MOST_UNITS = 12
"""The most units for `shapley`, which then takes 4096 sets."""


@checks_arguments
def shapley(
    question: Question,
    removal: str | RemoveOne | Removal = "delete",
    **options: Unpack[DropOptions],
) -> xr.DataArray:
    """The exact Shapley values of the attributed units: dims `("output", "input")`.

    The drop by removing a unit, on average over every order of removing the units one after the
    other; in the metric's unit, positive: it supports the output. The values sum to `joint_effect`,
    the drop by removing all of them. `options`: those of `drops`.

    Raises:
        ValueError: if there are more than `MOST_UNITS` units, or they cannot all be removed.
        HookError: as `attribute`.

    Source: Shapley 1953; of a model's inputs, Lundberg and Lee 2017, section 2.4, arXiv 1705.07874.
    """
    check_options("shapley", options, DropOptions)
    began = time.perf_counter()
    removal = removal_of(question.model, removal)
    n = len(question.attributed)
    if n > MOST_UNITS:
        raise ValueError(
            f"shapley takes every set of the units, 2^{n} of {n}, and at most {MOST_UNITS} units. "
            f'Take larger ones, units="sentence" or spans by name, or estimate by kernel_shap.'
        )
    _check_all_removable(question, removal)
    codes = np.arange(2**n)  # bit j: unit j is removed
    sets = [tuple(j for j in range(n) if code >> j & 1) for code in codes.tolist()]
    measured = _measure_drops(question, sets, removal, options)
    drop, sizes = measured["drop"].values, np.array([len(chosen) for chosen in sets])
    values = np.zeros((len(question.metrics), n))
    for i, past in enumerate(question.pasts):
        within = codes[codes & ~sum(1 << j for j in past) == 0]
        share = np.array([1 / math.comb(len(past) - 1, size) for size in range(len(past))])
        for j in past:
            without = within[within >> j & 1 == 0]
            gain = drop[i, without | 1 << j] - drop[i, without]
            values[i, j] = share[sizes[without]] @ gain / len(past)
    attrs = {"method": "shapley", "n_subsets": len(sets)}
    return _result(question, values, drop[:, -1], measured, began, attrs)


@checks_arguments
def kernel_shap(
    question: Question,
    n_subsets: int = 256,
    removal: str | RemoveOne | Removal = "delete",
    *,
    seed: int = 0,
    **options: Unpack[DropOptions],
) -> xr.DataArray:
    """Shapley values estimated from `n_subsets` sets, each taken with its complement.

    A least-squares fit, constrained so that the values sum to `joint_effect`. Sets are taken by
    size, from one unit (and all but one) up, all of a size as long as `n_subsets` allows; the rest
    are drawn. So 2^n - 2 sets give exact values, and 2 n do if effects stop at pairs. `error`: the
    standard error from the drawn sets, conservative; NaN if there are fewer drawn pairs than units,
    0 if all sets were taken. `options`: those of `drops`.

    Raises:
        ValueError: if there are fewer than 2 sets for each unit, or the units cannot all be
            removed.
        HookError: as `attribute`.

    Source: KernelSHAP, Lundberg and Lee 2017, section 4.1, arXiv 1705.07874; paired sets and the
    constraint on the sum: Covert and Lee 2021, arXiv 2012.01536.
    """
    check_options("kernel_shap", options, DropOptions)
    began = time.perf_counter()
    removal = removal_of(question.model, removal)
    n = len(question.attributed)
    least = min(2 * n, 2**n - 2)
    if n_subsets < least:
        raise ValueError(
            f"kernel_shap: n_subsets={n_subsets} cannot tell {n} units apart. Take at least "
            f'{least}, or larger units: units="word", "sentence" or spans by name.'
        )
    _check_all_removable(question, removal)
    chosen, weight, drawn = paired_sets(n, n_subsets // 2, np.random.default_rng(seed))
    others = [tuple(j for j in range(n) if j not in one) for one in chosen]
    measured = _measure_drops(question, [*chosen, *others, tuple(range(n))], removal, options)
    drop, joint = measured["drop"].values[:, :-1], measured["drop"].values[:, -1]
    # The drops of a set and of all less that of its complement estimate the same sum of values.
    told = (drop[:, : len(chosen)] + joint[:, None] - drop[:, len(chosen) :]) / 2
    removed = _indicators(chosen, n)
    values, error = np.zeros((2, len(question.metrics), n))
    for i, past in enumerate(question.pasts):
        if past:
            values[i, past], error[i, past] = fit_with_sum(
                removed[:, past], told[i], joint[i], weight, drawn
            )
    if 2 * len(chosen) == 2**n - 2:
        error[:] = 0  # all sets were taken
    attrs = {"method": "KernelSHAP", "n_subsets": 2 * len(chosen), "seed": seed}
    return _result(question, values, joint, measured, began, attrs, error=error)


@checks_arguments
def sparse_surrogate(
    question: Question,
    n_subsets: int = 64,
    removal: str | RemoveOne | Removal = "delete",
    *,
    keep: float = 0.5,
    alpha: float | None = None,
    seed: int = 0,
    **options: Unpack[DropOptions],
) -> xr.DataArray:
    """The weight of each unit in a sparse linear fit to random sets removed together.

    Each unit is kept independently with probability `keep`. Its score is its weight in a LASSO fit
    to `n_subsets` such sets, so most are exactly 0 and the others somewhat too small. `alpha`: the
    penalty, in the metric's unit; by default chosen by 5-fold cross-validation. Coordinates:
    `alpha`; `fit`, the cross-validated R squared (1: perfect; 0 or less: no better than the mean;
    NaN: the score never changes). `options`: those of `drops`.

    ContextCite is this with `metric=sequence_log_odds()`, `units="sentence"` and an `alpha` of
    0.01 times the number of output tokens.

    Raises:
        ValueError: if some unit is removed, or kept, in all sets, or the fit does not converge.
        HookError: as `attribute`.

    Source: ContextCite, Cohen-Wang et al. 2024, section 3, arXiv 2409.00729.
    """
    check_options("sparse_surrogate", options, DropOptions)
    began = time.perf_counter()
    removal = removal_of(question.model, removal)
    wanted = question.attributed
    _check_draws(len(wanted), n_subsets, keep)
    if n_subsets < 2 * N_FOLDS or (alpha is not None and not 0 < alpha < math.inf):
        raise ValueError(
            f"sparse_surrogate: n_subsets={n_subsets}, alpha={alpha}. Take {2 * N_FOLDS} sets or "
            f"more, and a positive alpha, or None."
        )
    possible = (
        one
        for one in _drawn(len(wanted), keep, np.random.default_rng(seed))
        if not one or can_remove(question, [wanted[j] for j in one], removal)
    )
    sets = list(itertools.islice(possible, n_subsets))
    removed = _indicators(sets, len(wanted))
    same = np.flatnonzero(removed.min(0) == removed.max(0))
    if len(same):
        raise ValueError(
            f"sparse_surrogate: {question.units[wanted[same[0]]].text!r} is "
            f"{'removed' if removed[0, same[0]] else 'kept'} in all {n_subsets} sets, so it has no "
            f"score. Take more sets, another keep than {keep}, or another removal."
        )
    can_remove_all = can_remove(question, wanted, removal)
    asked = [*sets, tuple(range(len(wanted)))] if can_remove_all else sets
    measured = _measure_drops(question, asked, removal, options)
    drop = measured["drop"].values
    joint = drop[:, -1] if can_remove_all else np.full(len(drop), np.nan)
    values, fit, used = np.zeros((len(drop), len(wanted))), *np.full((2, len(drop)), np.nan)
    for i, past in enumerate(question.pasts):
        if past:
            values[i, past], fit[i], used[i] = fit_sparse(
                removed[:, past], drop[i, :n_subsets], alpha
            )
    attrs = {"method": "sparse surrogate", "n_subsets": n_subsets, "keep": keep, "seed": seed}
    return _result(question, values, joint, measured, began, attrs, fit=fit, alpha=used)


def random_sets(
    n_units: int, n_sets: int, keep: float = 0.5, seed: int = 0
) -> tuple[tuple[int, ...], ...]:
    """Sets of units to remove: each unit is in a set independently with probability `1 - keep`.

    Sorted places 0 to `n_units - 1` among the attributed units. A set may repeat. None is empty or
    has all units, except that of a single unit every set is that unit.

    Raises:
        ValueError: if there is no unit or set to draw, or `keep` is not from 0.01 to 0.99.
    """
    _check_draws(n_units, n_sets, keep)
    if n_units == 1:
        return ((0,),) * n_sets
    some = (s for s in _drawn(n_units, keep, np.random.default_rng(seed)) if 0 < len(s) < n_units)
    return tuple(itertools.islice(some, n_sets))


# Sets


def _check_draws(n_units: int, n_sets: int, keep: float) -> None:
    if n_units < 1 or n_sets < 1:
        raise ValueError(f"{n_sets} sets of {n_units} units: give at least 1 of both.")
    if not 0.01 <= keep <= 0.99:
        raise ValueError(f"keep={keep}: give a probability from 0.01 to 0.99, such as 0.5.")


def _drawn(n_units: int, keep: float, rng: np.random.Generator) -> Iterator[Places]:
    while True:
        yield tuple(np.flatnonzero(rng.random(n_units) >= keep).tolist())


# Questions


def _check_all_removable(question: Question, removal: Removal) -> None:
    wanted = question.attributed
    if not can_remove(question, wanted, removal):
        raise ValueError(
            f"this method needs the score without any of the {len(wanted)} attributed units, but "
            f"removal {removal.name!r} of all leaves no position from which an output could be "
            f"read. Keep a token, inputs=[...], or take a removal that keeps positions, such as "
            f'"knockout" or "mean".'
        )


def _indicators(sets: Sequence[Places], n: int) -> Float[np.ndarray, "set unit"]:
    removed = np.zeros((len(sets), n))
    for row, chosen in zip(removed, sets, strict=True):
        row[list(chosen)] = 1
    return removed


def _measure_drops(
    question: Question, sets: Sequence[Places], removal: Removal, options: DropOptions
) -> xr.Dataset:
    wanted = question.attributed
    return drops(question, [[wanted[j] for j in chosen] for chosen in sets], removal, **options)


def _result(
    question: Question,
    values: Float[np.ndarray, "output unit"],
    joint: Float[np.ndarray, " output"],
    measured: xr.Dataset,
    began: float,
    attrs: Mapping[str, object],
    **coords: np.ndarray,
) -> xr.DataArray:
    """The scores, with their cost and that of one full pass for each output and set."""
    cost = sweep_cost(question, measured, measured.sizes["set"], began)
    return label_scores(
        question,
        values + 0.0,  # no -0
        {**cost, **attrs},
        joint_effect=joint,
        residual=additivity_residual(values, joint),
        **coords,
    )
