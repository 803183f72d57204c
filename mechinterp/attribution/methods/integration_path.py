"""The straight way from a baseline to a prompt's embeddings: scores and slopes at shares of it.

What integrated gradients are made of. The score at both ends of an interval is known, and so is by
how much a trapezoid of slopes misses its change; on real models the way is rough in places, and
steps belong there:

>>> import torch
>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.integration_path import Way
>>> question = ask(load_model("toy:trigger"), "please bring the sesame", outputs=1)
>>> way = Way.of(question, torch.zeros(question.model.cfg.d_model), None)
>>> way.visit([0.0, 0.25, 0.5, 0.75, 1.0])
>>> way.misses()[:, 0].round(1).tolist()
[0.2, 0.3, -0.5, 0.1]
>>> way.rough(most=1)
[0.375]
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.attribution.question.definition import Question
from mechinterp.core.metrics import Metric
from mechinterp.core.sites import HookError, Site
from mechinterp.core.specs import At, Specs, edit
from mechinterp.engine.arms import prepare_arm
from mechinterp.engine.gradients import plan_gradient_passes
from mechinterp.engine.passes import forward_with_graph
from mechinterp.engine.runner import Run
from mechinterp.sweeps.options import Progress

INCOMPLETE, UNEVEN, UNNOTED = 0.05, 0.02, 0.01
"""What sums may miss: of the change; each input's, of all scores' sizes; in the metric's unit."""

_EMBED = Site("embed")


@dataclass(frozen=True, eq=False)
class Point:
    """A share of the way: the scores there, and how fast each position's way raises them."""

    scores: Float[np.ndarray, " output"]
    slopes: Float[np.ndarray, "output pos"]


