"""Intervals of means and of ratios of means over prompts.

The prompts are the sample: an interval says nothing about prompts of another kind.

>>> import xarray as xr
>>> from mechinterp.stats.intervals import interval
>>> effect = xr.DataArray([[1.0, 2.0, 3.0, 2.0], [0.5, 0.5, 0.5, 0.5]], dims=("layer", "prompt"))
>>> found = interval(effect)
>>> found["mean"].values, found["low"].values.round(2), found["high"].values.round(2)
(array([2. , 0.5]), array([0.7, 0.5]), array([3.3, 0.5]))
"""

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.stats.bounds import mean_bounds, ratio_bounds, ratio_of_means
from mechinterp.stats.samples import (
    check_same_labels,
    check_same_unit,
    labelled_cells,
    sample_of,
    shared_attrs,
    shared_labels,
)

WHAT_INTERVALS_HOLD = (
    "Intervals of 95% hold the mean of all such prompts in about 95 of 100 samples; in about 89 "
    "where prompts are few and a few of them differ strongly from the rest."
)
"""What pages say of intervals of means: measured by scripts/bench/intervals.py."""


@checks_arguments
def interval(result: xr.DataArray, *, dim: str = "prompt", level: float = 0.95) -> xr.Dataset:
    """`mean` over prompts with `low` and `high` of its interval, in the result's unit; `n` prompts.

    Student's interval, drawn out on the side of the long tail by Hall's transformation. Where all
    prompts of a cell are equal, low = high = mean. Where one is not finite, low and high are NaN.
    How often it holds the true mean is in docs/benchmarks.md. For shares of prompts, values of 0
    and 1 alone, use `share_interval`.

    Raises:
        ValueError: if there are fewer than two prompts, or `level` is not between 0 and 1.

    Source: Hall 1992, "On the Removal of Skewness by Transformation", section 2.
    """
    sample = sample_of(result, dim)
    low, high = mean_bounds(sample, level)
    attrs = result.attrs | {"level": level}
    return labelled_cells(result, dim, attrs, mean=sample.mean(-1), low=low, high=high)


@checks_arguments
def ratio_interval(
    numerator: xr.DataArray,
    denominator: xr.DataArray,
    *,
    dim: str = "prompt",
    level: float = 0.95,
) -> xr.Dataset:
    """`ratio` of two means over prompts, with `low` and `high` of its interval; `n` prompts.

    This is a ratio of means, not a mean of ratios, so that one prompt with a denominator near zero
    does not dominate it. The denominator has the dims of the numerator, or only `dim`; then all
    cells share it. Where the denominator's own interval contains zero, the ratio is unbounded: low
    is -inf and high is inf.

    Raises:
        ValueError: if the two differ in a dimension, a label or the unit, or as `interval`.

    >>> patched = xr.DataArray([[1.5, 2.0, 2.5]], dims=("layer", "prompt"))
    >>> total = xr.DataArray([3.0, 4.0, 5.0], dims="prompt")
    >>> found = ratio_interval(patched, total)
    >>> float(found["ratio"][0]), float(found["low"][0]), float(found["high"][0])
    (0.5, 0.5, 0.5)

    Source: Fieller 1954, "Some Problems in Interval Estimation", with the interval of a mean as in
    `interval`; faithfulness as such a ratio: Marks et al. 2024, "Sparse Feature Circuits", section
    4, arXiv 2403.19647.
    """
    is_shared = denominator.dims == (dim,)
    check_same_labels(numerator, denominator, (dim,) if is_shared else numerator.dims)
    check_same_unit(numerator, denominator)
    over = sample_of(numerator, dim)
    under = sample_of(denominator if is_shared else denominator.transpose(*numerator.dims), dim)
    under = np.broadcast_to(under, over.shape)
    low, high = ratio_bounds(over, under, level)
    ratio = ratio_of_means(over.mean(-1), under.mean(-1))
    attrs = shared_attrs(numerator, denominator) | {"level": level}
    attrs.pop("unit", None)
    return labelled_cells(
        shared_labels(numerator, denominator),
        dim,
        attrs,
        ratio=ratio,
        low=low,
        high=high,
    )
