"""Whether two things are the same in different processes: `digest`, a hash of values and functions.

A function is its code, its defaults and what it closes over, not where it stands in memory. The
globals that it reads are not looked at.

>>> from mechinterp.identity import digest
>>> digest([1, "a"]) == digest([1, "a"]) != digest([1, "b"])
True
"""

import dataclasses
import functools
import hashlib
import random
import re
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mechinterp.models import fingerprint

_PLAIN: tuple[Any, ...] = (bool, int, float, complex, str, bytes, range, slice, type(...))
_PLAIN += (np.generic, torch.dtype, torch.device)
_CHECKERS = re.compile(r"jaxtyping|beartype|typeguard")


def digest(value: Any) -> str:
    """64 hexadecimal digits, equal for equal values in every process.

    Raises:
        ValueError: for an object of which that cannot be told.
    """
    return _Digests().of(value)


class _Digests:
    """Digests of objects met so far: a tensor in a thousand closures is hashed once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, str]] = {}

    def of(self, value: Any) -> str:
        if value is None or isinstance(value, _PLAIN):
            return _hash(type(value).__name__, repr(value))
        if id(value) in self._known:
            return self._known[id(value)][1]
        self._known[id(value)] = (value, _hash("itself"))  # an object that holds itself
        made = self._new(value)
        self._known[id(value)] = (value, made)
        return made

    def _new(self, value: Any) -> str:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            return _hash("tensor", str(value.dtype), str(list(value.shape)), flat.numpy().tobytes())
        if isinstance(value, np.ndarray) and value.dtype != object:
            return _hash("array", str(value.dtype), str(value.shape), value.tobytes())
        if isinstance(value, list | tuple | np.ndarray):
            return _hash(kind, *map(self.of, value))
        if isinstance(value, set | frozenset):
            return _hash(kind, *sorted(map(self.of, value)))
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return _hash(kind, self.of(value.__func__), self.of(value.__self__))
        if isinstance(value, functools.partial):
            return _hash(kind, self.of((value.func, value.args, value.keywords)))
        if isinstance(value, type | types.BuiltinFunctionType | types.ModuleType):
            return _hash(kind, getattr(value, "__module__", "") or "", value.__name__)
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, torch.Generator):
            return _hash(kind, self.of(value.get_state()))
        if isinstance(value, random.Random):
            return _hash(kind, self.of(value.getstate()))
        if isinstance(value, nn.Module):
            return _hash(kind, fingerprint(value))
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return _hash(kind, self.of(fields))
        if isinstance(value, Mapping):
            return _hash(kind, *(self.of(pair) for pair in value.items()))
        if hasattr(value, "__dict__"):
            return _hash(kind, self.of(vars(value)))
        raise ValueError(
            f"{value!r} has nothing by which another process could tell that it is the same. "
            f"Let edits and metrics close over tensors, numbers, text and plain objects alone."
        )

    def _function(self, function: types.FunctionType) -> str:
        checked = getattr(function, "__wrapped__", None)
        if checked is not None and _CHECKERS.search(function.__code__.co_filename):
            return self.of(checked)  # checking types does not change what a function does
        cells = [_content(cell) for cell in function.__closure__ or ()]
        held = (function.__defaults__, function.__kwdefaults__, cells)
        return _hash(function.__qualname__, self.of(function.__code__), self.of(held))

    def _code(self, code: types.CodeType) -> str:
        return _hash("code", code.co_code, self.of(code.co_consts), self.of(code.co_names))


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _hash(*parts: str | bytes) -> str:
    made = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        made.update(len(content).to_bytes(8, "little") + content)
    return made.hexdigest()
