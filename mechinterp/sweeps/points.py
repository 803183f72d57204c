"""The points of a sweep: their labels, those that a mask selects, and values laid out over them.

>>> from mechinterp.sweeps.points import coordinate, list_values
>>> list_values("layer", range(2))
[0, 1]
>>> coordinate(["end", 3]).dtype
dtype('O')
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechinterp.core.metrics import Metric

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

Label = int | float | str
"""A label as JSON has it."""


class ResultLayout(TypedDict):
    """How the values `[metric, arm, prompt]` of a sweep's arms become a labelled array.

    `wanted`: the number of the point of each arm. `same_as`: the arm whose values each arm takes.
    """

    dims: list[str]
    shape: list[int]
    coords: Mapping[str, Sequence[object]]
    wanted: list[int]
    same_as: list[int]
    attrs: dict[str, object]


def label_values(
    values: Float[np.ndarray, "metric arm prompt"], layout: ResultLayout
) -> xr.DataArray:
    """The values of the arms at their points, with labels; NaN at points that were not selected."""
    shape = layout["shape"]
    n_points = int(np.prod(shape[1:-1]))
    whole = np.full((shape[0], n_points, shape[-1]), np.nan)  # [metric, point, prompt]
    whole[:, layout["wanted"]] = values[:, layout["same_as"]]
    coords = {name: (name, coordinate(labels)) for name, labels in layout["coords"].items()}
    return xr.DataArray(
        whole.reshape(shape), dims=layout["dims"], coords=coords, attrs=layout["attrs"]
    )


def coordinate(values: Sequence[object]) -> np.ndarray:
    """The values as a coordinate: plain where they are all numbers or all text, else objects."""
    kinds = (int | float | np.number, str)
    if any(all(isinstance(v, kind) for v in values) for kind in kinds):
        return np.asarray(values)
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array


def json_labels(coords: Mapping[str, Sequence[object]]) -> dict[str, list[Label]]:
    """Labels as JSON has them: numbers and text, and the text of everything else."""
    return {name: [_json_label(label) for label in labels] for name, labels in coords.items()}


def _json_label(label: object) -> Label:
    if isinstance(label, int | float | str):
        return label
    plain = label.item() if isinstance(label, np.generic) else None
    return plain if isinstance(plain, int | float | str) else _ADDRESS.sub("", str(label))


def list_values(name: str, values: object) -> list[object]:
    """The values of one dimension as a list.

    Raises:
        ValueError: if they are not several values.
    """
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ValueError(f"over: {name!r} is {values!r}, not a list of values. Give [{values!r}].")
    return list(values)


def check_dims(dims: Mapping[str, Sequence[object]], metrics: Sequence[Metric]) -> None:
    """Check that the dimensions of a sweep have values and free names, and that metrics are given.

    Raises:
        ValueError: if not.
    """
    for name, values in dims.items():
        if not isinstance(name, str):
            raise ValueError(f"over: {name!r} is no name of a dimension. Give a text.")
        if name in ("prompt", "metric"):
            raise ValueError(f"over: {name!r} is a dimension of the result already. Rename it.")
        if not values:
            raise ValueError(f"over: {name!r} has no values, so there is nothing to sweep.")
    check_metrics(metrics)


def check_metrics(metrics: Sequence[Metric]) -> None:
    """Check that metrics are given, as a list.

    Raises:
        ValueError: if not.
    """
    if isinstance(metrics, Metric):
        raise ValueError(f"metrics: {metrics.name} is one metric. Give a list: [{metrics.name}].")
    if not isinstance(metrics, Sequence) or isinstance(metrics, str):
        raise ValueError(f"metrics is {metrics!r}: give a list of metrics.")
    if not metrics:
        raise ValueError("no metrics were given. Give at least one.")
    for metric in metrics:
        if isinstance(metric, list | tuple):
            raise ValueError(
                "metric: a list was given. Give one metric; sweep_each measures several."
            )
        if not isinstance(metric, Metric):
            raise ValueError(f"{metric!r} is no metric. Functions such as log_prob(id) make them.")


def select_points(only: xr.DataArray, coords: Mapping[str, Sequence[object]]) -> list[int]:
    """The numbers of the points that a mask selects.

    Raises:
        ValueError: if it is not a mask over these points, or selects none.
    """
    shape = tuple(map(len, coords.values()))
    if not isinstance(only, xr.DataArray):
        raise ValueError(f"only: a mask as top_k(screen, k) makes is needed, not {only!r}.")
    if only.dims != tuple(coords) or only.shape != shape or only.dtype != bool:
        raise ValueError(
            f"only: a mask (bool) over {' '.join(coords)} {list(shape)} is needed, not "
            f"{only.dtype} over {' '.join(map(str, only.dims))} {list(only.shape)}. "
            f"top_k(screen, k) makes one."
        )
    for name, labels in coords.items():
        if name in only.coords and list(only[name].values) != list(coordinate(labels)):
            raise ValueError(
                f"only: the mask's {name} differ from those of the sweep, {labels}. Make it from "
                f"a screen over the same values."
            )
    if not bool(only.any()):
        raise ValueError("only: the mask selects no point, so there is nothing to sweep.")
    return [int(number) for number in np.flatnonzero(only.values)]
