"""Gradients at the input embeddings: scores of all inputs from a few passes.

`gradient_x_input` uses the gradient at the prompt. `integrated_gradients` averages gradients on the
path from a baseline, so that its scores add up to the change of the score along it. Neither removes
anything, so of two triggers, either of them enough, both get a share:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.gradient import integrated_gradients
>>> question = ask(load_model("toy:trigger"), "the sesame and some sesame", outputs=1)
>>> scores = integrated_gradients(question)
>>> [round(float(score)) for score in scores[0, 1:]]
[0, 4, 0, 0, 4]

All outputs share a forward pass; each takes a backward pass of its own.
"""

import time

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.attribution.methods.integration_path import IntegrationPath
from mechinterp.attribution.methods.positions import sum_by_unit
from mechinterp.attribution.question.definition import Question
from mechinterp.attribution.scores import label_scores, run_cost
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.cautions import caution
from mechinterp.core.modes import takes_gradients
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Site
from mechinterp.core.specs import read
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.sweeps.options import Progress

BASELINES = ("mean", "zero")

_EMBED = Site("embed")
_MOST = 256
"""Gradients to take, unless `steps` says how many."""
_FIRST, _ROUND = 9, 8  # points to begin with, and added by a round of refinement at most


class CompletenessWarning(UserWarning):
    """Integrated gradients miss the integral: gradients change too fast for the steps taken."""


@checks_arguments
@takes_gradients
def gradient_x_input(question: Question, *, budget_bytes: int | None = None) -> xr.DataArray:
    """The gradient of each output's score at the embeddings, times the embedding, of each unit.

    In the metric's unit; positive: the input supports the output. A first-order estimate of what
    zero embeddings would take away, which may be far off. `attrs["token_layers"]` counts a backward
    pass, one for each output, as two forward ones.

    Raises:
        ValueError: if the metric has no gradient, or is a distance, whose gradient is 0 at the
            unchanged prompt.
        HookError: if a gradient is not finite, or one pass would not fit into memory.

    Source: Shrikumar et al. 2016, section 2, arXiv 1605.01713.
    """
    began = time.perf_counter()
    if question.metric.distance:
        raise ValueError(
            f"gradient_x_input: {question.metric.name} is least at the unchanged prompt, where its "
            f"gradient is 0. Use integrated_gradients, or another metric."
        )
    path = IntegrationPath.from_question(
        question, _baseline_embedding(question.model, "zero"), budget_bytes
    )
    path.evaluate([1.0])
    attrs = {"method": "gradient x input", **_cost(path, began)}
    return label_scores(question, sum_by_unit(question, path.points[1.0].gradients), attrs)


@checks_arguments
@takes_gradients
def integrated_gradients(
    question: Question,
    baseline: str | int = "mean",
    steps: int | None = None,
    *,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """Integral of the gradients on the path from a baseline to the prompt, of each unit.

    In the metric's unit; positive: the input supports the output. `baseline`: "mean", the mean of
    all token embeddings; "zero"; or a token id. Only attributed positions move. The integral is a
    sum of trapezoids. Intervals are halved where a trapezoid misses the known change of the score,
    or the gradients of an input bend. `steps`: how many gradients to take, exactly; by default as
    many as the path needs for the errors below, 9 to 256.

    Coordinates, of each output: `baseline_score`; `completeness_error`, the sum of all scores minus
    (`output_score` - `baseline_score`), with the opposite sign for a distance; and of each score
    `integration_error`, which bounds its error: in 95 of 100 questions all scores are within it of
    an integral in float64, often far within. `attrs["steps"]` are those taken, and
    `attrs["token_layers"]` counts a backward pass, one for each step and output, as two forward
    ones.

    Warns: `CompletenessWarning` if the sum is off by more than 5% of that change, or a score by
        more than 2% of the absolute sum of all.

    Raises:
        ValueError: if the baseline is unknown, `steps` is below 2, or the metric has no gradient.
        HookError: if a gradient is not finite, or one pass would not fit into memory.

    Source: Sundararajan et al. 2017, sections 3 and 5, arXiv 1703.01365, with a refined sum.
    """
    began = time.perf_counter()
    if steps is not None and steps < 2:
        raise ValueError(f"integrated_gradients: steps={steps}. Give 2 or more, for the two ends.")
    most = _MOST if steps is None else steps
    path = IntegrationPath.from_question(
        question, _baseline_embedding(question.model, baseline), budget_bytes, progress, most
    )
    path.evaluate(np.linspace(0, 1, min(_FIRST, most)).tolist())
    while middles := path.midpoints_to_refine(min(_ROUND, most - len(path.points))):
        path.evaluate(middles)
    while steps is not None and len(path.points) < steps:
        n_more = max(_ROUND, len(path.points) // 4)
        path.evaluate(path.next_midpoints(min(n_more, steps - len(path.points))))
    path.finish()
    sign = -1.0 if question.metric.distance else 1.0  # positive: a removal raises the distance
    error = sign * path.trapezoid_errors().sum(0)
    _warn(question, error, path)
    return label_scores(
        question,
        sum_by_unit(question, sign * path.integral()),
        {
            "method": "integrated gradients",
            "baseline": baseline,
            "steps": len(path.points),
            **_cost(path, began),
        },
        baseline_score=path.points[0.0].scores,
        completeness_error=error,
        integration_error=sum_by_unit(question, path.position_bounds()),
    )


def _baseline_embedding(model: Model, baseline: str | int) -> Float[Tensor, " d_model"]:
    """The embedding at which the path begins."""
    if baseline == "mean":
        return models.mean_embedding(model)
    device = models.device(model)
    if baseline == "zero":
        return torch.zeros(model.cfg.d_model, device=device)
    if isinstance(baseline, str) or not 0 <= baseline < model.cfg.d_vocab:
        raise ValueError(
            f"baseline={baseline!r} is unknown: {', '.join(BASELINES)}, or a token id below "
            f"{model.cfg.d_vocab}; token_id(model, text) finds one."
        )
    alone = Prompts.from_ids([[baseline]], device=device)
    return run(model, alone, read(_EMBED), logits_at=()).acts[_EMBED][0, 0]


def _cost(path: IntegrationPath, began: float) -> dict[str, object]:
    n_outputs = len(path.question.metrics)
    return run_cost(
        path.question, began, passes=path.passes, rows=len(path.points), backward=n_outputs
    )


def _warn(question: Question, error: Float[np.ndarray, " output"], path: IntegrationPath) -> None:
    each = path.position_errors()
    over = np.maximum(
        np.abs(error) / path.tolerance(), (each / path.tolerance_by_position()).max(1)
    )
    i = int(over.argmax())
    if over[i] > 1:
        change = path.points[1.0].scores[i] - path.points[0.0].scores[i]
        caution(
            f"integrated gradients of {question.output_texts[i]!r} miss the change of "
            f"{abs(change):.2f} {question.metric.unit} that they should add up to by "
            f"{abs(error[i]):.2f}, and single ones may be off by {each[i].max():.2f}: gradients "
            f"change fast on the path from the baseline. Raise steps={2 * path.steps}, or try "
            f"another baseline.",
            CompletenessWarning,
        )
