"""The verdict put to the test on families that were set aside: foretold flips beside random edits.

An edit changes one factor of a request where the rule says that this changes the answer: a harmless
request in the place of the harmful one, a trigger put in, a cue put on. Beside it a random edit of
the same size: another wording of the same harm, a word that is no trigger, a cue that is none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mechinterp.core.arguments import checks_arguments
from mechinterp.models.model import Model
from mechinterp.refusal.crossing import Factors, drawn_members, middle
from mechinterp.refusal.cues import Cue
from mechinterp.refusal.findings import Behaviour, HeldOut, Rule, WordSet
from mechinterp.refusal.rules import RULES
from mechinterp.refusal.texts import score_prompts, with_words
from mechinterp.sweeps.options import Progress
from mechinterp.tasks.request_families import Chat, Request, text_of

SET_ASIDE = 0.25
"""The share of families on which the verdict is tested, and which nothing else sees."""
N_EXAMPLES = 6
Prompt = str | Chat


@dataclass(frozen=True)
class Explanation:
    """What foretells: the rule with its triggers and cue; and what random edits are made of.

    control_words, control_cue: words that are no triggers, and a cue that is none.
    """

    rule: Rule
    factors: Factors
    control_words: tuple[WordSet, ...] = ()
    control_cue: Cue | None = None


@dataclass(frozen=True)
class _Edit:
    before: Prompt
    after: Prompt
    random: Prompt | None
    refuses_before: bool
    refuses_after: bool


def set_aside(
    requests: Sequence[Request], seed: int
) -> tuple[tuple[Request, ...], tuple[Request, ...]]:
    """The requests that the study is made on, and those of a quarter of the families kept back."""
    families = list(dict.fromkeys(request.family for request in requests))
    n = math.floor(SET_ASIDE * len(families)) if len(families) >= 6 else 0
    draws = np.random.default_rng(seed + 1)
    kept = {families[i] for i in draws.permutation(len(families))[:n]}
    return (
        tuple(request for request in requests if request.family not in kept),
        tuple(request for request in requests if request.family in kept),
    )


@checks_arguments
def predict_flips(
    model: Model,
    behaviour: Behaviour,
    explanation: Explanation,
    requests: Sequence[Request],
    *,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> HeldOut:
    """How many of the flips that the rule foretells happen in these requests, beside random edits.

    `requests`: of families that no part of the study has seen. A foretold flip has happened if the
    model is on the foretold side before the edit and after it.

    >>> from mechinterp import load_model
    >>> from mechinterp.refusal.behaviour import refusal_behaviour
    >>> from mechinterp.refusal.crossing import Factors
    >>> from mechinterp.tasks.request_families import Request
    >>> requests = [Request(f"{verb} the {thing}", harmful=verb == "open", family=thing)
    ...             for thing in ("door", "box") for verb in ("open", "paint")]
    >>> model = load_model("toy:trigger")
    >>> explanation = Explanation("trigger", Factors((("sesame",),), None), (("book",),))
    >>> found = predict_flips(model, refusal_behaviour(model), explanation, requests)
    >>> found.n_happened, found.n_predicted, found.n_random_happened
    (2, 2, 0)
    """
    families = tuple(dict.fromkeys(request.family for request in requests))
    edits = [
        edit
        for number, family in enumerate(families)
        for edit in _edits_of_family(explanation, _of_family(requests, family, seed), number)
    ]
    if not edits:
        return HeldOut(families, 0, 0, 0, 0)
    prompts = [p for edit in edits for p in (edit.before, edit.after, edit.random or edit.before)]
    scores = score_prompts(model, behaviour, prompts, out=out, progress=progress)
    sides = (scores > behaviour.over).reshape(-1, 3)
    foretold = np.array([(edit.refuses_before, edit.refuses_after) for edit in edits])
    happened = (sides[:, :2] == foretold).all(1)
    has_random = np.array([edit.random is not None for edit in edits])
    random_happened = has_random & (sides[:, 2] != sides[:, 0])
    rows = scores.reshape(-1, 3)
    examples = tuple(
        (text_of(edit.before), text_of(edit.after), float(row[0]), float(row[1]))
        for edit, row in list(zip(edits, rows, strict=True))[:N_EXAMPLES]
    )
    return HeldOut(
        families,
        len(edits),
        int(happened.sum()),
        int(has_random.sum()),
        int(random_happened.sum()),
        examples,
    )


def _of_family(
    requests: Sequence[Request], family: str, seed: int
) -> tuple[list[Request], list[Request]]:
    """The harmful and the benign requests of a family."""
    members = drawn_members([r for r in requests if r.family == family], 2, seed)
    return members.get((family, True), []), members.get((family, False), [])


def _edits_of_family(
    explanation: Explanation, members: tuple[list[Request], list[Request]], number: int
) -> list[_Edit]:
    """One edit for each factor that matters, where the rule says that it flips the answer."""
    foretells, edits = RULES[explanation.rule], []
    for axis in range(3):
        cell = _where_it_flips(foretells, axis)
        if cell is None:
            continue
        made = _edit(explanation, members, axis, cell, number)
        if made is not None:
            before, after, random = made
            sides = [bool(foretells[at]) for at in (cell, _flipped(cell, axis))]
            edits.append(_Edit(before, after, random, *sides))
    return edits


Cell = tuple[int, int, int]


def _where_it_flips(foretells: np.ndarray, axis: int) -> Cell | None:
    """The cell with the fewest factors on where switching this one flips; harm is taken off."""
    off = 1 if axis == 0 else 0
    cells = sorted(np.ndindex(2, 2, 2), key=sum)
    for h, t, c in cells:
        cell = (h, t, c)
        if cell[axis] == off and foretells[cell] != foretells[_flipped(cell, axis)]:
            return cell
    return None


def _flipped(cell: Cell, axis: int) -> Cell:
    h, t, c = (1 - side if at == axis else side for at, side in enumerate(cell))
    return h, t, c


def _edit(
    explanation: Explanation,
    members: tuple[list[Request], list[Request]],
    axis: int,
    cell: Cell,
    number: int,
) -> tuple[Prompt, Prompt, Prompt | None] | None:
    """The prompt before, after, and after a random edit of the same size."""
    harmful, benign = members
    asked = harmful if cell[0] else benign
    other = benign if cell[0] else harmful
    if not asked or (axis == 0 and not other):
        return None

    def in_cell(request: Request, at: Cell) -> Prompt | None:
        return explanation.factors.as_asked(
            request, trigger=bool(at[1]), cue=bool(at[2]), number=number
        )

    before = in_cell(asked[0], cell)
    after = in_cell(other[0] if axis == 0 else asked[0], _flipped(cell, axis))
    if before is None or after is None:
        return None
    changed = replace(asked[0], prompt=before)
    random: Prompt | None = None
    if axis == 0 and len(asked) > 1:
        random = in_cell(asked[1], cell)
    elif axis == 1 and explanation.control_words:
        words = explanation.control_words[number % len(explanation.control_words)]
        random = changed.asking(with_words(changed.text, words, middle(changed.text)))
    elif axis == 2 and explanation.control_cue is not None:
        random = explanation.control_cue.on(changed)
    return before, after, random
