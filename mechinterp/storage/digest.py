"""Whether two things are the same in different processes: `digest`, a hash of values and functions.

A function is hashed by its code, its defaults and what it closes over, not by its address. The
globals that it reads are not hashed.

>>> from mechinterp.storage.digest import digest
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

import numpy as np
import torch
from torch import Tensor, nn

from mechinterp.models.facts import fingerprint, is_hooked_transformer

_PLAIN: tuple[type, ...] = (bool, int, float, complex, str, bytes, range, slice, type(...))
_PLAIN += (np.generic, torch.dtype, torch.device)
_INSTALLED = {"builtins", "abc", "typing", "collections", "torch", "numpy", "mechinterp"}
_CHECKERS = re.compile(r"jaxtyping|beartype|typeguard")


def digest(value: object) -> str:
    """64 hexadecimal digits, equal for equal values in every process.

    Raises:
        ValueError: for an object that holds nothing to compare.
    """
    return _Digests().of(value)


class _Digests:
    """Digests of objects met so far: a tensor in a thousand closures is hashed once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, str]] = {}

    def of(self, value: object) -> str:
        if value is None or isinstance(value, _PLAIN):
            return _hash(type(value).__name__, repr(value))
        if id(value) in self._known:
            return self._known[id(value)][1]
        self._known[id(value)] = (value, _hash("itself"))  # an object that holds itself
        made = self._new(value)
        self._known[id(value)] = (value, made)
        return made

    def _new(self, value: object) -> str:
        for digest_of in (self._array, self._collection, self._callable, self._definition):
            made = digest_of(value)
            if made is not None:
                return made
        return self._object(value)

    def _array(self, value: object) -> str | None:
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            return _hash("tensor", str(value.dtype), str(list(value.shape)), flat.numpy().tobytes())
        if isinstance(value, np.ndarray) and value.dtype != object:
            return _hash("array", str(value.dtype), str(value.shape), value.tobytes())
        return None

    def _collection(self, value: object) -> str | None:
        kind = _kind(value)
        if isinstance(value, np.ndarray) or (
            isinstance(value, list | tuple) and type(value) in (list, tuple)
        ):
            return _hash(kind, *map(self.of, value))
        if isinstance(value, set | frozenset):
            return _hash(kind, *sorted(map(self.of, value)))
        return None

    def _callable(self, value: object) -> str | None:
        kind = _kind(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return _hash(kind, self.of(value.__func__), self.of(value.__self__))
        if isinstance(value, functools.partial):
            return _hash(kind, self.of((value.func, value.args, value.keywords)))
        if isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            bound = None if isinstance(owner, types.ModuleType) else owner
            return _hash(kind, value.__module__ or "", value.__qualname__, self.of(bound))
        return None

    def _definition(self, value: object) -> str | None:
        if isinstance(value, types.ModuleType):
            return _hash(_kind(value), value.__name__)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.CodeType):
            return self._code(value)
        return None

    def _object(self, value: object) -> str:
        """An object by its class and by what it holds.

        Raises:
            ValueError: if it holds nothing to compare.
        """
        kind = _kind(value)
        if isinstance(value, torch.Generator):
            return _hash(kind, self.of(value.get_state()))
        if isinstance(value, random.Random):
            return _hash(kind, self.of(value.getstate()))
        if isinstance(value, nn.Module):
            if is_hooked_transformer(value):
                return _hash(kind, fingerprint(value))
            return _hash(kind, self._class(type(value)), self.of(dict(value.state_dict())))
        held = self._held(value)
        if held is not None:
            return _hash(kind, self._class(type(value)), held)
        raise ValueError(
            f"{value!r} has nothing by which another process could tell that it is the same. "
            f"Let edits and metrics close over tensors, numbers, text and plain objects alone."
        )

    def _held(self, value: object) -> str | None:
        """What an object holds: its items if it is a container, fields, attributes, slots."""
        items: list[object] | None = None
        if isinstance(value, Mapping):
            items = [tuple(pair) for pair in value.items()]
        elif isinstance(value, list | tuple):
            items = list(value)
        named: dict[str, object] = {}
        if dataclasses.is_dataclass(value):
            named = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, slot) and not slot.startswith("__"):
                    named[slot] = getattr(value, slot)
        cached = {  # derived from the rest, when they were first asked for
            name
            for kind in type(value).__mro__
            for name, member in vars(kind).items()
            if isinstance(member, functools.cached_property)
        }
        named |= {k: v for k, v in getattr(value, "__dict__", {}).items() if k not in cached}
        if items is None and not named and not hasattr(value, "__dict__"):
            return None
        return _hash(self.of(items), *(self.of(pair) for pair in sorted(named.items())))

    def _class(self, kind: type) -> str:
        """A class by its methods; by name in installed packages, whose versions count."""
        made = [kind.__module__, kind.__qualname__]
        for each in kind.__mro__:
            if each.__module__.split(".")[0] in _INSTALLED:
                continue
            for name, member in sorted(vars(each).items()):
                inner = member
                for held in ("__func__", "fget", "func"):
                    inner = getattr(inner, held, inner)
                if isinstance(inner, types.FunctionType):
                    made += [name, self.of(inner)]
        return _hash(*made)

    def _function(self, function: types.FunctionType) -> str:
        checked = getattr(function, "__wrapped__", None)
        if checked is not None and _CHECKERS.search(function.__code__.co_filename):
            return self.of(checked)  # type checks do not change what a function does
        cells = [_content(cell) for cell in function.__closure__ or ()]
        own = sorted((k, v) for k, v in vars(function).items() if k != "__wrapped__")
        held = (function.__defaults__, function.__kwdefaults__, cells, own)
        return _hash(function.__qualname__, self.of(function.__code__), self.of(held))

    def _code(self, code: types.CodeType) -> str:
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        ways = getattr(code, "co_exceptiontable", b"")
        names = (code.co_consts, code.co_names, shape, ways)
        return _hash("code", code.co_code, self.of(names))


def _content(cell: types.CellType) -> object:
    try:
        content: object = cell.cell_contents
        return content
    except ValueError:  # not filled yet
        return None


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _hash(*parts: str | bytes) -> str:
    made = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        made.update(len(content).to_bytes(8, "little") + content)
    return made.hexdigest()
