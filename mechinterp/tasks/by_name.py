"""Tasks by name.

>>> from mechinterp import load_model
>>> from mechinterp.tasks.by_name import task
>>> task("induction", load_model("toy:induction-trained"), n=4).name
'induction'
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from mechinterp.core.arguments import checks_arguments
from mechinterp.models.model import Model
from mechinterp.tasks.capitals import country_capitals
from mechinterp.tasks.definition import Task
from mechinterp.tasks.docstring import docstring_arguments
from mechinterp.tasks.greater_than import greater_than_years
from mechinterp.tasks.induction import repeated_tokens
from mechinterp.tasks.ioi import indirect_objects
from mechinterp.tasks.sva import subject_verb

TASKS: Mapping[str, Callable[..., Task]] = MappingProxyType(
    {
        "ioi": indirect_objects,
        "greater-than": greater_than_years,
        "induction": repeated_tokens,
        "docstring": docstring_arguments,
        "sva": subject_verb,
        "capitals": country_capitals,
    }
)
"""Name -> the function that makes the task: `(model, n, seed) -> Task`."""


@checks_arguments
def task(name: str, model: Model, n: int = 16, seed: int = 0) -> Task:
    """The task of this name, with `n` different prompts for this model.

    Raises:
        ValueError: if no task has this name, `n` is out of range, or the tokenizer does not fit.
    """
    if name not in TASKS:
        near = get_close_matches(name, TASKS, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(f'task "{name}": no task has this name.{hint} Tasks: {", ".join(TASKS)}.')
    return TASKS[name](model, n, seed)
