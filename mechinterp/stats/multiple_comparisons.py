"""p values of many cells, corrected for the number of comparisons.

>>> import xarray as xr
>>> from mechinterp.stats.multiple_comparisons import correct_p_values
>>> correct_p_values(xr.DataArray([0.01, 0.04, 0.03], dims="head")).values
array([0.03, 0.06, 0.06])
"""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from mechinterp.core.arguments import checks_arguments


@checks_arguments
def correct_p_values(p: xr.DataArray, method: str = "holm") -> xr.DataArray:
    """The p values, corrected for the number of cells that have one: `"holm"` or `"bh"`.

    Holm controls the chance of any false finding among all cells; Benjamini-Hochberg ("bh")
    controls the share of false findings among the findings. NaN stays NaN and is not counted.

    Raises:
        ValueError: if a p value is outside 0 to 1, or the method is neither.

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
