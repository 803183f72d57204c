"""Results as samples over prompts: what is checked before statistics, and their labels after.

>>> import xarray as xr
>>> from mechinterp.stats.samples import sample_of
>>> effect = xr.DataArray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dims=("prompt", "layer"))
>>> sample_of(effect, "prompt").tolist()
[[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]
"""

from collections.abc import Hashable, Iterable, Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

Attrs = dict[Hashable, object]


def sample_of(result: xr.DataArray, dim: str) -> Float[np.ndarray, "*cell prompt"]:
    """The values with the sampled dim last.

    Raises:
        ValueError: if the result has no such dim, or fewer than two values along it.
    """
    if dim not in result.dims:
        raise ValueError(f"the result has dims {result.dims}, and no {dim!r} to take means over.")
    if result.sizes[dim] < 2:
        raise ValueError(
            f"{dim!r} has {result.sizes[dim]} value(s): nothing varies, so there is no interval. "
            "Run at least two prompts."
        )
    return np.asarray(result.transpose(..., dim).values, dtype=float)


def labelled_cells(
    like: xr.DataArray,
    dim: str,
    attrs: Mapping[Hashable, object],
    **values: np.ndarray | np.floating,
) -> xr.Dataset:
    """One value per cell, with the result's labels except those of single prompts; and `n`."""
    bare = like.drop_vars([name for name, found in like.coords.items() if dim in found.dims])
    cells = bare.transpose(..., dim).isel({dim: 0})
    named = {
        name: (cells.dims, value, {} if name == "p" else attrs) for name, value in values.items()
    }
    return xr.Dataset(named | {"n": like.sizes[dim]}, cells.coords, attrs)


def check_same_labels(a: xr.DataArray, b: xr.DataArray, dims: Iterable[Hashable]) -> None:
    """Check that two results have the same dims, with the same labels along these.

    Raises:
        ValueError: if a dim or a label differs.
    """
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


def check_same_unit(a: xr.DataArray, b: xr.DataArray) -> None:
    """Check that two results do not state different units.

    Raises:
        ValueError: if they do.
    """
    units = [x.attrs["unit"] for x in (a, b) if "unit" in x.attrs]
    if len(set(units)) > 1:
        raise ValueError(f"units differ: {units[0]} and {units[1]}. Compare one metric at a time.")


def shared_labels(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
    """`a` without the coordinates in which `b` differs."""
    other = [n for n in a.coords if n in b.coords and not _same_coordinate(a, b, n)]
    return a.drop_vars(other)


def shared_attrs(a: xr.DataArray, b: xr.DataArray) -> Attrs:
    """The attributes that both have with the same value."""
    return {k: v for k, v in a.attrs.items() if k in b.attrs and bool(np.all(b.attrs[k] == v))}


def _same_coordinate(a: xr.DataArray, b: xr.DataArray, name: Hashable) -> bool:
    if name not in a.coords or name not in b.coords:
        return (name in a.coords) == (name in b.coords)
    return bool(a.coords[name].variable.equals(b.coords[name].variable))


def _labels(x: xr.DataArray, dim: Hashable) -> str:
    return str(x.coords[dim].values.tolist()) if dim in x.coords else f"{x.sizes[dim]} without any"
