"""Which input tokens drive each output token: remove one, measure how the output's score falls.

    A[output, input] = score(output | whole prompt) - score(output | prompt without input)

Positive: the input supports that output. It is a sweep of removals, exact as a counterfactual, but
blind to redundancy: of two trigger words, either of them enough, neither matters alone.
`joint_effect` and `residual` show when that is so; `attribute_pairs` finds the inputs.

>>> from mechinterp import attribute, load_model
>>> scores = attribute(load_model("toy:trigger"), "please bring the sesame", outputs=1)
>>> str(scores.input_token[scores.isel(output=0).argmax("input")].values)
'sesame'
>>> abs(float(scores.residual[0])) < 0.01
True

Source: leave-one-out, or occlusion: Zeiler and Fergus 2014; Li et al. 2016, arXiv 1612.08220.
"""

import time
from collections.abc import Sequence
from typing import Unpack

import numpy as np
import xarray as xr

from mechinterp.attribution.question.definition import (
    DropOptions,
    Question,
    ask,
    can_remove,
    changes_nothing,
    drops,
)
from mechinterp.attribution.question.outputs import Last
from mechinterp.attribution.question.removals import Removal, RemoveOne, removal_of
from mechinterp.attribution.question.units import Spans
from mechinterp.attribution.scores import label_scores, sweep_cost
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.cautions import caution
from mechinterp.core.metrics import Metric
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text
from mechinterp.stats.additivity import additivity_residual, shows_redundancy
from mechinterp.sweeps.options import check_options


class RedundancyWarning(UserWarning):
    """Inputs do much more together than each alone: they are redundant."""


@checks_arguments
def attribute(
    model: Model,
    prompt: Text,
    outputs: int | str | Sequence[int] | Last = 5,
    removal: str | RemoveOne | Removal = "delete",
    metric: Metric | None = None,
    *,
    units: str | Spans = "token",
    inputs: str | Sequence[int] = "text",
    **options: Unpack[DropOptions],
) -> xr.DataArray:
    """The signed score of each input for each output: dims `("output", "input")`, metric's unit.

    `prompt`, `outputs`, `metric`, `units` and `inputs`: as in `ask`. `removal`: a name in
    `REMOVALS`, a function from a position to specs, or a `Removal`. `options`: `out`, a folder for
    finished parts as in `sweep`, `budget_bytes` and `progress`.

    NaN: not attributed. Exactly 0: an input after the output. Coordinates: the tokens, their ids
    and roles, `output_score` (of the whole prompt), `bos_effect` (of removing the start token, as a
    control), `flip` (the model's top token changes), `error` (the standard error over a removal's
    draws), `joint_effect` (of removing everything attributed) and `residual`, 1 - sum / joint
    effect: 0 if the scores add up, near 1 if they miss nearly all. `attrs` hold the cost; the naive
    one is a full pass for each input and output.

    Warns: `RedundancyWarning` if removing all inputs does much more than each alone, summed.

    Raises:
        ValueError: if there is more than one prompt, nothing to remove, or an unknown removal.
        HookError: if a removal cannot be done.
    """
    check_options("attribute", options, DropOptions)
    removal = removal_of(model, removal)  # fail before anything is generated
    question = ask(model, prompt, outputs, metric, units=units, inputs=inputs)
    return leave_one_out(question, removal, **options)


@checks_arguments
def leave_one_out(
    question: Question,
    removal: str | RemoveOne | Removal = "delete",
    **options: Unpack[DropOptions],
) -> xr.DataArray:
    """As `attribute`, for a question; `options`: those of `drops`.

    Raises:
        ValueError: as `attribute`.
        HookError: as `attribute`.
    """
    check_options("leave_one_out", options, DropOptions)
    scores = single_removals(question, removal, **options)
    if not question.metric.distance:
        _warn(question, scores.values[:, question.attributed], scores["joint_effect"].values)
    return scores


@checks_arguments
def single_removals(
    question: Question,
    removal: str | RemoveOne | Removal = "delete",
    **options: Unpack[DropOptions],
) -> xr.DataArray:
    """As `leave_one_out`, without the warning."""
    check_options("single_removals", options, DropOptions)
    began = time.perf_counter()
    removal = removal_of(question.model, removal)
    wanted = question.attributed
    roles = [unit.role for unit in question.units]
    bos = [n for n, role in enumerate(roles) if role == "bos" and n not in wanted][:1]
    control = [
        number
        for number in bos
        if can_remove(question, [number], removal)
        and not changes_nothing(question, [number], removal)
    ]
    sets: list[tuple[int, ...]] = [(number,) for number in [*wanted, *control]]
    together = len(wanted) > 1 and can_remove(question, wanted, removal)
    measured = drops(question, [*sets, *([tuple(wanted)] if together else [])], removal, **options)
    drop, n = measured["drop"].values, len(wanted)
    unknown = np.full(len(question.metrics), np.nan)
    joint = drop[:, -1] if together else drop[:, 0] if n == 1 else unknown
    return label_scores(
        question,
        drop[:, :n],
        {"method": "leave-one-out", **sweep_cost(question, measured, n, began)},
        bos_effect=drop[:, n] if control else unknown,
        flip=measured["flip"].values[:, :n],
        error=measured["error"].values[:, :n],
        joint_effect=joint,
        residual=additivity_residual(drop[:, :n], joint),
    )


def _warn(question: Question, single: np.ndarray, joint: np.ndarray) -> None:
    hidden = np.flatnonzero(shows_redundancy(single, joint, question.metric.unit))
    if len(hidden):
        i = int(hidden[0])
        caution(
            f"redundancy: removing all inputs together {'lowers' if joint[i] > 0 else 'raises'} "
            f"{question.output_texts[i]!r} by {abs(joint[i]):.2f} {question.metric.unit}, but "
            f"removing them one at a time only by {np.abs(single[i]).sum():.2f} in all: some "
            f"inputs stand in for others. attribute_pairs finds which.",
            RedundancyWarning,
        )
