"""Toys by name.

>>> from mechinterp.toys.by_name import toy
>>> toy("trigger").truth.heads["trigger"]
((1, 0),)
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial

from mechinterp.core.arguments import checks_arguments
from mechinterp.toys.compiled import induction, trigger
from mechinterp.toys.definition import Toy
from mechinterp.toys.gates import backup, both, either, redundant
from mechinterp.toys.programs import (
    rasp_dyck,
    rasp_histogram,
    rasp_reverse,
    rasp_sort,
    rasp_x_proportion,
)
from mechinterp.toys.refusal import refusal_trained
from mechinterp.toys.refusers import NAMED, named_refuser
from mechinterp.toys.trained import induction_trained


def _refuser_toy(name: str) -> Toy:
    return named_refuser(name).toy


_BUILDERS: Mapping[str, Callable[[], Toy]] = {
    "induction": induction,
    "trigger": trigger,
    "and": both,
    "either": either,
    "redundant": redundant,
    "backup": backup,
    "rasp-reverse": rasp_reverse,
    "rasp-x-proportion": rasp_x_proportion,
    "rasp-sort": rasp_sort,
    "rasp-histogram": rasp_histogram,
    "rasp-dyck": rasp_dyck,
    "induction-trained": induction_trained,
    "refusal": refusal_trained,
    **{name: partial(_refuser_toy, name) for name in NAMED},
}

TOYS: tuple[str, ...] = tuple(_BUILDERS)
"""The names of all toys."""


@checks_arguments
def toy(name: str) -> Toy:
    """The toy of this name, built anew at each call.

    Raises:
        ValueError: if no toy has this name.
    """
    if name not in _BUILDERS:
        near = get_close_matches(name, TOYS, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(f'toy "{name}": no toy has this name.{hint} Toys: {", ".join(TOYS)}.')
    return _BUILDERS[name]()
