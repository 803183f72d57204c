"""Prompts of the published tasks, made from a seed for any tokenizer, and what was found on them.

A task is a `Pair` of clean and corrupt prompts with the positions named as in the paper, the metric
that the paper uses, and the published findings as data:

>>> from mechinterp import load_model
>>> from mechinterp.tasks import TASKS, task
>>> list(TASKS)
['ioi', 'greater-than', 'induction', 'docstring', 'sva', 'capitals']
>>> induction = task("induction", load_model("toy:induction-trained"), n=4)
>>> len(induction.pair.clean), sorted(induction.pair.clean.names), induction.metric.name
(4, ['end', 'first', 'induction'], 'log_prob')

Not a data set: nothing is downloaded, and a model whose tokenizer splits the words is told so.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from mechinterp.tasks.capitals import capitals
from mechinterp.tasks.definition import Finding, Task
from mechinterp.tasks.docstring import docstring
from mechinterp.tasks.greater_than import greater_than
from mechinterp.tasks.induction import repeated_tokens
from mechinterp.tasks.ioi import indirect_objects
from mechinterp.tasks.sva import subject_verb

__all__ = [
    "TASKS",
    "Finding",
    "Task",
    "capitals",
    "docstring",
    "greater_than",
    "indirect_objects",
    "repeated_tokens",
    "subject_verb",
    "task",
]

TASKS: Mapping[str, Callable[..., Task]] = MappingProxyType(
    {
        "ioi": indirect_objects,
        "greater-than": greater_than,
        "induction": repeated_tokens,
        "docstring": docstring,
        "sva": subject_verb,
        "capitals": capitals,
    }
)
"""Name -> what makes it: `(model, n, seed) -> Task`."""


def task(name: str, model: Any, n: int = 16, seed: int = 0) -> Task:
    """The task of this name, with `n` different prompts for this model.

    Raises:
        ValueError: if no task has this name, `n` is out of range, or the tokenizer does not fit.
    """
    if name not in TASKS:
        near = get_close_matches(name, TASKS, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(f'task "{name}": no task has this name.{hint} Tasks: {", ".join(TASKS)}.')
    return TASKS[name](model, n, seed)
