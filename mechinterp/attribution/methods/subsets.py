"""Attribution from many sets of inputs removed together: Shapley values and a sparse surrogate.

Leave-one-out asks what an input does when all others are there; these ask what it does on average,
when others are missing too. So of two words each of which is enough, each gets half:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.subsets import shapley
>>> question = ask(load_model("toy:trigger"), "the sesame and some sesame", outputs=1)
>>> shapley(question)[0, 1:].values.round().astype(int).tolist()
[0, 4, 0, 0, 4]

`shapley` is exact and takes all 2^n sets. `kernel_shap` estimates it from some of them, and suits
values that have to add up; `sparse_surrogate` suits long inputs of which few matter. An output's
score never depends on what comes after it: such inputs get exactly 0, and no part in a fit.
"""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, Unpack

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
from mechinterp.attribution.scores import scored, sweep_cost
from mechinterp.stats.additivity import additivity_residual
from mechinterp.sweeps.options import check_options

MOST_UNITS = 12
"""The most units of which `shapley` takes every set: 4096 sets."""


def shapley(
    question: Question,
    removal: str | RemoveOne | Removal = "delete",
    **options: Unpack[DropOptions],
) -> xr.DataArray:
    """The exact Shapley values of the attributed units: dims `("output", "input")`.

    What removing a unit takes, on average over every order in which the units could be removed one
    after the other; in the metric's unit, positive: it supports the output. They sum to
    `joint_effect`, the score of the whole prompt less that with all of them removed. `options`:
    those of `drops`.

    Raises:
        ValueError: if there are more than `MOST_UNITS` units, or all together cannot be removed.
        HookError: as `attribute`.

    Source: Shapley 1953; of a model's inputs, Lundberg and Lee 2017, section 2.4, arXiv 1705.07874.
    """
    check_options("shapley", options, DropOptions)
    began = time.perf_counter()
    how = removal_of(question.model, removal)
    n = len(question.attributed)
    if n > MOST_UNITS:
        raise ValueError(
            f"shapley takes every set of the units, 2^{n} of {n}; {MOST_UNITS} units are the most. "
            f'Take larger ones, units="sentence" or spans by name, or estimate by kernel_shap.'
        )
    _check_all(question, how)
    codes = np.arange(2**n)  # bit j: unit j is removed
    sets = [tuple(j for j in range(n) if code >> j & 1) for code in codes.tolist()]
    fallen = _fallen(question, sets, how, options)
    drop, sizes = fallen["drop"].values, np.array([len(chosen) for chosen in sets])
    values = np.zeros((len(question.metrics), n))
    for i, past in enumerate(question.pasts):
        within = codes[codes & ~sum(1 << j for j in past) == 0]
        share = np.array([1 / math.comb(len(past) - 1, size) for size in range(len(past))])
        for j in past:
            without = within[within >> j & 1 == 0]
            gain = drop[i, without | 1 << j] - drop[i, without]
            values[i, j] = share[sizes[without]] @ gain / len(past)
    attrs = {"method": "shapley", "n_subsets": len(sets)}
    return _result(question, values, drop[:, -1], fallen, began, attrs)


