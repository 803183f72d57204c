"""The check at the door of public functions: each argument is what its annotation says.

`@checks_arguments` compares what a function is given with its annotations, so that a wrong argument
is one sentence, and no error from deep inside or, worse, a number. It costs some microseconds a
call, and stands on functions that a user calls, not on those of a pass. Shapes, ranges and names
are checked by the functions themselves.

>>> from mechinterp.core.arguments import checks_arguments
>>> @checks_arguments
... def strongest(n: int, *, layers: list[int] | None = None) -> int:
...     return n
>>> strongest(True)
Traceback (most recent call last):
    ...
ValueError: strongest: n is True: give a whole number.
>>> strongest(3, layers=[0, "1"])
Traceback (most recent call last):
    ...
ValueError: strongest: layers is [0, '1']: give a list of whole numbers, or None.
"""

import collections.abc
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np
from torch import Tensor

from mechinterp.core.indices import is_index, is_real

P = ParamSpec("P")
T = TypeVar("T")
Hint = object
"""An annotation, as `typing.get_type_hints` gives it."""

_LEAST: dict[str, int] = {
    **dict.fromkeys(
        ("seed", "weight", "times", "alpha", "seconds", "rate", "k", "top", "rounds"), 0
    ),
    **dict.fromkeys(("budget_bytes", "n_resamples", "at_once"), 1),
}
"""What arguments of these names are at least, whatever the function."""
_WORDS: dict[Hint, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    bool: ("True or False", "True or False"),
    type(None): ("None", "None"),
    Path: ("a path", "paths"),
}
_MADE_BY = {
    "Model": "a model with hook points: load_model(model) makes one of Hugging Face's",
    "Metric": "a metric: log_prob(token_id), logit_diff(a, b) ...",
    "Pair": "a Pair of clean and corrupt prompts: task(...).pair",
    "Prompts": "Prompts: tokenize(model, texts)",
    "Activations": "the activations that a run read: run(model, prompts, read(site)).acts",
    "Question": "a question: ask(model, prompt)",
    "Contrast": "a Contrast: Contrast.from_pair(model, pair, metric, graph)",
    "EdgeScores": "scores of edges: eap_ig(contrast)",
    "Circuit": "a circuit: top_n(scores, n)",
    "Graph": "a graph: Graph.from_model(model)",
    "Request": 'a request: Request("How do I ...?", harmful=False, family="...")',
    "Labelled": "labelled prompts: Labelled.of(prompts, labels)",
    "DataArray": "a DataArray, as functions of this package return it",
    "Dataset": "a Dataset, as functions of this package return it",
    "Site": 'a site: Site("z", layer=0)',
}


def checks_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """The function, with each argument compared with its annotation before it runs.

    Raises:
        ValueError: when it is called, naming the function, the argument and what it should be.
    """
    signature = inspect.signature(function)
    called = function.__qualname__.rpartition("<locals>.")[-1]
    hints: dict[str, Hint] = {}

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        if not hints:
            hints.update(typing.get_type_hints(function))
        given = signature.bind(*args, **kwargs).arguments
        for name, value in given.items():
            kind = signature.parameters[name].kind
            if kind == inspect.Parameter.VAR_KEYWORD:
                continue
            hint, values = hints.get(name, object), [value]
            if kind == inspect.Parameter.VAR_POSITIONAL:
                values = list(value)
            for one in values:
                if not fits(one, hint) or not _in_range(one, name):
                    words = _range_words(name, words_for(hint))
                    raise ValueError(f"{called}: {name} is {_short(one)}: give {words}.")
        return function(*args, **kwargs)

    return checked


def fits(value: object, hint: Hint) -> bool:
    """Whether a value is what an annotation says; True where that cannot be told."""
    if hint in (int, float, str, bool, type(None), Path):
        return _fits_plain(value, hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _is_text_of_prompts(inner) or any(fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str | int) and value in inner
    if origin is collections.abc.Callable:
        return callable(value)
    if typing.is_typeddict(hint) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return isinstance(value, Mapping)
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return _fits_several(value, origin, inner)
    array = getattr(hint, "array_type", None)  # of jaxtyping
    kind = origin if isinstance(origin, type) else hint if array is None else array
    if getattr(kind, "_is_protocol", False):
        return _fits_protocol(value, kind)
    return isinstance(value, kind) if isinstance(kind, type) else True


def words_for(hint: Hint, *, several: bool = False) -> str:
    """What an annotation asks for, in words."""
    if hint in _WORDS:
        return _WORDS[hint][several]
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        words = dict.fromkeys(words_for(one, several=several) for one in inner)
        return ", or ".join(words)
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if origin is collections.abc.Callable:
        return "a function"
    if typing.is_typeddict(hint) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "a mapping (a dict)"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        of = [one for one in inner if one is not Ellipsis]
        return f"a list of {words_for(of[0], several=True)}" if of else "a list"
    array = getattr(hint, "array_type", None)
    name = getattr(array or origin or hint, "__name__", str(hint))
    return _MADE_BY.get(name, f"a {name}")


def _fits_plain(value: object, hint: Hint) -> bool:
    """Whether a value is a whole number, a number, a text, a truth value, None or a path."""
    if hint is int:
        return is_index(value)
    if hint is float:
        return is_real(value) and not math.isnan(float(value))  # type: ignore[arg-type]
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    if hint is Path:
        return isinstance(value, PathLike)
    return value is None if hint is type(None) else isinstance(value, str)


def _fits_several(value: object, kind: type, inner: tuple[Hint, ...]) -> bool:
    """Whether a value is a list, or what else can be gone through, of what `inner` says."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return False
    if isinstance(value, Mapping) and issubclass(kind, Sequence):
        return False
    if getattr(value, "ndim", 1) == 0:
        return False
    if kind is tuple and inner[-1:] != (Ellipsis,):
        return isinstance(value, tuple | list) and len(value) == len(inner)
    if isinstance(value, np.ndarray | Tensor):  # one number tells what all are
        return not inner or all(fits(one, inner[0]) for one in value[:1])
    return not inner or not isinstance(value, Sequence) or all(fits(o, inner[0]) for o in value)


def _fits_protocol(value: object, kind: Hint) -> bool:
    """Whether a value is callable as a protocol is, or has its public attributes."""
    names = [name for name in getattr(kind, "__protocol_attrs__", ()) if name != "__call__"]
    if not names:
        names = [name for name in vars(kind) if not name.startswith("_")]
    return all(hasattr(value, name) for name in names) and (bool(names) or callable(value))


def _is_text_of_prompts(inner: tuple[Hint, ...]) -> bool:
    """Whether this is what a prompt may be, which `tokenize` checks, with words for each case."""
    return str in inner and any(getattr(one, "__name__", "") == "Prompts" for one in inner)


def _in_range(value: object, name: str) -> bool:
    if name == "level" and is_real(value):
        return 0 < float(value) < 1  # type: ignore[arg-type]
    return name not in _LEAST or not is_real(value) or float(value) >= _LEAST[name]  # type: ignore[arg-type]


def _range_words(name: str, words: str) -> str:
    if name == "level":
        return "a number between 0 and 1"
    return f"{words}, from {_LEAST[name]} on" if name in _LEAST else words


def _short(value: object) -> str:
    """The value in a sentence: plain ones as they are, others by their type."""
    plain = isinstance(value, str | int | float | bool | list | tuple | dict | None)
    text = repr(value)
    return text if plain and len(text) <= 60 else f"a {type(value).__name__}"
