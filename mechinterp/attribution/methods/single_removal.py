"""Which input tokens drive each output token: remove one, measure how the output's score drops.

    A[output, input] = score(output | whole prompt) - score(output | prompt without input)

Positive: the input supports that output. It is a sweep of removals, and exact as a counterfactual;
what it cannot see is evidence that stands in for itself: of two trigger words, each enough, neither
matters alone. `joint_effect` and `residual` tell when that is so, and `attribute_pairs` who it is.

>>> from mechinterp import attribute, load_model
>>> scores = attribute(load_model("toy:trigger"), "please bring the sesame", outputs=1)
>>> str(scores.input_token[scores.isel(output=0).argmax("input")].values)
'sesame'
>>> abs(float(scores.residual[0])) < 0.01
True

Source: leave-one-out, or occlusion: Zeiler and Fergus 2014; Li et al. 2016, arXiv 1612.08220.
"""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
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
from mechinterp.attribution.scores import scored, sweep_cost
from mechinterp.core.metrics import Metric
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text
from mechinterp.stats.additivity import additivity_residual, shows_redundancy
from mechinterp.sweeps.options import Progress, check_options


class RedundancyWarning(UserWarning):
    """Inputs do much more together than each alone: evidence that stands in for itself."""


def attribute(
    model: Model,
    prompt: Text,
    outputs: int | str | Sequence[int] | Last = 5,
    removal: str | RemoveOne | Removal = "delete",
    metric: Metric | None = None,
    *,
    units: str | Spans = "token",
    inputs: str | Sequence[int] = "text",
    out: str | Path | None = None,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """The score of each input for each output, signed: dims `("output", "input")`.

    `prompt`, `outputs`, `metric`, `units` and `inputs`: as in `ask`. `removal`: a name of
    `REMOVALS`, a function from a position to specs, or a `Removal`. `out`: a folder for finished
    parts, as in `sweep`.

    NaN: not attributed. Exactly 0: an input that comes after the output. Coordinates: the tokens,
    their ids and roles, `output_score` (of the whole prompt), `bos_effect` (what removing the start
    token would do, as a control), `flip` (the model would say another token), `error` (the standard
    error over a removal's draws), `joint_effect` (of removing all that is attributed) and
    `residual`, 1 - sum / joint effect: 0 if the scores add up, near 1 if they miss what there is.
    `attrs` hold the cost; naive is one full pass for each input and output.

    Warns: `RedundancyWarning` if removing all does much more than the sum of each alone.

    Raises:
        ValueError: if there is not one prompt, nothing to remove, or the removal is unknown.
        HookError: if a removal cannot be done.
    """
    how = removal_of(model, removal)  # an unknown one shows before anything is generated
    question = ask(model, prompt, outputs, metric, units=units, inputs=inputs)
    return leave_one_out(question, how, out=out, budget_bytes=budget_bytes, progress=progress)


def leave_one_out(
    question: Question,
    removal: str | RemoveOne | Removal = "delete",
    **options: Unpack[DropOptions],
) -> xr.DataArray:
    """As `attribute`, of a question; `options`: those of `drops`.

    Raises:
        ValueError: as `attribute`.
        HookError: as `attribute`.
    """
    check_options("leave_one_out", options, DropOptions)
    scores = single_removals(question, removal, **options)
    if not question.metric.distance:
        _warn(question, scores.values[:, question.attributed], scores["joint_effect"].values)
    return scores


def single_removals(
    question: Question,
    removal: str | RemoveOne | Removal = "delete",
    **options: Unpack[DropOptions],
) -> xr.DataArray:
    """As `leave_one_out`, without a warning."""
    check_options("single_removals", options, DropOptions)
    began = time.perf_counter()
    how = removal_of(question.model, removal)
    wanted = question.attributed
    roles = [unit.role for unit in question.units]
    bos = [n for n, role in enumerate(roles) if role == "bos" and n not in wanted][:1]
    control = [
        number
        for number in bos
        if can_remove(question, [number], how) and not changes_nothing(question, [number], how)
    ]
    sets: list[tuple[int, ...]] = [(number,) for number in [*wanted, *control]]
    together = len(wanted) > 1 and can_remove(question, wanted, how)
    fallen = drops(question, [*sets, *([tuple(wanted)] if together else [])], how, **options)
    drop, n = fallen["drop"].values, len(wanted)
    nothing = np.full(len(question.metrics), np.nan)
    joint = drop[:, -1] if together else drop[:, 0] if n == 1 else nothing
    return scored(
        question,
        drop[:, :n],
        {"method": "leave-one-out", **sweep_cost(question, fallen, n, began)},
        bos_effect=drop[:, n] if control else nothing,
        flip=fallen["flip"].values[:, :n],
        error=fallen["error"].values[:, :n],
        joint_effect=joint,
        residual=additivity_residual(drop[:, :n], joint),
    )


def _warn(question: Question, single: np.ndarray, joint: np.ndarray) -> None:
    hidden = np.flatnonzero(shows_redundancy(single, joint, question.metric.unit))
    if len(hidden):
        i = int(hidden[0])
        warnings.warn(
            f"redundancy: removing all inputs together {'lowers' if joint[i] > 0 else 'raises'} "
            f"{question.output_texts[i]!r} by {abs(joint[i]):.2f} {question.metric.unit}, but one "
            f"at a time they make only "
            f"{np.abs(single[i]).sum():.2f}: something stands in for what is removed. "
            f"attribute_pairs finds what.",
            RedundancyWarning,
            stacklevel=4,
        )