def kernel_shap(
    question: Question,
    n_subsets: int = 256,
    removal: str | RemoveOne | Removal = "delete",
    *,
    seed: int = 0,
    **options: Unpack[DropOptions],
) -> xr.DataArray:
    """Shapley values estimated from `n_subsets` sets, each drawn with its complement.

    A least-squares fit, in which the values sum to `joint_effect`. The sizes of sets that weigh
    most are taken whole as far as the sets go, from one unit (and all but one) up; so with
    2^n - 2 sets the values are exact, and those of effects that stop at pairs are so with 2 n.
    `error`: the standard error from the sets that were drawn, rather too large than too small; NaN
    if they are fewer pairs than units, 0 if all sets were taken.

    Raises:
        ValueError: if there are fewer than 2 sets a unit, or all units together cannot be removed.
        HookError: as `attribute`.

    Source: KernelSHAP, Lundberg and Lee 2017, section 4.1, arXiv 1705.07874; with sets in
    pairs and the sum as a constraint: Covert and Lee 2021, arXiv 2012.01536.
    """
    check_options("kernel_shap", options, DropOptions)
    began = time.perf_counter()
    how = removal_of(question.model, removal)
    n = len(question.attributed)
    least = min(2 * n, 2**n - 2)
    _check_number(n_subsets)
    if n_subsets < least:
        raise ValueError(
            f"kernel_shap: n_subsets={n_subsets} cannot tell {n} units apart; {least} are the "
            f'least. Take more, or larger units: units="word", "sentence" or spans by name.'
        )
    _check_all(question, how)
    chosen, weight, drawn = paired_sets(n, n_subsets // 2, np.random.default_rng(seed))
    others = [tuple(j for j in range(n) if j not in one) for one in chosen]
    fallen = _fallen(question, [*chosen, *others, tuple(range(n))], how, options)
    drop, joint = fallen["drop"].values[:, :-1], fallen["drop"].values[:, -1]
    # A set and its complement tell the same sum of values: from below and from above.
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
    return _result(question, values, joint, fallen, began, attrs, error=error)


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
    """What each unit adds to the score, in a sparse linear fit to random sets removed together.

    A unit is kept with probability `keep`, each by itself; its score is its weight in a LASSO fit
    to `n_subsets` such sets, so most are exactly 0, the others somewhat too small. `alpha`: the
    penalty, in the metric's unit; by default the one that predicts best what is left out of the
    fit, in 5 parts. Coordinates: `alpha`; `fit`, the R squared of those predictions (1: all
    predicted; 0 or less: no better than the mean; NaN: the score never moves).

    ContextCite is this with `metric=sequence_log_odds()`, `units="sentence"` and an `alpha` of
    0.01 times the number of output tokens.

    Raises:
        ValueError: if the sets are too few to remove and to keep each unit, or the fit does not
            converge.
        HookError: as `attribute`.

    Source: ContextCite, Cohen-Wang et al. 2024, section 3, arXiv 2409.00729.
    """
    check_options("sparse_surrogate", options, DropOptions)
    began = time.perf_counter()
    how = removal_of(question.model, removal)
    wanted = question.attributed
    _check_number(n_subsets)
    _check_draws(len(wanted), n_subsets, keep)
    if n_subsets < 2 * N_FOLDS or (alpha is not None and not 0 < alpha < math.inf):
        raise ValueError(
            f"sparse_surrogate: n_subsets={n_subsets}, alpha={alpha}. Take {2 * N_FOLDS} sets or "
            f"more, and a positive alpha, or None."
        )
    possible = (
        one
        for one in _drawn(len(wanted), keep, np.random.default_rng(seed))
        if not one or can_remove(question, [wanted[j] for j in one], how)
    )
    sets = list(itertools.islice(possible, n_subsets))
    removed = _indicators(sets, len(wanted))
    same = np.flatnonzero(removed.min(0) == removed.max(0))
    if len(same):
        raise ValueError(
            f"sparse_surrogate: {question.units[wanted[same[0]]].text!r} is "
            f"{'removed' if removed[0, same[0]] else 'kept'} in all {n_subsets} sets, so nothing "
            f"tells its score. Take more sets, another keep than {keep}, or another removal."
        )
    all_of_them = can_remove(question, wanted, how)
    asked = [*sets, tuple(range(len(wanted)))] if all_of_them else sets
    fallen = _fallen(question, asked, how, options)
    drop = fallen["drop"].values
    joint = drop[:, -1] if all_of_them else np.full(len(drop), np.nan)
    values, fit, used = np.zeros((len(drop), len(wanted))), *np.full((2, len(drop)), np.nan)
    for i, past in enumerate(question.pasts):
        if past:
            values[i, past], fit[i], used[i] = fit_sparse(
                removed[:, past], drop[i, :n_subsets], alpha
            )
    attrs = {"method": "sparse surrogate", "n_subsets": n_subsets, "keep": keep, "seed": seed}
    return _result(question, values, joint, fallen, began, attrs, fit=fit, alpha=used)


def random_sets(
    n_units: int, n_sets: int, keep: float = 0.5, seed: int = 0
) -> tuple[tuple[int, ...], ...]:
    """Sets of units to remove: each unit is in a set with probability `1 - keep`, by itself.

    Sorted places 0 to `n_units - 1` in what is attributed. A set may come twice; none is empty or
    has all units, unless there is one unit alone: then every set is that unit.

    Raises:
        ValueError: if there is no unit or set to draw, or `keep` is not between 0.01 and 0.99.
    """
    _check_draws(n_units, n_sets, keep)
    if n_units == 1:
        return ((0,),) * n_sets
    some = (s for s in _drawn(n_units, keep, np.random.default_rng(seed)) if 0 < len(s) < n_units)
    return tuple(itertools.islice(some, n_sets))


# Sets


def _check_number(n_subsets: Any) -> None:
    if not isinstance(n_subsets, int | np.integer):
        raise ValueError(f"n_subsets={n_subsets!r} is no whole number of sets.")


def _check_draws(n_units: int, n_sets: int, keep: float) -> None:
    if n_units < 1 or n_sets < 1:
        raise ValueError(f"{n_sets} sets of {n_units} units: ask for some of both.")
    if not 0.01 <= keep <= 0.99:
        raise ValueError(f"keep={keep}: a probability from 0.01 to 0.99, such as 0.5.")


def _drawn(n_units: int, keep: float, rng: np.random.Generator) -> Iterator[Places]:
    while True:
        yield tuple(np.flatnonzero(rng.random(n_units) >= keep).tolist())


# Questions


def _check_all(question: Question, how: Removal) -> None:
    wanted = question.attributed
    if not can_remove(question, wanted, how):
        raise ValueError(
            f"the score without any of the {len(wanted)} attributed units is needed, but removal "
            f"{how.name!r} of all leaves nothing from which an output could be read. Keep a token, "
            f'inputs=[...], or take a removal that keeps positions, such as "knockout" or "mean".'
        )


def _indicators(sets: Sequence[Places], n: int) -> Float[np.ndarray, "set unit"]:
    removed = np.zeros((len(sets), n))
    for row, chosen in zip(removed, sets, strict=True):
        row[list(chosen)] = 1
    return removed


def _fallen(
    question: Question, sets: Sequence[Places], how: Removal, options: DropOptions
) -> xr.Dataset:
    wanted = question.attributed
    return drops(question, [[wanted[j] for j in chosen] for chosen in sets], how, **options)


def _result(
    question: Question,
    values: Float[np.ndarray, "output unit"],
    joint: Float[np.ndarray, " output"],
    fallen: xr.Dataset,
    began: float,
    attrs: dict[str, Any],
    **coords: Any,
) -> xr.DataArray:
    """The scores, with what they cost beside one full pass for each output and set."""
    cost = sweep_cost(question, fallen, fallen.sizes["set"], began)
    return scored(
        question,
        values + 0.0,  # no -0
        {**cost, **attrs},
        joint_effect=joint,
        residual=additivity_residual(values, joint),
        **coords,
    )
