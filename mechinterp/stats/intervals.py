"""Statistics over prompts: intervals, paired differences, ratios of means, corrected p values.

The prompts are the sample. Every cell of a result sees the same resampled prompts, so what holds
between cells holds in each resample too. It says nothing about prompts of another kind.

>>> import xarray as xr
>>> from mechinterp.stats.intervals import interval
>>> effect = xr.DataArray([[1.0, 2.0, 3.0, 2.0], [0.5, 0.5, 0.5, 0.5]], dims=("layer", "prompt"))
>>> found = interval(effect)
>>> found["mean"].values, found["low"].values, found["high"].values
(array([2. , 0.5]), array([1.25, 0.5 ]), array([2.75, 0.5 ]))
"""

import warnings
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

_BLOCK = 1 << 22
"""Numbers that one step of a resampling holds: about 32 MiB."""


def interval(
    result: xr.DataArray,
    *,
    dim: str = "prompt",
    level: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """`mean` over prompts with `low` and `high` of its interval, in the result's unit; `n` prompts.

    The BCa bootstrap; a cell whose prompts are all equal has low = high = mean. A cell with a
    prompt that is not finite has no interval: low and high are NaN. With few prompts (below about
    20) such an interval is too narrow.

    Raises:
        ValueError: if there are fewer than two prompts, or `level` is not between 0 and 1.

    Source: Efron 1987, "Better Bootstrap Confidence Intervals", section 3.
    """
    sample = _sample(result, dim)
    times = _drawn(sample.shape[-1], n_resamples, seed)
    low, high = _bounds(_mean, (sample,), times, level)
    attrs = result.attrs | _how(level, n_resamples, seed)
    return _dataset(result, dim, attrs, mean=sample.mean(-1), low=low, high=high)


def difference(
    a: xr.DataArray,
    b: xr.DataArray,
    *,
    dim: str = "prompt",
    level: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """`mean` of a - b over prompts with `low`, `high` and a two-sided `p`; `n` prompts.

    Positive means that a is larger. `p` is that of no difference: it counts how often the mean is
    as far from zero if a and b change places at random, prompt by prompt. It is exact, over all
    2^n ways, where `n_resamples` allows (13 prompts at the default); `attrs["p_from"]` says which.

    Raises:
        ValueError: if a and b differ in a dimension, a label or the unit, or as `interval`.

    >>> a = xr.DataArray([3.0, 4.0, 6.0, 5.0], dims="prompt")
    >>> found = difference(a, a - [1.0, 2.0, 1.0, 2.0])
    >>> float(found["mean"]), float(found["p"]), found.attrs["p_from"]
    (1.5, 0.125, 'all 16 sign flips')

    Source: Efron 1987 for the interval; Fisher 1935, "The Design of Experiments", section 21,
    for p.
    """
    _check_same_labels(a, b, a.dims)
    _check_same_unit(a, b)
    paired = _sample(a, dim) - _sample(b.transpose(*a.dims), dim)
    n = paired.shape[-1]
    low, high = _bounds(_mean, (paired,), _drawn(n, n_resamples, seed), level)
    p = np.full(paired.shape[:-1], np.nan)
    finite = np.isfinite(paired).all(-1)
    if finite.any():
        p[finite] = stats.permutation_test(
            (paired[finite],),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=n_resamples,
            batch=max(1, _BLOCK // paired[finite].size),
            axis=-1,
            rng=np.random.default_rng(seed),
        ).pvalue
    is_exact = 2**n <= n_resamples
    flips = f"all {2**n:,} sign flips" if is_exact else f"{n_resamples:,} random sign flips"
    attrs = _shared_attrs(a, b) | _how(level, n_resamples, seed) | {"p_from": flips}
    return _dataset(_shared(a, b), dim, attrs, mean=paired.mean(-1), low=low, high=high, p=p)


def ratio_interval(
    numerator: xr.DataArray,
    denominator: xr.DataArray,
    *,
    dim: str = "prompt",
    level: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """`ratio` of the mean over prompts of one to that of the other, `low` and `high`; `n` prompts.

    A ratio of means and not a mean of ratios: one prompt with a denominator near zero cannot rule
    it. The denominator has the dims of the numerator, or `dim` alone and then serves every cell.
    Where its own interval reaches zero nothing bounds the ratio: low is -inf and high inf.

    Raises:
        ValueError: if the two differ in a dimension, a label or the unit, or as `interval`.

    >>> patched = xr.DataArray([[1.0, 2.0, 3.0]], dims=("layer", "prompt"))
    >>> total = xr.DataArray([2.0, 4.0, 6.0], dims="prompt")
    >>> found = ratio_interval(patched, total)
    >>> float(found["ratio"][0]), float(found["low"][0]), float(found["high"][0])
    (0.5, 0.5, 0.5)

    Source: Efron 1987 for the interval; faithfulness as such a ratio: Marks et al. 2024, "Sparse
    Feature Circuits", section 4, arXiv 2403.19647.
    """
    is_shared = denominator.dims == (dim,)
    _check_same_labels(numerator, denominator, (dim,) if is_shared else numerator.dims)
    _check_same_unit(numerator, denominator)
    over = _sample(numerator, dim)
    under = _sample(denominator if is_shared else denominator.transpose(*numerator.dims), dim)
    under = np.broadcast_to(under, over.shape)
    times = _drawn(over.shape[-1], n_resamples, seed)
    low, high = _bounds(_ratio, (over, under), times, level)
    beneath, above = _bounds(_mean, (under,), times, level)
    unbounded = (beneath <= 0) & (above >= 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = over.mean(-1) / under.mean(-1)
    attrs = _shared_attrs(numerator, denominator) | _how(level, n_resamples, seed)
    attrs.pop("unit", None)
    return _dataset(
        _shared(numerator, denominator),
        dim,
        attrs,
        ratio=ratio,
        low=np.where(unbounded, -np.inf, low),
        high=np.where(unbounded, np.inf, high),
    )


def corrected(p: xr.DataArray, method: str = "holm") -> xr.DataArray:
    """The p values corrected for all cells that have one: `"holm"` or `"bh"`.

    Holm bounds the chance of one false finding among all cells; Benjamini-Hochberg ("bh") the
    share of false ones among the findings. A cell below 0.05 is then a finding at that bound.

    Raises:
        ValueError: if a p value is outside 0 to 1, or the method is another.

    >>> corrected(xr.DataArray([0.01, 0.04, 0.03], dims="head")).values
    array([0.03, 0.06, 0.06])

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure"; Benjamini and
    Hochberg 1995, "Controlling the False Discovery Rate".
    """
    if method not in _METHODS:
        raise ValueError(f"method {method!r} is none of {sorted(_METHODS)}.")
    values = p.values.astype(float)
    known = ~np.isnan(values)
    if not ((values[known] >= 0) & (values[known] <= 1)).all():
        raise ValueError("p has values outside 0 to 1: pass the p of a difference.")
    values[known] = _METHODS[method](values[known])
    return p.copy(data=values).assign_attrs(corrected=f"{method}, {known.sum()} cells")


def _holm(p: Float[np.ndarray, " cell"]) -> Float[np.ndarray, " cell"]:
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


_METHODS = {"holm": _holm, "bh": stats.false_discovery_control}


def _sample(result: xr.DataArray, dim: str) -> Float[np.ndarray, "*cell prompt"]:
    if dim not in result.dims:
        raise ValueError(f"the result has dims {result.dims}, and no {dim!r} to take means over.")
    if result.sizes[dim] < 2:
        raise ValueError(
            f"{dim!r} has {result.sizes[dim]} value(s): nothing varies, so there is no interval. "
            "Run at least two prompts."
        )
    return np.asarray(result.transpose(..., dim).values, dtype=float)


def _drawn(n: int, n_resamples: int, seed: int) -> Float[np.ndarray, "resample prompt"]:
    """How often each prompt is in each resample."""
    drawn = np.random.default_rng(seed).integers(0, n, (n_resamples, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(float)


def _mean(mean: Any) -> Any:
    return mean


def _ratio(over: Any, under: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return over / under


def _bounds(
    of_means: Callable[..., Any],
    samples: tuple[np.ndarray, ...],
    times: np.ndarray,
    level: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of a function of means, for each cell whose prompts are all finite."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, not between 0 and 1. The usual one is 0.95.")
    shape, n = samples[0].shape[:-1], times.shape[1]
    rows = [sample.reshape(-1, n) for sample in samples]
    bounds = np.full((2, len(rows[0])), np.nan)
    (finite,) = np.nonzero(np.all([np.isfinite(row).all(-1) for row in rows], axis=0))
    size = max(1, _BLOCK // len(times))
    for begin in range(0, len(finite), size):
        chosen = finite[begin : begin + size]
        bounds[:, chosen] = _bootstrap(of_means, [row[chosen] for row in rows], times, level)
    return bounds[0].reshape(shape), bounds[1].reshape(shape)


def _bootstrap(
    of_means: Callable[..., Any], rows: list[np.ndarray], times: np.ndarray, level: float
) -> np.ndarray:
    """BCa by scipy, on resamples that one product with `times` makes for all cells at once."""
    n = times.shape[1]

    def statistic(*values: np.ndarray, axis: int) -> Any:
        return of_means(*(value.mean(axis) for value in values))

    observed = statistic(*rows, axis=-1)[:, None]
    resampled = of_means(*(row @ times.T / n for row in rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a degenerate cell gives NaN, and is filled in below
        # BCa counts the resamples that tie with what was observed: rounding must not break a tie
        rounding = 1e-12 * (abs(observed) + np.ptp(resampled, axis=-1, keepdims=True))
        resampled = np.where(abs(resampled - observed) <= rounding, observed, resampled)
        low, high = stats.bootstrap(
            rows,
            statistic,
            paired=True,
            axis=-1,
            n_resamples=0,
            batch=max(1, _BLOCK // rows[0].size),
            confidence_level=level,
            bootstrap_result=SimpleNamespace(bootstrap_distribution=resampled),
        ).confidence_interval
        bounds = np.stack([low, high])
        degenerate = ~np.isfinite(bounds).all(0)
        if degenerate.any():
            tails = [(1 - level) / 2, (1 + level) / 2]
            # 0 / 0 of a resample says nothing of a ratio
            bounds[:, degenerate] = np.nanquantile(resampled[degenerate], tails, axis=-1)
    return bounds


def _dataset(like: xr.DataArray, dim: str, attrs: dict[str, Any], **values: Any) -> xr.Dataset:
    """The values of all cells, labelled as the result is, without what belongs to one prompt."""
    bare = like.drop_vars([name for name, found in like.coords.items() if dim in found.dims])
    cells = bare.transpose(..., dim).isel({dim: 0})
    named = {
        name: (cells.dims, value, {} if name == "p" else attrs) for name, value in values.items()
    }
    return xr.Dataset(named | {"n": like.sizes[dim]}, cells.coords, attrs)


def _how(level: float, n_resamples: int, seed: int) -> dict[str, Any]:
    return {"level": level, "n_resamples": n_resamples, "seed": seed}


def _check_same_labels(a: xr.DataArray, b: xr.DataArray, dims: Iterable[Any]) -> None:
    dims = tuple(dims)
    if set(dims) != set(b.dims):
        raise ValueError(
            f"dims differ: {a.dims} and {b.dims}. Select or average until they are the same."
        )
    for dim in dims:
        if a.sizes[dim] != b.sizes[dim] or not _same_coordinate(a, b, dim):
            raise ValueError(
                f"labels along {dim!r} differ: {_labels(a, dim)} and {_labels(b, dim)}. "
                f"Select the same ones of both: a.sel({dim}=...)."
            )


def _check_same_unit(a: xr.DataArray, b: xr.DataArray) -> None:
    units = [x.attrs["unit"] for x in (a, b) if "unit" in x.attrs]
    if len(set(units)) > 1:
        raise ValueError(f"units differ: {units[0]} and {units[1]}. Compare one metric at a time.")


def _same_coordinate(a: xr.DataArray, b: xr.DataArray, name: Any) -> bool:
    if name not in a.coords or name not in b.coords:
        return (name in a.coords) == (name in b.coords)
    return bool(a.coords[name].variable.equals(b.coords[name].variable))


def _labels(x: xr.DataArray, dim: Any) -> str:
    return str(x.coords[dim].values.tolist()) if dim in x.coords else f"{x.sizes[dim]} without any"


def _shared(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    """`a` without the coordinates on which `b` says something else."""
    other = [n for n in a.coords if n in b.coords and not _same_coordinate(a, b, n)]
    return a.drop_vars(other)


def _shared_attrs(a: xr.DataArray, b: xr.DataArray) -> dict[str, Any]:
    return {k: v for k, v in a.attrs.items() if k in b.attrs and bool(np.all(b.attrs[k] == v))}
