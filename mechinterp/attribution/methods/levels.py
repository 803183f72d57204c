"""Long inputs level by level: sentences first, then the words of those that matter.

>>> from mechinterp import attribute_by_level, load_model
>>> model = load_model("toy:trigger")
>>> text = "please bring me the sesame and the map"
>>> halves = {"first": (1, 4), "second": (5, 8)}
>>> coarse, fine = attribute_by_level(model, text, 1, levels=(halves, "token"))
>>> coarse.input_name.values[~coarse.isnull()[0]].tolist()
['first', 'second']
>>> fine.input_token.values[~fine.isnull()[0]].tolist()
['sesame', 'and', 'the', 'map']

Units that are not refined have no scores (NaN) at the finer level. A coarse level is scored by
single and pair removals, so that redundant sentences are not passed over.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechinterp.attribution.methods.redundancy import pair_removals
from mechinterp.attribution.methods.single_removal import leave_one_out
from mechinterp.attribution.question.definition import Question, ask
from mechinterp.attribution.question.outputs import Last
from mechinterp.attribution.question.removals import Removal, RemoveOne, removal_of
from mechinterp.attribution.question.units import Spans, units_of
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text
from mechinterp.sweeps.options import PassOptions, check_options


@checks_arguments
def attribute_by_level(  # noqa: PLR0913 - options of each level
    model: Model,
    prompt: Text,
    outputs: int | str | Sequence[int] | Last = 5,
    removal: str | RemoveOne | Removal = "delete",
    metric: Metric | None = None,
    *,
    levels: Sequence[str | Spans] = ("sentence", "word"),
    inputs: str | Sequence[int] = "text",
    share: float = 0.9,
    most: int = 6,
    candidates: int = 6,
    **options: Unpack[PassOptions],
) -> tuple[xr.DataArray, ...]:
    """The scores at each level, coarse to fine, each as from `attribute`.

    Of each level, for each output, the fewest units that hold `share` of the absolute scores are
    refined, in all at most `most`, those with the largest scores. A finer unit that crosses the
    border of a refined one is included whole. `candidates`: how many units a coarse level tries in
    pairs. At a finer level the coordinate `parent` is the number of the unit of the level above,
    and `joint_effect` is that of all refined units. `options`: `budget_bytes` and `progress`.

    Raises:
        ValueError: as `attribute`; if there is no level, or `share` or `most` is out of range.
        HookError: as `attribute`.
    """
    if isinstance(levels, str) or not levels or not 0 < share <= 1 or most < 1:
        raise ValueError(
            f"levels={levels!r}, share={share}, most={most}: give a list of levels, a share above "
            f"0 and up to 1, and a most of 1 or more."
        )
    check_options("attribute_by_level", options, PassOptions)
    removal = removal_of(model, removal)
    question = ask(model, prompt, outputs, metric, units=levels[0], inputs=inputs)
    positions = question.positions(question.attributed)
    regrouped = [question, *(_regrouped(question, level, positions) for level in levels[1:])]
    sizes = [len(each.attributed) for each in regrouped]
    if sizes != sorted(sizes):
        raise ValueError(
            f"levels={levels!r} have {sizes} units. Order them from coarse to fine: none may have "
            f"fewer units than the one before."
        )
    found: list[xr.DataArray] = []
    for number in range(len(levels)):
        parents: dict[int, int] = {}
        if number:
            refined = units_to_refine(question, found[-1], share, most)
            parents = {pos: unit for unit in refined for pos in question.units[unit].positions}
            question = _within(regrouped[number], set(parents))
        if number == len(levels) - 1 or len(question.attributed) < 2:
            scores = leave_one_out(question, removal, **options)
        else:
            pairs = pair_removals(question, removal, candidates=candidates, **options)
            scores = pairs["score"].assign_attrs(groups=pairs.attrs["groups"])
        if number:
            owners = ([parents.get(pos, -1) for pos in unit.positions] for unit in question.units)
            parent = [next((at for at in each if at >= 0), -1) for each in owners]
            scores = scores.assign_coords(parent=("input", parent))
        found.append(scores)
    return tuple(found)


def units_to_refine(question: Question, scores: xr.DataArray, share: float, most: int) -> list[int]:
    """The units that hold `share` of the absolute scores of some output, at most `most` in all."""
    wanted = question.attributed
    size: Float[np.ndarray, "output attributed"] = np.abs(scores.values[:, wanted])
    total = np.maximum(size.sum(1, keepdims=True), 1e-12)
    relative = size / total
    chosen: set[int] = set()
    for row in relative:
        order = np.argsort(-row, kind="stable")
        enough = int(np.searchsorted(row[order].cumsum(), share - 1e-9)) + 1
        chosen.update(order[:enough].tolist())
    best = sorted(chosen, key=lambda at: -relative[:, at].max())[:most]
    return sorted(wanted[at] for at in best)


def _regrouped(question: Question, units: str | Spans, inputs: Sequence[int]) -> Question:
    n_shown = sum(len(unit.positions) for unit in question.units)
    made = units_of(question.model, question.sequence, units, inputs, shown=n_shown)
    return replace(question, units=made, kind=units if isinstance(units, str) else "span")


def _within(question: Question, positions: set[int]) -> Question:
    """The question restricted to the units with one of these positions."""
    units = tuple(
        replace(unit, attributed=unit.attributed and not positions.isdisjoint(unit.positions))
        for unit in question.units
    )
    return replace(question, units=units)
