"""What an object holds, as plain values by which another process can tell that it is the same.

>>> import re
>>> from mechinterp.storage.object_contents import contents_of
>>> contents_of(re.compile("a"))
('a', 32)
>>> contents_of(iter([1])) is None
True
"""

import dataclasses
import enum
import functools
import logging
import random
import re
from collections.abc import Callable, Iterator, Mapping

import torch
import xarray as xr

from mechinterp.core.prompts import Prompts
from mechinterp.storage.function_reads import is_installed


def contents_of(value: object) -> object | None:
    """What an object holds beside its class; None if it has nothing to compare."""
    for kind, contents in _CONTENTS.items():
        if isinstance(value, kind):
            return contents(value)
    ways = [_held, _pickled]
    if not type(value).__module__.startswith("mechinterp.") and not isinstance(
        value, Mapping | list | tuple
    ):
        ways = [_pickled, _held]
    for way in ways:
        found = way(value)
        if found is not None:
            return found
    return None


def _of_array(value: xr.DataArray) -> object:
    coords = {str(name): (coord.dims, coord.values) for name, coord in value.coords.items()}
    return value.values, value.dims, value.name, coords, value.attrs


def _of_prompts(value: Prompts) -> object:
    """All but how they are decoded."""
    named = sorted(value.names.items())
    return value.tokens, value.lengths, named, value.roles, value.moved, value.given


_CONTENTS: Mapping[type, Callable[..., object]] = {
    xr.DataArray: _of_array,
    Prompts: _of_prompts,
    torch.Generator: torch.Generator.get_state,
    random.Random: random.Random.getstate,
    logging.Logger: lambda logger: logger.name,
    re.Pattern: lambda pattern: (pattern.pattern, pattern.flags),
    enum.Enum: lambda member: (member.name, member.value),
}


def _held(value: object) -> object | None:
    """Its items or value, if it is a container or derives from a number or text; its attributes."""
    items = _items(value)
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
    return items, sorted(named.items())


def _items(value: object) -> list[object] | None:
    if isinstance(value, Mapping):
        return [tuple(pair) for pair in value.items()]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, set | frozenset):
        return [frozenset(value)]
    for base in (int, float, complex, str, bytes):
        if isinstance(value, base):
            return [base.__repr__(value)]
    return None


def _pickled(value: object) -> object | None:
    """An object of an installed package, such as a date or a table, by how it is pickled."""
    if not is_installed(type(value).__module__) or hasattr(value, "__next__"):
        return None
    try:
        reduced = value.__reduce_ex__(2)
    except (TypeError, AttributeError):  # a lock, a generator, an open file
        return None
    if isinstance(reduced, str):  # where to find it again, such as a cached function: no content
        return None
    return [list(part) if isinstance(part, Iterator) else part for part in reduced]
