"""Edge attribution patching: first-order scores of all edges in a few passes.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, eap, eap_ig
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> sorted(name for name, score in eap(contrast).strongest(3))
['a1.h0->logits', 'input->a1.h0<k>', 'input->a1.h0<v>']
>>> found = eap_ig(contrast, steps=None)
>>> found.per_pair.attrs["steps"], found.per_pair.attrs["residual_share"] < 0.01
(10, True)

An edge's score is the change of what its writer writes, times the gradient of the metric at what
its reader reads, through the reader's own norm. It is summed over tokens and kept by pair;
positive, as in `exact_edges`, where the edge supports the metric.
"""

import time
from collections.abc import Sequence
from functools import reduce
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.circuits.circuit import EdgeScores
from mechinterp.circuits.contrast import Contrast, Resid
from mechinterp.circuits.scores.edge_gradients import EdgeValues, edge_scores, trace_run
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import takes_gradients
from mechinterp.sweeps.axes import check_choice

PartScores = Float[np.ndarray, "*part pair"]
"""Scores of edges, nodes or neurons; the first entry scores the input."""


@runtime_checkable
class Scorer(Protocol):
    """Scores parts of the model by runs that start at `starts`.

    The rows of `starts` are points, each with all pairs; the scores of the points are summed, each
    times its share.
    """

    def __call__(
        self, contrast: Contrast, starts: Resid, shares: Float[Tensor, " point"], /
    ) -> PartScores:
        """The scores of every part, by pair."""
        ...


_OFFSETS = {"left": 1.0, "midpoint": 0.5, "right": 0.0}
"""How far a point lies towards the replaced embedding, in steps."""

_CONVERGED = 0.01
"""The residual, as a share of the whole effect, at which adaptive steps stop."""

_MOST_STEPS = 320


@checks_arguments
@takes_gradients
def eap(contrast: Contrast) -> EdgeScores:
    """Edge attribution patching: the change times the gradient of the base run.

    It is wrong where the metric curves between the runs. `attrs["residual"]` measures that: the
    scores of the edges out of the embedding should add up to the whole difference between the runs,
    and miss it by so much, in the metric's unit.

    Raises:
        ValueError: if the metric has no gradient.

    Source: Syed et al. 2023, arXiv 2310.10348.
    """
    began = time.perf_counter()
    scores, attrs = score_at_base(contrast, score_edges)
    seconds = time.perf_counter() - began
    return EdgeScores.from_array(contrast.graph, scores, **attrs, seconds=seconds)


@checks_arguments
@takes_gradients
def eap_ig(contrast: Contrast, steps: int | None = 5, *, rule: str = "right") -> EdgeScores:
    """EAP with integrated gradients: the mean gradient on the path from one run to the other.

    The embedding takes `steps` values between its replacement (0) and the base run's (1).
    `rule="right"`: 1/m, 2/m ... 1, as in the paper; "left": 0 ... (m - 1)/m, as in its code for
    edges; "midpoint". No rule of five points is best everywhere. `attrs["residual"]`: by how much
    the edges out of the embedding miss the difference between the runs, which they should add up
    to, in the metric's unit. `steps=None`: the trapezoid rule, doubled until the residual is under
    1% of the difference, or 320 steps.

    Raises:
        ValueError: if the metric has no gradient, `steps` is not positive, or edges are replaced
            by something else than the other run, so that there is nothing to interpolate towards.

    Source: Hanna et al. 2024, section 3, arXiv 2403.17806.
    """
    began = time.perf_counter()
    scores, attrs = score_along_path(contrast, score_edges, steps, rule)
    seconds = time.perf_counter() - began
    return EdgeScores.from_array(contrast.graph, scores, **attrs, seconds=seconds)


def score_edges(contrast: Contrast, starts: Resid, shares: Float[Tensor, " point"]) -> EdgeValues:
    """Scores of all edges by runs that start at `starts`: a `Scorer`."""
    run = trace_run(contrast, starts)
    return edge_scores(contrast, run.total, run.reads, shares)


