"""What a function reads beside its arguments: globals, attributes of modules, imports of its own.

>>> from mechinterp.storage.function_reads import GlobalName, names_read
>>> names_read((lambda value: torch.relu(value) * scale).__code__)
(GlobalName(name='torch', attributes=('relu',)), GlobalName(name='scale', attributes=()))

And where a module comes from: an installed one is known by its version, one of the user by what is
read from it.
"""

import dis
import importlib
import importlib.metadata
import importlib.util
import platform
import sys
import sysconfig
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mechinterp.storage.run_folder import package_version

DYNAMIC = (eval, exec, globals, __import__, importlib.import_module)
"""What reads names that only a run of it tells."""

_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")


@dataclass(frozen=True)
class GlobalName:
    """A global that is read, and the attributes that are read from it at once: `torch.nn.relu`."""

    name: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LocalImport:
    """An import inside a function. `taken`: the names after `import`, none for a whole module."""

    module: str
    level: int
    taken: tuple[str, ...] = ()


@cache
def names_read(code: types.CodeType) -> tuple[GlobalName | LocalImport, ...]:
    """What code reads by name, also in functions that it defines; each once, in order."""
    return tuple(dict.fromkeys(_names_read(code)))


def _names_read(code: types.CodeType) -> Iterator[GlobalName | LocalImport]:
    steps = list(dis.get_instructions(code))
    own = set(code.co_varnames) | set(code.co_cellvars)
    for at, step in enumerate(steps):
        if step.opname == "LOAD_GLOBAL" or (step.opname == "LOAD_NAME" and step.argval not in own):
            attributes = []
            for later in steps[at + 1 :]:
                if later.opname not in _ATTRIBUTE:
                    break
                attributes.append(str(later.argval))
            yield GlobalName(str(step.argval), tuple(attributes))
        elif step.opname == "IMPORT_NAME":
            level, taken = steps[at - 2].argval, steps[at - 1].argval
            yield LocalImport(str(step.argval), int(level or 0), tuple(taken or ()))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_read(constant)


def imported(found: LocalImport, package: str | None) -> list[object]:
    """What an import inside a function gives: a module, or what is taken from it.

    Raises:
        ValueError: if there is no such module.
    """
    try:
        module = importlib.import_module("." * found.level + found.module, package)
        if not found.taken:
            return [module]
        return [getattr(module, name) for name in found.taken if name != "*"]
    except (ImportError, AttributeError) as error:
        raise ValueError(f"it imports {found.module!r}, which fails: {error}.") from error


@cache
def is_installed(module: str) -> bool:
    """Whether a module is part of Python or of an installed package, known by its version."""
    top = module.split(".")[0]
    if top == "__main__":
        return False
    if top in ("mechinterp", "builtins") or top in sys.builtin_module_names:
        return True
    known = sys.modules.get(module) or sys.modules.get(top)
    file = getattr(known, "__file__", None)
    if file is None:
        return top in sys.stdlib_module_names
    where = Path(file).resolve()
    if {"site-packages", "dist-packages"} & set(where.parts):
        return True
    return any(
        where.is_relative_to(Path(sysconfig.get_path(name)).resolve())
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
    )


@cache
def version_of(module: str) -> str:
    """The version of the package of an installed module; Python's for its own."""
    top = module.split(".")[0]
    if top in sys.stdlib_module_names:
        return platform.python_version()
    found = package_version(top)
    if found != "not installed":
        return found
    named = importlib.metadata.packages_distributions().get(top)
    return (
        package_version(named[0])
        if named
        else str(getattr(sys.modules.get(top), "__version__", ""))
    )
