"""Studies as files: `write_study` and `read_study`, strict JSON with a seal, without loss.

>>> import tempfile
>>> from pathlib import Path
>>> import xarray as xr
>>> from mechinterp.refusal import Flips, PromptStudy, read_study, write_study
>>> drops = xr.DataArray([2.0], dims="word", coords={"word": ["bomb"]})
>>> flips = Flips("bomb", 1.5, (), 3, True, 1, 1, 24, 24)
>>> found = PromptStudy("gpt2", "refuse", "nats", 0.0, "bomb", 1.5, drops, flips, (), (), ())
>>> with tempfile.TemporaryDirectory() as folder:
...     read_study(write_study(found, Path(folder) / "study.json")).score
1.5

The JSON follows the fields of the values. A float that is none is "nan", "inf" or
"-inf"; arrays are as `attribution.to_json` writes them. Equal studies give equal bytes.
"""

import json
import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import xarray as xr

from mechinterp.attribution import tables
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.interrupts import holds_signals
from mechinterp.refusal.findings import PromptStudy, RefusalStudy
from mechinterp.storage.seals import NOT_SEALED, check_seal, seal
from mechinterp.storage.whole_files import JSON_BYTES_PER_BYTE, read_whole, write_whole

FORMAT, VERSION = "mechinterp refusal study", 1

T = TypeVar("T")

_KINDS: dict[str, type] = {"RefusalStudy": RefusalStudy, "PromptStudy": PromptStudy}
_BARE = {"format": tables.FORMAT, "version": tables.VERSION, "kind": "Dataset"}
_BARE |= {"coords": [], "variables": []}


@checks_arguments
def to_json(study: RefusalStudy | PromptStudy) -> str:
    """The study as strict JSON; `from_json` gives one with the same values.

    Raises:
        ValueError: if its attrs hold what JSON cannot.
    """
    content = {"format": FORMAT, "version": VERSION, "kind": type(study).__name__}
    return json.dumps(
        {**content, "study": _plain(type(study), study), "seal": NOT_SEALED}, indent=1
    )


@checks_arguments
def from_json(text: str) -> RefusalStudy | PromptStudy:
    """The study that `to_json` wrote.

    Raises:
        ValueError: if the text is not such JSON.
    """
    try:
        found = json.loads(text)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError("it holds no study of refusals. Write one with write_study")
        if found.get("version") != VERSION:
            raise ValueError(
                f"it has format version {found.get('version')!r}; this mechinterp reads {VERSION}"
            )
        study = _read(_KINDS[found["kind"]], found["study"])
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"the study in this JSON is damaged: {error!r}") from error
    assert isinstance(study, RefusalStudy | PromptStudy)
    return study


@checks_arguments
def write_study(study: RefusalStudy | PromptStudy, file: str | Path) -> Path:
    """Write a study whole or not at all, with a seal: a hash of the file.

    Raises:
        OSError: if it cannot be written.
        ValueError: if its attrs hold what JSON cannot.
    """
    write_whole(Path(file), study_bytes(study))
    return Path(file)


def study_bytes(study: RefusalStudy | PromptStudy) -> bytes:
    """What `write_study` writes."""
    return seal(to_json(study).encode())


@checks_arguments
@holds_signals
def read_study(file: str | Path) -> RefusalStudy | PromptStudy:
    """The study that `write_study` wrote, checked against its seal.

    Raises:
        ValueError: if the file is not such a study, or is damaged.
    """
    try:
        content = read_whole(Path(file), JSON_BYTES_PER_BYTE)
        study = from_json(content.decode())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as a study of refusals: {error}.") from None
    check_seal(content, file, is_new=True)
    return study


def _plain(hint: object, value: object) -> object:
    """A value of this type as JSON."""
    if value is None:
        return None
    hint = _without_none(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        return {e.name: _plain(hints[e.name], getattr(value, e.name)) for e in fields(hint)}
    if isinstance(value, xr.DataArray | xr.Dataset):
        return json.loads(tables.to_json(value))
    if isinstance(value, Mapping):
        of = get_args(hint)[1]
        return _attrs(value) if of is object else {k: _plain(of, v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(of, each) for of, each in zip(_each(hint, len(value)), value, strict=True)]
    if hint is float:
        number = float(value)  # type: ignore[arg-type]
        return number if math.isfinite(number) else str(number)
    if hint is bool:
        return bool(value)
    return int(value) if hint is int else value  # type: ignore[call-overload]


def _read(hint: object, found: object) -> object:
    """The value of this type that `_plain` wrote."""
    if found is None and hint is not _without_none(hint):
        return None
    hint = _without_none(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        hints, given = get_type_hints(hint), _checked(dict, found)
        return hint(**{e.name: _read(hints[e.name], given[e.name]) for e in fields(hint)})
    if hint is xr.DataArray or hint is xr.Dataset:
        return _checked(hint, tables.from_json(json.dumps(found)))
    origin = get_origin(hint)
    if origin is dict:
        of, given = get_args(hint)[1], _checked(dict, found)
        return _read_attrs(given) if of is object else {k: _read(of, v) for k, v in given.items()}
    if origin is tuple:
        parts = _checked(list, found)
        return tuple(
            _read(of, each) for of, each in zip(_each(hint, len(parts)), parts, strict=True)
        )
    if origin is Literal:
        if found not in get_args(hint):
            raise TypeError(f"{found!r} is none of {get_args(hint)}")
        return found
    if hint is float:
        if found not in ("nan", "inf", "-inf") and type(found) not in (int, float):
            raise TypeError(f"{found!r} is no number")
        return float(found)  # type: ignore[arg-type]
    assert isinstance(hint, type)
    return _checked(hint, found)


def _attrs(attrs: Mapping[object, object]) -> object:
    """Attributes as the JSON of results has them: a tuple stays one."""
    return json.loads(tables.to_json(xr.Dataset(attrs=dict(attrs))))["attrs"]


def _read_attrs(found: object) -> dict[object, object]:
    attrs = tables.from_json(json.dumps({**_BARE, "attrs": found})).attrs
    return dict(attrs.items())


def _each(hint: object, n: int) -> tuple[object, ...]:
    """The types of the n parts of a tuple."""
    parts = get_args(hint)
    return (parts[0],) * n if parts[1:] == (...,) else parts


def _without_none(hint: object) -> object:
    """What `X | None` is where it is not None."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    return next(part for part in get_args(hint) if part is not type(None))


def _checked(kind: type[T], found: object) -> T:
    """A value of exactly this type."""
    if type(found) is not kind:
        raise TypeError(f"{found!r} is no {kind.__name__}")
    return found
