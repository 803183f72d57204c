"""The straight path from a baseline to a prompt's embeddings: scores and gradients at points on it.

The integral of the gradients is a sum of trapezoids. The score at both ends of each interval is
known, so the error of each trapezoid's sum is too. On real models gradients change fast in places,
and more points are needed there:

>>> import torch
>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.integration_path import IntegrationPath
>>> question = ask(load_model("toy:trigger"), "please bring the sesame", outputs=1)
>>> path = IntegrationPath.from_question(question, torch.zeros(question.model.cfg.d_model))
>>> path.evaluate([0.0, 0.25, 0.5, 0.75, 1.0])
>>> path.trapezoid_errors()[:, 0].round(1).tolist()
[0.2, 0.3, -0.5, 0.1]
>>> path.midpoints_to_refine(most=1)
[0.375]
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechinterp.attribution.question.definition import Question
from mechinterp.core.metrics import Metric
from mechinterp.core.modes import gradients_on
from mechinterp.core.sites import HookError, Pos, Site
from mechinterp.core.specs import At, Specs, edit
from mechinterp.engine.arms import prepare_arm
from mechinterp.engine.gradients import plan_gradient_passes
from mechinterp.engine.passes import forward_with_graph
from mechinterp.engine.runner import Run
from mechinterp.sweeps.options import Progress

SUM_TOLERANCE = 0.05
"""Error of the sum that is accepted, as a share of the change of the score."""
POSITION_TOLERANCE = 0.02
"""Error of each position that is accepted, as a share of the absolute sum over positions."""
UNIT_TOLERANCE = 0.01
"""Error that is always accepted, in the metric's unit."""
_SAFETY = 4.0
"""How many times the estimate of an interval's error its bound is, at most."""
_NEGLIGIBLE = 0.01
"""An error of an interval that is a hundredth of what is accepted does not guide refinement."""
_ROUNDING_STEPS = 100
"""How many roundings of the model's dtype an integral may be off, relative to the sum of all."""

_EMBED = Site("embed")


@dataclass(frozen=True, eq=False)
class Point:
    """The scores at a point, and their gradients along each position's part of the path."""

    scores: Float[np.ndarray, " output"]
    gradients: Float[np.ndarray, "output pos"]


