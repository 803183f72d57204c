"""The paired difference of two results over prompts: its interval and a sign-flip test.

>>> import xarray as xr
>>> from mechinterp.stats.paired_differences import difference
>>> a = xr.DataArray([3.0, 4.0, 6.0, 5.0], dims="prompt")
>>> found = difference(a, a - [1.0, 2.0, 1.0, 2.0])
>>> float(found["mean"]), float(found["p"]), found.attrs["p_from"]
(1.5, 0.125, 'all 16 sign flips')
"""

import numpy as np
import xarray as xr
from scipy import stats

from mechinterp.core.arguments import checks_arguments
from mechinterp.stats.bounds import mean_bounds
from mechinterp.stats.samples import (
    check_same_labels,
    check_same_unit,
    labelled_cells,
    sample_of,
    shared_attrs,
    shared_labels,
)

BLOCK = 1 << 22
"""How many numbers one step of the test holds: about 32 MiB."""


@checks_arguments
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

    Positive: a is larger. `p` tests that there is no difference: it is the share of random swaps of
    a and b, prompt by prompt, in which the mean is at least as far from zero. It is exact, over all
    2^n swaps, up to `n_resamples` (13 prompts at the default); `attrs["p_from"]` says which.

    Raises:
        ValueError: if a and b differ in a dimension, a label or the unit, or as `interval`.

    Source: `interval` for the interval; Fisher 1935, "The Design of Experiments", section 21,
    for p.
    """
    check_same_labels(a, b, a.dims)
    check_same_unit(a, b)
    paired = sample_of(a, dim) - sample_of(b.transpose(*a.dims), dim)
    n = paired.shape[-1]
    low, high = mean_bounds(paired, level)
    p = np.full(paired.shape[:-1], np.nan)
    finite = np.isfinite(paired).all(-1)
    if finite.any():
        p[finite] = stats.permutation_test(
            (paired[finite],),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=n_resamples,
            batch=max(1, BLOCK // paired[finite].size),
            axis=-1,
            rng=np.random.default_rng(seed),
        ).pvalue
    is_exact = 2**n <= n_resamples
    flips = f"all {2**n:,} sign flips" if is_exact else f"{n_resamples:,} random sign flips"
    attrs = shared_attrs(a, b) | {
        "level": level,
        "n_resamples": n_resamples,
        "seed": seed,
        "p_from": flips,
    }
    return labelled_cells(
        shared_labels(a, b), dim, attrs, mean=paired.mean(-1), low=low, high=high, p=p
    )
