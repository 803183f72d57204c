"""The BCa bootstrap of a function of means, for all cells of a result at once.

Every cell sees the same resampled prompts, so that a relation which holds between cells holds in
each resample too.

>>> import numpy as np
>>> from mechinterp.stats.bootstrap import bca_bounds, resample_counts, the_mean
>>> effect = np.array([[1.0, 2.0, 3.0, 2.0], [0.5, 0.5, 0.5, 0.5]])    # cell prompt
>>> low, high = bca_bounds(the_mean, (effect,), resample_counts(4, 9999, seed=0), level=0.95)
>>> low.tolist(), high.tolist()
([1.25, 0.5], [2.75, 0.5])

Source: Efron 1987, "Better Bootstrap Confidence Intervals", section 3.
"""

import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
from jaxtyping import Float
from scipy import stats

BLOCK = 1 << 22
"""How many numbers one step of a resampling holds: about 32 MiB."""

Statistic = Callable[..., np.ndarray]
"""From the means of one sample or more, arrays of one shape, to the statistic of each."""


def the_mean(mean: np.ndarray) -> np.ndarray:
    """The mean itself."""
    return mean


def ratio_of_means(
    numerator: np.ndarray | np.floating, denominator: np.ndarray | np.floating
) -> np.ndarray:
    """One mean over another; infinite or NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(numerator / denominator)


def resample_counts(n: int, n_resamples: int, seed: int) -> Float[np.ndarray, "resample prompt"]:
    """How often each of `n` prompts is drawn in each resample, with replacement."""
    drawn = np.random.default_rng(seed).integers(0, n, (n_resamples, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(float)


def bca_bounds(
    statistic: Statistic,
    samples: Sequence[Float[np.ndarray, "*cell prompt"]],
    counts: Float[np.ndarray, "resample prompt"],
    level: float,
) -> tuple[Float[np.ndarray, "*cell"], Float[np.ndarray, "*cell"]]:
    """The interval of a function of means in each cell; NaN where a prompt is not finite.

    Raises:
        ValueError: if `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, not between 0 and 1. The usual one is 0.95.")
    shape, n = samples[0].shape[:-1], counts.shape[1]
    rows = [sample.reshape(-1, n) for sample in samples]
    bounds = np.full((2, len(rows[0])), np.nan)
    (finite,) = np.nonzero(np.all([np.isfinite(row).all(-1) for row in rows], axis=0))
    size = max(1, BLOCK // len(counts))
    for begin in range(0, len(finite), size):
        chosen = finite[begin : begin + size]
        bounds[:, chosen] = _bootstrap(statistic, [row[chosen] for row in rows], counts, level)
    return bounds[0].reshape(shape), bounds[1].reshape(shape)


def _bootstrap(
    statistic: Statistic,
    rows: list[Float[np.ndarray, "cell prompt"]],
    counts: Float[np.ndarray, "resample prompt"],
    level: float,
) -> Float[np.ndarray, "2 cell"]:
    """scipy's BCa, on resamples that one product with `counts` makes for all cells at once."""
    n = counts.shape[1]

    def of_values(*values: np.ndarray, axis: int) -> np.ndarray:
        return statistic(*(value.mean(axis) for value in values))

    observed = of_values(*rows, axis=-1)[:, None]
    # [cell, prompt] @ [prompt, resample] / n: the mean of each resample
    resampled = statistic(*(row @ counts.T / n for row in rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a degenerate cell gives NaN, which is replaced below
        # BCa counts the resamples that tie with the observed value: rounding must not break a tie.
        rounding = 1e-12 * (abs(observed) + np.ptp(resampled, axis=-1, keepdims=True))
        resampled = np.where(abs(resampled - observed) <= rounding, observed, resampled)
        low, high = stats.bootstrap(
            rows,
            of_values,
            paired=True,
            axis=-1,
            n_resamples=0,
            batch=max(1, BLOCK // rows[0].size),
            confidence_level=level,
            bootstrap_result=SimpleNamespace(bootstrap_distribution=resampled),
        ).confidence_interval
        bounds = np.stack([low, high])
        degenerate = ~np.isfinite(bounds).all(0)
        if degenerate.any():
            tails = [(1 - level) / 2, (1 + level) / 2]
            # A resample whose ratio is 0 / 0 carries no information: leave it out.
            bounds[:, degenerate] = np.nanquantile(resampled[degenerate], tails, axis=-1)
    return bounds