@dataclass(eq=False)
class Way:
    """The straight way from a goal (share 0) to the prompt's own embeddings (share 1)."""

    question: Question
    goal: Float[Tensor, " d_model"]
    moving: Bool[Tensor, "pos 1"]
    at: tuple[Any, ...]
    budget_bytes: int | None
    progress: Progress | None
    steps: int
    visited: dict[float, Point] = field(default_factory=dict)
    passes: int = 0

    @classmethod
    def of(
        cls,
        question: Question,
        goal: Float[Tensor, " d_model"],
        budget_bytes: int | None,
        progress: Progress | None = None,
        steps: int = 1,
    ) -> "Way":
        """The way on which the attributed positions move, and no others."""
        tokens = question.sequence.tokens
        moving = torch.zeros(tokens.shape[1], 1, dtype=torch.bool, device=tokens.device)
        moving[list(question.positions(question.attributed))] = True
        at = tuple(dict.fromkeys(pos for metric in question.metrics for pos in metric.at))
        return cls(question, goal, moving, at, budget_bytes, progress, steps)

    def visit(self, shares: Sequence[float]) -> None:
        """Scores and slopes at some shares of the way, as many at once as memory holds."""
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
            self._tick(len(self.visited))
            self._visit_together([shares[number] for number in chunk.variants])
            self.passes += 1

    def finish(self) -> None:
        """Tell the progress that nothing is left, though fewer steps were taken than might be."""
        self._tick(self.steps)

    def misses(self) -> Float[np.ndarray, "interval output"]:
        """By how much the trapezoid of each interval misses the change of the scores over it."""
        return np.stack(
            [
                self._trapezoid(a, b).sum(-1) - (self.visited[b].scores - self.visited[a].scores)
                for a, b in itertools.pairwise(sorted(self.visited))
            ]
        )

    def integral(self) -> Float[np.ndarray, "output pos"]:
        """The sum of the trapezoids."""
        pairs = itertools.pairwise(sorted(self.visited))
        return np.asarray(np.sum([self._trapezoid(a, b) for a, b in pairs], axis=0))

    def errors(self) -> Float[np.ndarray, "interval output pos"]:
        """How far each trapezoid may be off, from how the slopes bend at its ends.

        What one position gains another may lose: their sum alone, `misses`, does not tell.
        """
        shares = np.array(sorted(self.visited))
        slopes = np.stack([self.visited[share].slopes for share in shares])
        widths = np.diff(shares)[:, None, None]
        if len(shares) < 3:  # nothing tells how they bend
            return np.asarray(np.abs(widths * slopes.mean(0)))
        rises = np.diff(slopes, axis=0) / widths
        bends = np.abs(np.diff(rises, axis=0) / (widths[1:] + widths[:-1]))
        either = np.maximum(np.r_[bends[:1], bends], np.r_[bends, bends[-1:]])
        return np.asarray(widths**3 / 6 * either)

    def uncertain(self) -> Float[np.ndarray, "output pos"]:
        """How far each position's share may be off: errors of intervals have either sign."""
        return np.asarray(np.sqrt((self.errors() ** 2).sum(0)))

    def allowed(self) -> Float[np.ndarray, " output"]:
        """What each output's sum may miss."""
        change = self.visited[1.0].scores - self.visited[0.0].scores
        return np.asarray(np.maximum(INCOMPLETE * np.abs(change), UNNOTED))

    def allowed_each(self) -> Float[np.ndarray, "output 1"]:
        """What each position's share may be off."""
        size = np.abs(self.integral()).sum(1, keepdims=True)
        return np.asarray(np.maximum(UNEVEN * size, UNNOTED))

    def rough(self, most: int) -> list[float]:
        """The middles of intervals that miss too much, worst first; none if all in all is well."""
        misses = np.abs(self.misses()) / self.allowed()
        if (misses.sum(0) <= 1).all() and (self.uncertain() <= self.allowed_each()).all():
            return []
        middles = [(a + b) / 2 for a, b in itertools.pairwise(sorted(self.visited))]
        errors = (self.errors() / self.allowed_each()).max((1, 2))
        # Beside what each would have if all had the same: of sums, and of sums of squares.
        worst = np.maximum(misses.max(1) * len(middles), errors * len(middles) ** 0.5)
        order = np.argsort(-worst, kind="stable")[:most]
        return [middles[i] for i in order if worst[i] > 1]

    def _trapezoid(self, a: float, b: float) -> Float[np.ndarray, "output pos"]:
        return np.asarray((b - a) / 2 * (self.visited[a].slopes + self.visited[b].slopes))

    def _tick(self, n_steps: int) -> None:
        if self.progress is not None:
            each = self.question.sequence.width * self.question.model.cfg.n_layers
            self.progress(n_steps * each, self.steps * each)

    def _visit_together(self, shares: Sequence[float]) -> None:
        """One forward pass, and a backward pass for each output."""
        question = self.question
        leaves: list[Tensor] = []
        ways: list[Tensor] = []

        def moved(share: float) -> Specs:
            def move(value: Tensor, at: At) -> Tensor:
                own = value.detach()  # in a shared batch it hangs on the rows before
                goal = self.goal.to(own).expand_as(own)
                ways.append(torch.where(self.moving, own - goal, 0.0))
                leaf = torch.where(self.moving, torch.lerp(goal, own, share), own)
                leaves.append(leaf.requires_grad_())
                return leaf

            return edit(_EMBED, move, name="move along")

        arms = [prepare_arm(question.model, question.sequence, moved(share)) for share in shares]
        reading = torch.cat([arm.prompts.reading(self.at) for arm in arms])
        output = forward_with_graph(question.model, arms, reading)
        scores = np.zeros((len(shares), len(question.metrics)))
        slopes = np.zeros((*scores.shape, question.sequence.width))
        with torch.enable_grad():
            runs = [
                Run(block, self.at, arm.activations, arm.prompts)
                for block, arm in zip(output.logits().chunk(len(arms)), arms, strict=True)
            ]
            for i, metric in enumerate(question.metrics):
                found = torch.stack([metric(run).reshape(()) for run in runs])
                last = i + 1 == len(question.metrics)
                scores[:, i] = found.detach().double().cpu().numpy()
                for row, slope in enumerate(_gradients(metric, found, leaves, last)):
                    slopes[row, i] = (slope.double() * ways[row]).sum((0, 2)).cpu().numpy()
        for share, score, slopes_there in zip(shares, scores, slopes, strict=True):
            if not (np.isfinite(slopes_there).all() and np.isfinite(score).all()):
                raise HookError(
                    f"{question.metric.name} or its gradient is not finite at {share:.3g} of the "
                    f"way from the baseline to the prompt."
                )
            self.visited[share] = Point(score, slopes_there)


def _gradients(
    metric: Metric, scores: Float[Tensor, " share"], leaves: Sequence[Tensor], last: bool
) -> Sequence[Tensor]:
    """Of each share's score, by its own embeddings; the graph stays until the last metric."""
    if not scores.requires_grad:
        raise ValueError(
            f"metric {metric.name} has no gradient: a choice among logits is a step. "
            f"Use log_prob or centred_logit."
        )
    return torch.autograd.grad(scores.sum(), leaves, retain_graph=not last)
