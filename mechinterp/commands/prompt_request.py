"""The prompts and positions that a command was asked for, resolved for a model.

>>> from mechinterp import load_model
>>> from mechinterp.commands.options.prompt import PromptOptions
>>> from mechinterp.commands.prompt_request import PromptRequest, requested_positions
>>> model = load_model("toy:induction-trained")
>>> request = PromptRequest.of(model, PromptOptions(task="induction", n=4))
>>> request.name, requested_positions("end,2", request.pair.clean)
('induction', ['end', 2])
"""

import re
import sys
from dataclasses import dataclass
from difflib import get_close_matches

from mechinterp.commands.options.prompt import PromptOptions
from mechinterp.commands.options.ranges import whole_number
from mechinterp.core.metrics import Metric
from mechinterp.core.pairs import Pair
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Pos
from mechinterp.models.model import Model
from mechinterp.tasks import TASKS, Finding
from mechinterp.tasks.pair_files import read_pairs


def check_task(name: str) -> None:
    """Check that there is such a task, before a model loads.

    Raises:
        ValueError: if there is none, with the nearest name.
    """
    if name not in TASKS:
        near = get_close_matches(name, TASKS, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(
            f'--task "{name}": no task has this name.{hint} Tasks: {", ".join(TASKS)}.'
        )


@dataclass(frozen=True, eq=False)
class PromptRequest:
    """The prompts of a command, a note on them, and what was published about them."""

    name: str
    pair: Pair
    metric: Metric
    note: str
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, model: Model, options: PromptOptions) -> "PromptRequest":
        """The prompts that the options ask for, made for the model."""
        if options.task is not None:
            made = TASKS[options.task](model, options.n or 16, options.seed)
            note = f"{made.name}: {len(made.pair.clean)} pairs, seed {options.seed}; corrupt: "
            note += f"{made.corruption}."
            return cls(made.name, made.pair, made.metric, note, made.findings)
        assert options.pairs is not None
        pair, metric = read_pairs(model, options.pairs, options.n)
        name = options.pairs.name
        return cls(name, pair, metric, f"{name}: {len(pair.clean)} pairs.")


def requested_text(given: str) -> str:
    """A text of the command line; "-" reads it from standard input, without its last line end.

    Raises:
        ValueError: if what is read is empty, or is not UTF-8.
    """
    if given != "-":
        return given
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"standard input is not UTF-8: {error.reason}. Give it in UTF-8."
        ) from None
    if not text.strip():
        raise ValueError("standard input is empty: write the prompt there.")
    return text.removesuffix("\n").removesuffix("\r")


def requested_positions(text: str | None, prompts: Prompts) -> list[Pos] | None:
    """The positions of an option: numbers and names, which may contain commas.

    Raises:
        ValueError: if a position is out of range, has no such name, or none is given.
    """
    if text is None:
        return None
    names = sorted({"end", *prompts.names}, key=len, reverse=True)
    pattern = "|".join([rf"(?:{'|'.join(map(re.escape, names))})(?=,|$)", "[^,]+"])
    parts = re.findall(pattern, text)
    chosen = [part if (pos := whole_number(part)) is None else pos for part in parts]
    for pos in chosen:
        if isinstance(pos, str) and pos not in names:
            raise ValueError(
                f"--positions {text}: no position is called {pos!r}. Named are "
                f"{', '.join(sorted(names))}; or give a number, from 0."
            )
        prompts.given_positions(pos)
    if not chosen:
        raise ValueError("--positions: none is given. Write them with commas between: end,4.")
    return list(dict.fromkeys(chosen))