def score_at_base(
    contrast: Contrast, score: Scorer, method: str = "EAP"
) -> tuple[PartScores, dict[str, object]]:
    """Scores by the gradients of the base run, and their attributes."""
    scores = _mean_over_points(contrast, score, [0.0])
    return scores, _attrs_of(contrast, method, scores, 1)


def score_along_path(
    contrast: Contrast, score: Scorer, steps: int | None, rule: str
) -> tuple[PartScores, dict[str, object]]:
    """The mean of scores over points between the runs, as `eap_ig`, and their attributes.

    Raises:
        ValueError: as `eap_ig`.
    """
    _check_path(contrast, steps, rule)
    if steps is not None:
        scores = _mean_over_points(contrast, score, path_points(steps, rule))
        return scores, _attrs_of(contrast, f"EAP-IG, {rule} points", scores, steps)
    # The trapezoid rule: doubling the steps needs only the points halfway between those at hand.
    steps, ends = 5, [0.5, 1.0, 1.0, 1.0, 1.0, 0.5]
    scores = _mean_over_points(contrast, score, [i / 5 for i in range(6)], ends)
    while _residual_share(contrast, scores) > _CONVERGED and steps < _MOST_STEPS:
        halfway = [(step + 0.5) / steps for step in range(steps)]
        scores = (scores + _mean_over_points(contrast, score, halfway)) / 2
        steps = 2 * steps
    return scores, _attrs_of(contrast, "EAP-IG, adaptive", scores, steps)


def _attrs_of(contrast: Contrast, method: str, scores: PartScores, steps: int) -> dict[str, object]:
    attrs: dict[str, object] = {"method": method, "steps": steps, **contrast.describe()}
    if contrast.is_patched:
        missed = _input_scores(scores) - contrast.embedding_effect
        attrs["residual"] = float(missed.mean())
        attrs["residual_share"] = _residual_share(contrast, scores)
    return attrs


def _check_path(contrast: Contrast, steps: int | None, rule: str) -> None:
    if not contrast.is_patched:
        raise ValueError(
            f"edges are replaced by {contrast.ablate}: eap_ig needs a second run to interpolate "
            f"towards. Use eap_ig_activations, or runs made without ablate=."
        )
    check_points(steps, rule)


def check_points(steps: int | None, rule: str) -> None:
    """Check that the rule is known and the number of steps is positive or None.

    Raises:
        ValueError: if not.
    """
    check_choice("rule", rule, tuple(_OFFSETS))
    if steps is not None and steps < 1:
        raise ValueError(f"steps={steps}: give at least one, or None for as many as it takes.")


def path_points(steps: int, rule: str) -> list[float]:
    """How far each point lies from the base run (0) towards the replacement (1)."""
    return [(step + _OFFSETS[rule]) / steps for step in range(steps)]


def _residual_share(contrast: Contrast, scores: PartScores) -> float:
    """What the edges out of the embedding miss of the difference, as a share of its mean."""
    whole = contrast.embedding_effect
    missed = _input_scores(scores) - whole
    return float(abs(missed.mean()) / max(abs(whole.mean()), 1e-12))


def _input_scores(scores: PartScores) -> Float[np.ndarray, " pair"]:
    found: Float[np.ndarray, " pair"] = scores[0].reshape(-1, scores.shape[-1]).sum(0)
    return found


def _mean_over_points(
    contrast: Contrast,
    score: Scorer,
    points: Sequence[float],
    weights: Sequence[float] | None = None,
) -> PartScores:
    """The mean, or weighted mean, of the scores at points between the two runs."""
    weights = [1.0] * len(points) if weights is None else weights
    size = contrast.most_arms

    def scores_of(some: slice) -> PartScores:
        at = torch.tensor(points[some]).to(contrast.change)[:, None, None, None]
        shares = torch.tensor(weights[some]).to(contrast.change) / sum(weights)
        starts = (contrast.resid[0] + at * contrast.change[0]).flatten(0, 1)
        return score(contrast, starts.detach().requires_grad_(), shares)

    batches = (slice(begin, begin + size) for begin in range(0, len(points), size))
    total: PartScores = reduce(np.add, map(scores_of, batches))
    return total
