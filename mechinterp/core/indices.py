"""What counts as an index, a position or a number where a user gives one: never a bool, never text.

Python takes `True` for 1 and cuts 1.7 down to 1. A head, a position or a token id that was meant
otherwise would then be another one without a word, so these functions refuse them.

>>> from mechinterp.core.indices import index, indices
>>> import numpy as np
>>> index(np.int64(3), "layer"), indices(range(2), "heads")
(3, [0, 1])
>>> index(True, "head")
Traceback (most recent call last):
    ...
ValueError: head is True: give a whole number from 0 on.
"""

import math
import numbers
import operator
from collections.abc import Iterable
from typing import TypeGuard

import torch
from torch import Tensor

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def is_index(value: object) -> TypeGuard[int]:
    """Whether it is a whole number: Python's, numpy's or a tensor's, and no bool."""
    if type(value) is int:
        return True
    if isinstance(value, Tensor):
        return value.ndim == 0 and holds_indices(value)
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def holds_indices(values: Tensor) -> bool:
    """Whether a tensor's type is that of whole numbers."""
    return values.dtype in _WHOLE


def index(value: object, name: str, *, least: int | None = 0) -> int:
    """The value as an int; `name` is for the message. `least=None`: it may be negative.

    Raises:
        ValueError: if it is no whole number, or below `least`.
    """
    number = operator.index(value) if is_index(value) else None
    if number is None or (least is not None and number < least):
        from_least = "" if least is None else f" from {least} on"
        raise ValueError(f"{name} is {value!r}: give a whole number{from_least}.")
    return number


def indices(values: object, name: str, *, least: int | None = 0) -> list[int]:
    """Several of them as a list.

    Raises:
        ValueError: if it is not a list of whole numbers.
    """
    if isinstance(values, list) and least is None and all(type(value) is int for value in values):
        return list(values)  # token ids, of which there are many
    if isinstance(values, str) or not isinstance(values, Iterable) or _is_scalar(values):
        several = f" Give [{values}]." if is_index(values) else ""
        raise ValueError(f"{name} is {values!r}: give a list of whole numbers.{several}")
    return [index(value, f"{name}[{place}]", least=least) for place, value in enumerate(values)]


def positions(values: object, name: str) -> list[int | str]:
    """One position or several as a list: whole numbers, whose range prompts check, and names.

    Raises:
        ValueError: if one is neither.
    """
    one = isinstance(values, str) or not isinstance(values, Iterable) or _is_scalar(values)
    several: Iterable[object] = [values] if one else values  # type: ignore[assignment]
    return [pos if isinstance(pos, str) else index(pos, name, least=None) for pos in several]


def is_real(value: object) -> bool:
    """Whether it is a number, finite or not: Python's, numpy's or a tensor's, and no bool."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.dtype != torch.bool and not value.is_complex()
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def real(value: object, name: str, *, least: float = -math.inf) -> float:
    """The value as a float; `name` is for the message.

    Raises:
        ValueError: if it is no number, or below `least`.
    """
    number = float(value) if is_real(value) else math.nan  # type: ignore[arg-type]
    if math.isnan(number) or number < least:
        from_least = "" if least == -math.inf else f" from {least:g} on"
        raise ValueError(f"{name} is {value!r}: give a number{from_least}.")
    return number


def _is_scalar(values: object) -> bool:
    return getattr(values, "ndim", 1) == 0
