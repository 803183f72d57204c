"""Intervals of means and of ratios of means over prompts.

The prompts are the sample: an interval says nothing about prompts of another kind.

>>> import xarray as xr
>>> from mechinterp.stats.intervals import interval
>>> effect = xr.DataArray([[1.0, 2.0, 3.0, 2.0], [0.5, 0.5, 0.5, 0.5]], dims=("layer", "prompt"))
>>> found = interval(effect)
>>> found["mean"].values, found["low"].values, found["high"].values
(array([2. , 0.5]), array([1.25, 0.5 ]), array([2.75, 0.5 ]))
"""

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.stats.bootstrap import bca_bounds, ratio_of_means, resample_counts, the_mean
from mechinterp.stats.samples import (
    bootstrap_attrs,
    check_same_labels,
    check_same_unit,
    labelled_cells,
    sample_of,
    shared_attrs,
    shared_labels,
)


@checks_arguments
def interval(
    result: xr.DataArray,
    *,
    dim: str = "prompt",
    level: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """`mean` over prompts with `low` and `high` of its interval, in the result's unit; `n` prompts.

    The BCa bootstrap. Where all prompts of a cell are equal, low = high = mean. Where one is not
    finite, low and high are NaN. With fewer than about 20 prompts the interval is too narrow.

    Raises:
        ValueError: if there are fewer than two prompts, or `level` is not between 0 and 1.

    Source: Efron 1987, "Better Bootstrap Confidence Intervals", section 3.
    """
    sample = sample_of(result, dim)
    counts = resample_counts(sample.shape[-1], n_resamples, seed)
    low, high = bca_bounds(the_mean, (sample,), counts, level)
    attrs = result.attrs | bootstrap_attrs(level, n_resamples, seed)
    return labelled_cells(result, dim, attrs, mean=sample.mean(-1), low=low, high=high)


@checks_arguments
def ratio_interval(
    numerator: xr.DataArray,
    denominator: xr.DataArray,
    *,
    dim: str = "prompt",
    level: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """`ratio` of two means over prompts, with `low` and `high` of its interval; `n` prompts.

    This is a ratio of means, not a mean of ratios, so that one prompt with a denominator near zero
    does not dominate it. The denominator has the dims of the numerator, or only `dim`; then all
    cells share it. Where the denominator's own interval contains zero, the ratio is unbounded: low
    is -inf and high is inf.

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
    check_same_labels(numerator, denominator, (dim,) if is_shared else numerator.dims)
    check_same_unit(numerator, denominator)
    over = sample_of(numerator, dim)
    under = sample_of(denominator if is_shared else denominator.transpose(*numerator.dims), dim)
    under = np.broadcast_to(under, over.shape)
    counts = resample_counts(over.shape[-1], n_resamples, seed)
    low, high = bca_bounds(ratio_of_means, (over, under), counts, level)
    beneath, above = bca_bounds(the_mean, (under,), counts, level)
    unbounded = (beneath <= 0) & (above >= 0)
    ratio = ratio_of_means(over.mean(-1), under.mean(-1))
    attrs = shared_attrs(numerator, denominator) | bootstrap_attrs(level, n_resamples, seed)
    attrs.pop("unit", None)
    return labelled_cells(
        shared_labels(numerator, denominator),
        dim,
        attrs,
        ratio=ratio,
        low=np.where(unbounded, -np.inf, low),
        high=np.where(unbounded, np.inf, high),
    )
