"""Intervals of shares, such as an accuracy, over prompts or over groups of prompts.

A share near 0 or 1 varies little or not at all in a small sample, so an interval from the spread of
its values is too short, or has no width. This one is Clopper and Pearson's, of as many independent
prompts as would make the share vary as much as it does from group to group.

>>> import xarray as xr
>>> from mechinterp.stats.shares import share_interval
>>> right = xr.DataArray([[1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 0]], dims=("layer", "prompt"))
>>> found = share_interval(right)
>>> found["share"].values, found["low"].values.round(2), found["high"].values.round(2)
(array([1. , 0.5]), array([0.54, 0.09]), array([1.  , 0.91]))
"""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import special, stats

from mechinterp.core.arguments import checks_arguments
from mechinterp.stats.samples import check_same_labels, labelled_cells, sample_of


@checks_arguments
def share_interval(
    hits: xr.DataArray,
    tries: xr.DataArray | None = None,
    *,
    dim: str = "prompt",
    level: float = 0.95,
) -> xr.Dataset:
    """`share` of hits, from 0 to 1, with `low` and `high` of its interval; `n` prompts or groups.

    `hits`: 1 or 0 of each prompt; or the number of hits in each group of prompts that are not
    independent, along `dim`, with `tries`, the number of prompts in each group.

    Raises:
        ValueError: if there are more hits than tries, fewer than two prompts or groups, or `level`
            is not between 0 and 1.

    Source: Korn and Graubard 1998, "Confidence Intervals for Proportions with Small Expected Number
    of Positive Counts", section 2; Clopper and Pearson 1934.
    """
    right = sample_of(hits, dim)
    if tries is None:
        of = np.ones(right.shape[-1])
    else:
        check_same_labels(hits, tries, (dim,) if tries.dims == (dim,) else hits.dims)
        of = sample_of(tries if tries.dims == (dim,) else tries.transpose(*hits.dims), dim)
    of = np.broadcast_to(of, right.shape)
    if ((right < 0) | (right > of)).any():
        raise ValueError(
            "hits are counts of prompts: give 0 or 1 of each, or `tries`, their number."
        )
    share = np.asarray(right.sum(-1) / of.sum(-1))
    influence = (right - share[..., None] * of) / of.sum(-1, keepdims=True)
    low, high = share_bounds(share, influence, np.asarray(of.sum(-1)), level=level)
    attrs = {**hits.attrs, "unit": "share", "level": level}
    return labelled_cells(hits, dim, attrs, share=share, low=low, high=high)


def share_bounds(
    share: Float[np.ndarray, "*cell"],
    influence: Float[np.ndarray, "*cell group"],
    n_prompts: Float[np.ndarray, "*cell"] | int,
    *,
    n_groups: int | None = None,
    level: float = 0.95,
) -> tuple[Float[np.ndarray, "*cell"], Float[np.ndarray, "*cell"]]:
    """The interval of a share, or of a measure from 0 to 1 that is made of shares, such as AUROC.

    `influence`: by how much the share would be higher, to first order, if a group counted more; it
    sums to 0 over groups. `n_groups`: how many of the groups are as good as independent, if not
    all. NaN where the share is.

    Raises:
        ValueError: if `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, not between 0 and 1. The usual one is 0.95.")
    tail = (1 - level) / 2
    n = influence.shape[-1]
    n_groups = n if n_groups is None else n_groups
    share = np.clip(share, 0.0, 1.0)
    variance = (influence**2).sum(-1) * n / (n - 1)
    # t of as many groups is wider than that of as many prompts: so much less is known
    wider = stats.t.ppf(tail, np.maximum(n_groups - 1, 1)) / stats.t.ppf(
        tail, np.subtract(n_prompts, 1)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.minimum(share * (1 - share) / variance / wider**2, n_prompts)
    is_edge = (share < 1e-12) | (share > 1 - 1e-12)  # nothing varies: as many as there are groups
    effective = np.where(is_edge, n_groups, effective)
    hits = share * effective
    low = special.betaincinv(np.maximum(hits, 1e-12), effective - hits + 1, tail)
    high = special.betaincinv(hits + 1, np.maximum(effective - hits, 1e-12), 1 - tail)
    return np.where(share < 1e-12, 0.0, low), np.where(share > 1 - 1e-12, 1.0, high)
