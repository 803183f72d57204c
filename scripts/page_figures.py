"""What a figure on a page is made of: a number with its interval, a bound, and where it comes from.

cells(found["direct"], "L23H3.z@end")
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

Phrases = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Bound:
    """A number of which the page says that it is no more, in size."""

    value: float


@dataclass(frozen=True)
class Source:
    """Where an experiment's figures stand, and what they are.

    `section`: how its heading begins on the page; None: the experiment's own docstring. `quick`:
    options of `main` for a run that is small. `refuted`: the claims that do not hold.
    """

    section: str | None
    figures: Callable[[Mapping[str, Any]], Phrases]
    quick: Mapping[str, Any]
    refuted: tuple[str, ...] = ()


def most(values: xr.DataArray) -> Bound:
    """The largest of some numbers, in size."""
    return Bound(float(abs(values).max()))


def minus(numbers: xr.Dataset) -> xr.Dataset:
    """The same with the other sign."""
    return xr.Dataset({"mean": -numbers["mean"], "low": -numbers["high"], "high": -numbers["low"]})


def cells(numbers: xr.Dataset, *labels: object) -> list[xr.Dataset]:
    """The numbers of some labels of the only dimension."""
    (dim,) = numbers["mean"].dims
    return [numbers.sel({dim: label}) for label in labels]


def without(numbers: xr.Dataset, *labels: object) -> xr.DataArray:
    """The means of all other labels."""
    (dim,) = numbers["mean"].dims
    return numbers["mean"].drop_sel({dim: list(labels)})


def at_end(*heads: str) -> list[str]:
    """How results name heads whose output at the end is meant."""
    return [f"{head}.z@end" for head in heads]