@dataclass(eq=False)
class IntegrationPath:
    """The straight path from a baseline (share 0) to the prompt's own embeddings (share 1).

    `moves`: the positions that change along the path. `at`: what the metrics read. `points`: those
    evaluated so far, by their share of the path.
    """

    question: Question
    baseline: Float[Tensor, " d_model"]
    moves: Bool[Tensor, "pos 1"]
    at: tuple[Pos, ...]
    budget_bytes: int | None
    progress: Progress | None
    steps: int
    points: dict[float, Point] = field(default_factory=dict)
    passes: int = 0

    @classmethod
    def from_question(
        cls,
        question: Question,
        baseline: Float[Tensor, " d_model"],
        budget_bytes: int | None = None,
        progress: Progress | None = None,
        steps: int = 1,
    ) -> "IntegrationPath":
        """The path on which the attributed positions move, and no others."""
        tokens = question.sequence.tokens
        moves = torch.zeros(tokens.shape[1], 1, dtype=torch.bool, device=tokens.device)
        moves[list(question.positions(question.attributed))] = True
        at = tuple(dict.fromkeys(pos for metric in question.metrics for pos in metric.at))
        return cls(question, baseline, moves, at, budget_bytes, progress, steps)

    def evaluate(self, shares: Sequence[float]) -> None:
        """Compute scores and gradients at shares of the path, as many at once as memory holds."""
        question = self.question
        read_most = replace(question.metrics[0], at=self.at, tokens=None)
        chunks = plan_gradient_passes(
            question.model,
            question.sequence,
            [_EMBED],
            read_most,
            len(shares),
            together=True,
            budget_bytes=self.budget_bytes,
        )
        for chunk in chunks:
            self._tick(len(self.points))
            self._evaluate_together([shares[number] for number in chunk.variants])
            self.passes += 1

    def finish(self) -> None:
        """Report to `progress` that nothing is left, though fewer steps than allowed were taken."""
        self._tick(self.steps)

    def trapezoid_errors(self) -> Float[np.ndarray, "interval output"]:
        """The trapezoid of each interval minus the change of the scores over it."""
        return np.stack(
            [
                self._trapezoid(a, b).sum(-1) - (self.points[b].scores - self.points[a].scores)
                for a, b in itertools.pairwise(sorted(self.points))
            ]
        )

    def integral(self) -> Float[np.ndarray, "output pos"]:
        """The sum of the trapezoids: each position's part of the change of the scores."""
        pairs = itertools.pairwise(sorted(self.points))
        return np.asarray(np.sum([self._trapezoid(a, b) for a, b in pairs], axis=0))

    def interval_errors(self) -> Float[np.ndarray, "interval output pos"]:
        """The size of each trapezoid's error, estimated from second differences of the gradients.

        Errors of positions may cancel in their sum, so `trapezoid_errors` alone does not show them.
        """
        shares = np.array(sorted(self.points))
        gradients = np.stack([self.points[share].gradients for share in shares])
        widths = np.diff(shares)[:, None, None]
        if len(shares) < 3:  # too few points for second differences
            return np.asarray(np.abs(widths * gradients.mean(0)))
        first = np.diff(gradients, axis=0) / widths
        # Half the second derivative at each inner point; the error is width³ / 12 times the whole.
        second = np.abs(np.diff(first, axis=0) / (widths[1:] + widths[:-1]))
        larger = np.maximum(np.r_[second[:1], second], np.r_[second, second[-1:]])  # of both ends
        return np.asarray(widths**3 / 6 * larger)

    def position_errors(self) -> Float[np.ndarray, "output pos"]:
        """The likely error of each position's integral: the root of summed squares over intervals.

        Where to refine goes by it. It is no bound.
        """
        return np.asarray(np.sqrt((self.interval_errors() ** 2).sum(0)))

    def position_bounds(self) -> Float[np.ndarray, "output pos"]:
        """What the error of each position's integral does not exceed, in nearly all cases.

        In each interval some times what second differences tell there and beside it, but no more
        than all of the trapezoid: half the step of the gradient times the width. At least what is
        known: of each interval the errors of all positions are no less than that of their sum. And
        what rounding leaves. How often it holds: scripts/proofs/integration_error.py.
        """
        shares = np.array(sorted(self.points))
        gradients = np.stack([self.points[share].gradients for share in shares])
        widths = np.diff(shares)[:, None, None]
        steps = widths / 2 * np.abs(np.diff(gradients, axis=0))
        bent = self.interval_errors()
        if len(shares) > 2:
            beside = np.pad(bent, ((1, 1), (0, 0), (0, 0)), mode="edge")
            around = np.max([beside[:-2], bent, beside[2:]], axis=0)
            bent = np.minimum(_SAFETY * around, steps)
        total = bent.sum(-1)
        known = np.abs(self.trapezoid_errors())
        short = known > total
        factor = np.where(short, known / np.where(total > 0, total, 1.0), 1.0)
        rounding = _ROUNDING_STEPS * torch.finfo(self.baseline.dtype).eps
        size = np.abs(self.integral()).sum(1, keepdims=True)
        return np.asarray((bent * factor[..., None]).sum(0) + rounding * size * self._does_move())

    def _does_move(self) -> Float[np.ndarray, " pos"]:
        return self.moves[:, 0].double().cpu().numpy()

    def tolerance(self) -> Float[np.ndarray, " output"]:
        """The accepted error of each output's sum."""
        change = self.points[1.0].scores - self.points[0.0].scores
        return np.asarray(np.maximum(SUM_TOLERANCE * np.abs(change), UNIT_TOLERANCE))

    def tolerance_by_position(self) -> Float[np.ndarray, "output 1"]:
        """The accepted error of each position."""
        size = np.abs(self.integral()).sum(1, keepdims=True)
        return np.asarray(np.maximum(POSITION_TOLERANCE * size, UNIT_TOLERANCE))

    def midpoints_to_refine(self, most: int) -> list[float]:
        """The midpoints of at most `most` intervals, those with the largest error first.

        None if the errors of all sums and positions are accepted.
        """
        of_sums = np.abs(self.trapezoid_errors()) / self.tolerance()
        if (of_sums.sum(0) <= 1).all() and (
            self.position_errors() <= self.tolerance_by_position()
        ).all():
            return []
        errors = self._errors_by_interval()
        order = np.argsort(-errors, kind="stable")[:most]
        return self._middles(order[errors[order] > 1])

    def next_midpoints(self, most: int) -> list[float]:
        """The midpoints of the `most` intervals with the largest error, though it be accepted.

        Where errors are a hundredth of what is accepted, the widest come first.
        """
        errors = self._errors_by_interval()
        errors[errors < _NEGLIGIBLE] = 0
        order = np.lexsort((-np.diff(sorted(self.points)), -errors))
        return self._middles(order[:most])

    def _errors_by_interval(self) -> Float[np.ndarray, " interval"]:
        """The error of each of the n intervals, relative to an equal share of what is accepted.

        That is 1 / n where errors add up, and 1 / sqrt(n) where their squares do.
        """
        of_sums = (np.abs(self.trapezoid_errors()) / self.tolerance()).max(1)
        of_positions = (self.interval_errors() / self.tolerance_by_position()).max((1, 2))
        n = len(of_sums)
        return np.asarray(np.maximum(of_sums * n, of_positions * n**0.5))

    def _middles(self, intervals: Int[np.ndarray, " chosen"]) -> list[float]:
        shares = np.array(sorted(self.points))
        middles: list[float] = ((shares[intervals] + shares[intervals + 1]) / 2).tolist()
        return middles

    def _trapezoid(self, a: float, b: float) -> Float[np.ndarray, "output pos"]:
        return np.asarray((b - a) / 2 * (self.points[a].gradients + self.points[b].gradients))

    def _tick(self, n_steps: int) -> None:
        if self.progress is not None:
            each = self.question.sequence.width * self.question.model.cfg.n_layers
            self.progress(n_steps * each, self.steps * each)

    def _evaluate_together(self, shares: Sequence[float]) -> None:
        """One forward pass, and a backward pass for each output."""
        question = self.question
        leaves: list[Tensor] = []
        displacements: list[Tensor] = []

        def moved(share: float) -> Specs:
            def move(value: Tensor, at: At) -> Tensor:
                own = value.detach()  # in a shared batch it depends on the rows before
                baseline = self.baseline.to(own).expand_as(own)
                displacements.append(torch.where(self.moves, own - baseline, 0.0))
                leaf = torch.where(self.moves, torch.lerp(baseline, own, share), own)
                leaves.append(leaf.requires_grad_())
                return leaf

            return edit(_EMBED, move, name="move along")

        arms = [prepare_arm(question.model, question.sequence, moved(share)) for share in shares]
        reading = torch.cat([arm.prompts.reading(self.at) for arm in arms])
        output = forward_with_graph(question.model, arms, reading)
        scores = np.zeros((len(shares), len(question.metrics)))
        gradients = np.zeros((*scores.shape, question.sequence.width))
        with gradients_on():
            runs = [
                Run(block, self.at, arm.activations, arm.prompts)
                for block, arm in zip(output.logits().chunk(len(arms)), arms, strict=True)
            ]
            for i, metric in enumerate(question.metrics):
                found = torch.stack([metric(run).reshape(()) for run in runs])
                is_last = i + 1 == len(question.metrics)
                scores[:, i] = found.detach().double().cpu().numpy()
                rows = _gradients(metric, found, leaves, keep_graph=not is_last)
                for row, gradient in enumerate(rows):  # 1 pos d_model
                    along = gradient.double() * displacements[row]
                    gradients[row, i] = along.sum((0, 2)).cpu().numpy()
        for share, score, gradient_there in zip(shares, scores, gradients, strict=True):
            if not (np.isfinite(gradient_there).all() and np.isfinite(score).all()):
                raise HookError(
                    f"{question.metric.name} or its gradient is not finite at {share:.3g} of the "
                    f"path from the baseline to the prompt. Try another baseline."
                )
            self.points[share] = Point(score, gradient_there)


def _gradients(
    metric: Metric,
    scores: Float[Tensor, " share"],
    leaves: Sequence[Tensor],
    *,
    keep_graph: bool,
) -> Sequence[Tensor]:
    """The gradient of each share's score with respect to its own embeddings."""
    if not scores.requires_grad:
        raise ValueError(
            f"metric {metric.name} has no gradient: it is a step function of the logits. "
            f"Use log_prob or centred_logit."
        )
    return torch.autograd.grad(scores.sum(), leaves, retain_graph=keep_graph)
