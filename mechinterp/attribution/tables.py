"""Results as tables and as text: `to_dataframe` for pandas, `to_json` and `from_json` for anything.

The table is tidy, a row for each output and attributed input:

>>> from mechinterp import attribute, load_model
>>> from mechinterp.attribution.tables import from_json, to_dataframe, to_json
>>> scores = attribute(load_model("toy:trigger"), "please bring the sesame", outputs=1)
>>> table = to_dataframe(scores)
>>> table[["output_token", "input_token", "score"]].round().values.tolist()[-1]
['REFUSE', 'sesame', 8.0]

The JSON is strict (no NaN) and loses nothing: dims, labels, types and attributes come back.

>>> from_json(to_json(scores)).identical(scores)
True
"""

import json
import math
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.storage.whole_files import check_memory

_DTYPE = re.compile(r"[<>|=]?[biufcSUO]\d*|[<>|=]?[mM]8(\[\d*[a-zA-Z]+\])?")

FORMAT, VERSION = "mechinterp result", 1

_BRIEF = {"input_role": "role", "input_first": "first", "input_last": "last"}
_FIRST = ("output_token", "input_token", "input_name")

# Tables


@checks_arguments
def to_dataframe(result: xr.DataArray | xr.Dataset) -> pd.DataFrame:
    """One row for each cell that has a value: for each output and attributed input.

    Columns: the labels of the dims, the coordinates along one of them (`input_role`, `input_first`
    and `input_last` are called `role`, `first` and `last`), the value or values, and coordinates of
    each cell, such as `error` and `flip`. The rows of a `Dataset` are the cells of `score`, or else
    of its first variable. Variables with other dims are left out; make a table of each:
    `to_dataframe(found["interaction"])`.

    Raises:
        ValueError: if a dataset has no variables, or two columns would have one name.
    """
    values, main = _values(result)
    keep = np.zeros(main.shape, dtype=bool)
    for value in values.values():
        if value.dims == main.dims:
            keep |= np.asarray(value.notnull().values)
    labels = {dim: main[dim] for dim in main.dims}
    coords = {name: c for name, c in main.coords.items() if name not in {*labels, *values}}
    for_axis = {name: c for name, c in coords.items() if c.ndim <= 1}
    for_cell = {name: c for name, c in coords.items() if c.ndim > 1}
    first = {name: for_axis.pop(name) for name in _FIRST if name in for_axis}
    columns: dict[str, np.ndarray] = {}
    for name, part in [
        *((_BRIEF.get(str(n), n), c) for n, c in (labels | first | for_axis).items()),
        *values.items(),
        *for_cell.items(),
    ]:
        if str(name) in columns:
            raise ValueError(f"two columns would be called {name!r}. Rename one of them.")
        whole = part.variable.set_dims(dict(zip(main.dims, main.shape, strict=True)))
        columns[str(name)] = whole.transpose(*main.dims).values[keep]
    return pd.DataFrame(columns)


def _values(
    result: xr.DataArray | xr.Dataset,
) -> tuple[dict[Hashable, xr.DataArray], xr.DataArray]:
    """The variables that are columns, and the one whose cells are the rows."""
    if isinstance(result, xr.DataArray):
        return {"value" if result.name is None else result.name: result}, result
    if not result.data_vars:
        raise ValueError("the dataset has no variables, so there is no table.")
    main = result["score"] if "score" in result.data_vars else next(iter(result.values()))
    inside = {n: v for n, v in result.data_vars.items() if set(v.dims) <= set(main.dims)}
    return inside, main


# JSON


