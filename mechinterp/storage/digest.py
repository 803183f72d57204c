"""Whether two things are the same in different processes: `digest`, a hash of values and functions.

A function is hashed by its code, its defaults, what it closes over and what it reads by name:
globals, helpers and classes by their content in turn, modules of installed packages by version.
What cannot be told is refused by name. Files that a function reads are not seen.

>>> from mechinterp.storage.digest import digest
>>> digest([1, "a"]) == digest([1, "a"]) != digest([1, "b"])
True
"""

import builtins
import enum
import functools
import hashlib
import re
import types

import numpy as np
import torch
from torch import Tensor, nn

from mechinterp.models.facts import fingerprint, is_hooked_transformer
from mechinterp.storage.function_reads import (
    DYNAMIC,
    GlobalName,
    imported,
    is_installed,
    names_read,
    version_of,
)
from mechinterp.storage.object_contents import contents_of

_PLAIN: tuple[type, ...] = (bool, int, float, complex, str, bytes, range, slice, type(...))
_NAMED_BY_TEXT: tuple[type, ...] = (np.generic, np.dtype, torch.dtype, torch.device)
_C_DEFINED: tuple[type, ...] = (
    np.ufunc,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
_CHECKERS = re.compile(r"jaxtyping|beartype|typeguard|mechinterp.core.arguments\.py")
_MISSING = object()


def digest(value: object) -> str:
    """64 hexadecimal digits, equal for equal values in every process.

    Raises:
        ValueError: for an object that holds nothing to compare, or a function that reads one,
            naming both.
    """
    return _Digests().of(value)


class _Digests:
    """Digests of objects met so far: a tensor in a thousand closures is hashed once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, str]] = {}
        self._known_reads: dict[tuple[int, int], list[str]] = {}  # by code and globals

    def of(self, value: object) -> str:
        kind = type(value)
        if value is None or kind in _PLAIN or isinstance(value, _NAMED_BY_TEXT):
            return _hash(kind.__name__, repr(value))
        if id(value) in self._known:
            return self._known[id(value)][1]
        self._known[id(value)] = (value, _hash("itself"))  # an object that holds itself
        made = self._new(value)
        self._known[id(value)] = (value, made)
        return made

    def _new(self, value: object) -> str:
        if isinstance(value, tuple | list) and type(value) in (tuple, list):
            return _hash(_kind(value), *map(self.of, value))
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
        if isinstance(value, np.ndarray):  # of objects
            return _hash(kind, str(value.shape), *map(self.of, value.ravel().tolist()))
        if isinstance(value, set | frozenset):
            return _hash(kind, *sorted(map(self.of, value)))
        return None

    def _callable(self, value: object) -> str | None:
        kind = _kind(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return _hash(kind, self.of(value.__func__), self.of(value.__self__))
        if isinstance(value, functools.partial | functools.partialmethod):
            return _hash(kind, self.of((value.func, value.args, value.keywords)))
        if isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            bound = None if isinstance(owner, types.ModuleType) else owner
            return _hash(kind, value.__module__ or "", value.__qualname__, self.of(bound))
        if isinstance(value, _C_DEFINED):
            of = getattr(value, "__objclass__", None)
            called = str(getattr(value, "__name__", ""))
            return _hash(kind, "" if of is None else _kind_of(of), called)
        return None

    def _definition(self, value: object) -> str | None:
        if isinstance(value, types.ModuleType):
            return self._module(value)
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
        if isinstance(value, nn.Module):
            if is_hooked_transformer(value):
                return _hash(kind, fingerprint(value))
            return _hash(kind, self._class(type(value)), self._parts(value))
        found = contents_of(value)
        if found is not None:
            return _hash(kind, self.of(type(value)), self.of(found))
        raise ValueError(
            f"{value!r} has nothing by which another process could tell that it is the same. "
            f"Let edits and metrics read and close over tensors, numbers, text and plain objects "
            f"alone."
        )

    def _parts(self, module: nn.Module) -> str:
        """A module of torch: its parameters, and of each part the class, options and hooks."""
        made = [self.of(dict(module.state_dict()))]
        for name, part in module.named_modules():
            options = {k: v for k, v in vars(part).items() if not k.startswith("_")}
            hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
            made += [name, self._class(type(part)), self.of((options, hooks))]
        return _hash(*made)

    def _class(self, kind: type) -> str:
        """A class by what it defines; by name and version in installed packages."""
        made = [_kind_of(kind)]
        for each in kind.__mro__:
            if is_installed(each.__module__):
                made.append(f"{_kind_of(each)} {version_of(each.__module__)}")
                continue
            where = f"the class {each.__qualname__!r} holds"
            if issubclass(each, enum.Enum):
                made += [f"{one.name} {self.of(one.value)}" for one in each]
            for name, member in sorted(vars(each).items()):
                inner = member
                if isinstance(inner, functools.cached_property):
                    inner = inner.func
                for held in ("__func__", "fget"):
                    inner = getattr(inner, held, inner)
                own = not name.startswith(("__", "_abc_")) and not issubclass(each, enum.Enum)
                if isinstance(inner, types.FunctionType) or own:
                    made.append(self._read(where, name, inner))
        return _hash(*made)

    def _module(self, module: types.ModuleType) -> str:
        """A module by its version, or by all that it defines."""
        name = module.__name__
        if is_installed(name):
            return _hash("module", name, version_of(name))
        own = {k: v for k, v in vars(module).items() if not k.startswith("__")}
        where = f"the module {name!r} holds"
        return _hash("module", name, *(self._read(where, k, v) for k, v in sorted(own.items())))

    def _read(self, where: str, name: str, value: object) -> str:
        """The digest of what is read under a name; an error says where."""
        if any(value is each for each in DYNAMIC):
            raise ValueError(
                f"{where} {name!r}, so that nobody can tell which names it uses. Write them out."
            )
        try:
            return _hash(name, self.of(value))
        except ValueError as error:
            raise ValueError(f"{where} {name!r}: {error}") from error

    def _function(self, function: types.FunctionType) -> str:
        checked = getattr(function, "__wrapped__", None)
        if checked is not None and _CHECKERS.search(function.__code__.co_filename):
            return self.of(checked)  # type checks do not change what a function does
        cells = [_content(cell) for cell in function.__closure__ or ()]
        own = sorted((k, v) for k, v in vars(function).items() if k != "__wrapped__")
        held = (function.__defaults__, function.__kwdefaults__, cells, own)
        code, names = function.__code__, function.__globals__
        made = _hash(function.__qualname__, self.of(code), self.of(held))
        if (id(code), id(names)) not in self._known_reads:
            self._known_reads[id(code), id(names)] = []  # a function that reads itself
            self._known_reads[id(code), id(names)] = self._reads(function)
        return _hash(made, *self._known_reads[id(code), id(names)])

    def _reads(self, function: types.FunctionType) -> list[str]:
        """The digests of what a function of the user reads; one of a package has its version.

        Raises:
            ValueError: naming the function and what it reads, if that cannot be told.
        """
        home = str(function.__globals__.get("__name__", ""))  # a wrapper has another's __module__
        if is_installed(home):
            return [home, version_of(home)]
        where, made = f"the function {function.__qualname__!r} reads", []
        for found in names_read(function.__code__):
            if isinstance(found, GlobalName):
                made.append(self._global(where, function, found))
                continue
            package = function.__globals__.get("__package__")
            for each in imported(found, package):
                made.append(self._read(where, found.module, each))
        return made

    def _global(self, where: str, function: types.FunctionType, found: GlobalName) -> str:
        """The digest of a global, of a module the attribute alone that is read."""
        names = function.__globals__
        value, name = names.get(found.name, _MISSING), found.name
        if value is _MISSING:
            value = getattr(builtins, found.name, _MISSING)
        for attribute in found.attributes:
            if not isinstance(value, types.ModuleType):
                break
            name, inner = f"{name}.{attribute}", getattr(value, attribute, _MISSING)
            if is_installed(value.__name__) and not any(inner is each for each in DYNAMIC):
                return _hash(name, self._module(value))
            value = inner
        return _hash(name, "missing") if value is _MISSING else self._read(where, name, value)

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
    return _kind_of(type(value))


def _kind_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _hash(*parts: str | bytes) -> str:
    made, small = hashlib.sha256(), b""
    for part in parts:
        content = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        small += len(content).to_bytes(8, "little")
        if len(content) < 1024:
            small += content
        else:
            made.update(small)
            made.update(content)
            small = b""
    made.update(small)
    return made.hexdigest()
