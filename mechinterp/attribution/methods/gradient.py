"""Gradients at the input embeddings: scores of all inputs from a few passes.

`gradient_x_input` takes the slope at the prompt for the whole way; `integrated_gradients` adds up
slopes along the way from a baseline, so that its scores add up to what the baseline changes.
Neither removes anything, so that of two triggers, each enough, both get a share:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.gradient import integrated_gradients
>>> question = ask(load_model("toy:trigger"), "the sesame and some sesame", outputs=1)
>>> scores = integrated_gradients(question)
>>> [round(float(score)) for score in scores[0, 1:]]
[0, 4, 0, 0, 4]

All outputs share a forward pass; each takes a backward pass of its own.
"""

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.attribution.methods.integration_path import Way
from mechinterp.attribution.methods.positions import of_units
from mechinterp.attribution.question.definition import Question
from mechinterp.attribution.scores import run_cost, scored
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Site
from mechinterp.core.specs import read
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.sweeps.options import Progress

BASELINES = ("mean", "zero")

_EMBED = Site("embed")
_FIRST, _ROUND = 9, 8  # steps to begin with, and what a round of refinement adds at most


class CompletenessWarning(UserWarning):
    """Integrated gradients are not the integral: the way is rougher than its steps."""


def gradient_x_input(question: Question, *, budget_bytes: int | None = None) -> xr.DataArray:
    """The gradient of each output's score at the embeddings, times the embedding, of each unit.

    In the metric's unit; positive: the input supports the output. A first-order guess of what zero
    embeddings would take away; the slope where nothing is removed may say little of it.
    `attrs["token_layers"]` counts a backward pass, one for each output, as two forward ones.

    Raises:
        ValueError: if the metric has no gradient, or measures a distance, which has none where
            nothing has moved yet.
        HookError: if a gradient is not finite, or one pass would not fit into memory.

    Source: Shrikumar et al. 2016, section 2, arXiv 1605.01713.
    """
    began = time.perf_counter()
    if question.metric.distance:
        raise ValueError(
            f"gradient_x_input: {question.metric.name} is least at the whole prompt, where its "
            f"gradient is 0. Use integrated_gradients, or another metric."
        )
    way = Way.of(question, _goal(question.model, "zero"), budget_bytes)
    way.visit([1.0])
    attrs = {"method": "gradient x input", **_cost(way, began)}
    return scored(question, of_units(question, way.visited[1.0].slopes), attrs)


def integrated_gradients(
    question: Question,
    baseline: str | int = "mean",
    steps: int = 256,
    *,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """Gradients along the straight way from a baseline to the prompt, times the way, of each unit.

    In the metric's unit; positive: the input supports the output. `baseline`: "mean", the mean of
    all token embeddings; "zero"; or a token id. Only what is attributed moves there. `steps`: how
    many gradients are taken at most. The sum is of trapezoids, halved where one misses the change
    of the score between its ends, which is known, or the slopes of an input bend; so it ends early
    where the way is smooth.

    Coordinates, of each output: `baseline_score`; `completeness_error`, the sum of all scores less
    (`output_score` - `baseline_score`), the other way round of a distance; and of each score
    `integration_error`, how far it may be off. In `attrs`, "steps" are those taken, and
    "token_layers" counts a backward pass, one for each step and output, as two forward ones.

    Warns: `CompletenessWarning` if the sum misses more than 5% of that change, or one score may be
        off by more than 2% of the sizes of all.

    Raises:
        ValueError: if the baseline is unknown, `steps` is below 2, or the metric has no gradient.
        HookError: if a gradient is not finite, or one pass would not fit into memory.

    Source: Sundararajan et al. 2017, sections 3 and 5, arXiv 1703.01365, with a refined sum.
    """
    began = time.perf_counter()
    if steps < 2:
        raise ValueError(f"integrated_gradients: steps={steps}. The two ends are steps: give 2.")
    way = Way.of(question, _goal(question.model, baseline), budget_bytes, progress, steps)
    way.visit(np.linspace(0, 1, min(_FIRST, steps)).tolist())
    while rough := way.rough(min(_ROUND, steps - len(way.visited))):
        way.visit(rough)
    way.finish()
    sign = -1.0 if question.metric.distance else 1.0  # positive is what a removal adds to it
    error = sign * way.misses().sum(0)
    _warn(question, error, way)
    return scored(
        question,
        of_units(question, sign * way.integral()),
        {
            "method": "integrated gradients",
            "baseline": baseline,
            "steps": len(way.visited),
            **_cost(way, began),
        },
        baseline_score=way.visited[0.0].scores,
        completeness_error=error,
        integration_error=of_units(question, way.uncertain()),
    )


def _goal(model: Model, baseline: str | int) -> Float[Tensor, " d_model"]:
    """The embedding at the far end."""
    if baseline == "mean":
        return models.mean_embedding(model)
    device = models.device(model)
    if baseline == "zero":
        return torch.zeros(model.cfg.d_model, device=device)
    if isinstance(baseline, str) or not 0 <= baseline < model.cfg.d_vocab:
        raise ValueError(
            f"baseline={baseline!r}: {', '.join(BASELINES)}, or a token id below "
            f"{model.cfg.d_vocab}; token_id(model, text) finds one."
        )
    alone = Prompts.from_ids([[baseline]], device=device)
    return run(model, alone, read(_EMBED), logits_at=()).acts[_EMBED][0, 0]


def _cost(way: Way, began: float) -> Mapping[str, Any]:
    n_outputs = len(way.question.metrics)
    return run_cost(
        way.question, began, passes=way.passes, rows=len(way.visited), backward=n_outputs
    )


def _warn(question: Question, error: Float[np.ndarray, " output"], way: Way) -> None:
    each = way.uncertain()
    over = np.maximum(np.abs(error) / way.allowed(), (each / way.allowed_each()).max(1))
    i = int(over.argmax())
    if over[i] > 1:
        change = way.visited[1.0].scores[i] - way.visited[0.0].scores[i]
        warnings.warn(
            f"integrated gradients of {question.output_texts[i]!r} miss the change of "
            f"{abs(change):.2f} {question.metric.unit} that they should add up to by "
            f"{abs(error[i]):.2f}, and single ones may be off by {each[i].max():.2f}: the way from "
            f"the baseline is rough. Raise steps={2 * way.steps}, or try another baseline.",
            CompletenessWarning,
            stacklevel=3,
        )