@checks_arguments
def to_json(result: xr.DataArray | xr.Dataset) -> str:
    """The result as strict JSON, without loss: `from_json` returns an identical one.

    In an array NaN is null, and infinities are "Infinity" and "-Infinity"; `dtype` tells them from
    text.

    Raises:
        ValueError: if it holds a value that JSON cannot, such as a MultiIndex.
    """
    is_array = isinstance(result, xr.DataArray)
    for name, index in result.indexes.items():
        if isinstance(index, pd.MultiIndex):
            raise ValueError(f"{name!r} is a MultiIndex. Split it first: reset_index({name!r}).")
    document: dict[str, object] = {
        "format": FORMAT,
        "version": VERSION,
        "kind": "DataArray" if is_array else "Dataset",
        "attrs": {} if is_array else _plain(dict(result.attrs), "attrs"),
        "coords": [_variable(n, c.variable) for n, c in result.coords.items()],
    }
    variables = {result.name: result} if isinstance(result, xr.DataArray) else result.data_vars
    document["variables"] = [_variable(n, v.variable) for n, v in variables.items()]
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


@checks_arguments
def from_json(text: str) -> xr.DataArray | xr.Dataset:
    """The result that `to_json` wrote: a `DataArray` or a `Dataset`, as it was.

    Raises:
        ValueError: if the text is not such JSON.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_literal)
    except RecursionError as error:
        raise ValueError("this JSON is nested too deeply to hold a result.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError("this JSON holds no result. Write one with to_json.")
    if document.get("version") != VERSION:
        raise ValueError(
            f"the result has format version {document.get('version')!r}; this mechinterp reads "
            f"version {VERSION}."
        )
    try:
        coords = dict(map(_read_variable, document["coords"]))
        variables = dict(map(_read_variable, document["variables"]))
        if document["kind"] == "Dataset":
            return xr.Dataset(variables, coords=coords, attrs=_read_attrs(document["attrs"]))
        ((name, variable),) = variables.items()
        return xr.DataArray(
            variable.values, dims=variable.dims, coords=coords, name=name, attrs=variable.attrs
        )
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"the result in this JSON is damaged: {error!r}.") from error


def _refuse_literal(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not JSON: the text was not written by to_json.")


def _variable(name: Hashable, variable: xr.Variable) -> dict[str, object]:
    return {
        "name": _plain(name, "a name"),
        "dims": [_plain(dim, "a dimension") for dim in variable.dims],
        **_array(np.asarray(variable.values), repr(name)),
        "attrs": _plain(dict(variable.attrs), f"the attributes of {name!r}"),
    }


def _read_variable(found: Mapping[str, Any]) -> tuple[Hashable, xr.Variable]:
    dims = [_read(dim) for dim in found["dims"]]
    return _read(found["name"]), xr.Variable(dims, _read_array(found), _read_attrs(found["attrs"]))


def _read_attrs(found: object) -> dict[str, object]:
    attrs = _read(found)
    if not isinstance(attrs, dict):
        raise TypeError(f"attrs are {attrs!r}, not an object")
    return attrs


def _array(array: np.ndarray, where: str) -> dict[str, object]:
    if array.dtype.kind in "mM":
        as_int = array.astype("int64")  # NaT is the least of them
        return _array(as_int, where) | {"dtype": array.dtype.str}
    values = _nested(_cells(array, where), array.shape)
    return {"dtype": array.dtype.str, "shape": list(array.shape), "values": values}


def _cells(array: np.ndarray, where: str) -> list[object]:
    """The cells of an array in C order, each as JSON; a cell of objects may itself be a list."""
    kind, flat = array.dtype.kind, array.ravel().tolist()
    if kind == "f" and array.dtype.itemsize <= 8:
        return [_cell_of_float(value) for value in flat]
    if kind == "c" and array.dtype.itemsize <= 16:
        return [[_cell_of_float(value.real), _cell_of_float(value.imag)] for value in flat]
    if kind in "biuUSO":
        return [_plain(value, where) for value in flat]
    raise ValueError(f"{where} is of dtype {array.dtype}, which to_json cannot write.")


def _nested(cells: Sequence[object], shape: Sequence[int]) -> object:
    """Cells in C order as lists nested to a shape."""
    if not shape:
        return cells[0]
    size = math.prod(shape[1:])
    return [_nested(cells[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]


def _read_array(found: Mapping[str, Any]) -> np.ndarray:
    if not _DTYPE.fullmatch(found["dtype"]):
        raise ValueError(f"{found['dtype']!r} is no dtype that to_json writes.")
    dtype, shape = np.dtype(found["dtype"]), tuple(found["shape"])
    cells = [found["values"]]
    for _ in shape:
        cells = [cell for part in cells for cell in part]
    if any(type(n) is not int or n < 0 for n in shape) or math.prod(shape) != len(cells):
        raise ValueError(f"an array of shape {list(shape)} has {len(cells)} cells.")
    check_memory(dtype.itemsize * len(cells), f"an array of {len(cells)} cells of {dtype}")
    if dtype.kind in "mM":
        return np.array(cells, dtype="int64").reshape(shape).astype(dtype)
    flat = np.empty(len(cells), dtype=dtype)
    for i, cell in enumerate(cells):
        if dtype.kind == "f":
            flat[i] = _float(cell)
        elif dtype.kind == "c":
            flat[i] = complex(_float(cell[0]), _float(cell[1]))
        else:
            flat[i] = _read(cell)
    return flat.reshape(shape)


def _cell_of_float(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _float(cell: float | str | None) -> float:
    return math.nan if cell is None else float(cell)


def _plain(value: object, where: str) -> object:
    """The value as JSON; what JSON lacks becomes an object of one key, such as `$tuple`."""
    if isinstance(value, np.generic):
        return {"$scalar": _array(np.asarray(value), where)}
    if isinstance(value, np.ndarray):
        return {"$array": _array(value, where)}
    kind = type(value)  # exactly: a subclass would be read back as its base
    if value is None or kind in (bool, int):
        return value
    if kind not in _PLAIN:
        raise ValueError(
            f"{where} holds {value!r}, of type {kind.__name__}, which to_json cannot write. "
            f"Replace it by its text or its numbers."
        )
    return _PLAIN[kind](value, where)


def _plain_text(value: str, where: str) -> object:
    # Half of a surrogate pair beside another would be read back as one character.
    halves = any("\ud800" <= char <= "\udfff" for char in value)
    return {"$chars": list(map(ord, value))} if halves else value


def _plain_float(value: float, where: str) -> object:
    cell = _cell_of_float(value)
    return {"$float": cell} if cell is None or isinstance(cell, str) else cell


def _plain_dict(value: dict[object, object], where: str) -> object:
    items = [[_plain(k, where), _plain(v, f"{where}, at {k!r},")] for k, v in value.items()]
    if all(isinstance(k, str) and not k.startswith("$") for k, _ in items):
        return {str(k): v for k, v in items}
    return {"$dict": items}


_PLAIN: dict[type, Callable[[Any, str], object]] = {
    str: _plain_text,
    float: _plain_float,
    bytes: lambda value, where: {"$bytes": value.decode("latin-1")},
    complex: lambda value, where: {
        "$complex": [_cell_of_float(value.real), _cell_of_float(value.imag)]
    },
    list: lambda value, where: [_plain(part, where) for part in value],
    tuple: lambda value, where: {"$tuple": [_plain(part, where) for part in value]},
    dict: _plain_dict,
}
"""Writes a value of exactly this type."""


def _read(found: object) -> object:
    if isinstance(found, list):
        return [_read(part) for part in found]
    if not isinstance(found, dict):
        return found
    kind = next(iter(found), "")
    if kind.startswith("$"):
        return _READ[kind](found[kind])
    return {key: _read(value) for key, value in found.items()}


_READ: dict[str, Callable[[Any], object]] = {
    "$scalar": lambda held: _read_array(held)[()],
    "$array": _read_array,
    "$chars": lambda held: "".join(map(chr, held)),
    "$float": _float,
    "$bytes": lambda held: held.encode("latin-1"),
    "$complex": lambda held: complex(_float(held[0]), _float(held[1])),
    "$tuple": lambda held: tuple(map(_read, held)),
    "$dict": lambda held: {_read(key): _read(value) for key, value in held},
}
"""Reads what stands under a key that `_plain` wrote."""
