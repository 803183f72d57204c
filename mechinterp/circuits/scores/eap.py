"""Edge scores from gradients: all edges for a few passes, to first order.

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

An edge's score is what its writer changes, times the gradient of the metric at what its reader
reads, through the reader's own norm; positive, as in `exact_edges`, where the edge supports the
metric. It is the sum over positions, and the mean over pairs: divided by their number once.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.circuits.circuit import EdgeScores
from mechinterp.circuits.contrast import Contrast, Resid
from mechinterp.circuits.scores.edge_gradients import Scores, edge_scores, traced
from mechinterp.sweeps.axes import check_choice

Scored = Callable[[Contrast, Resid, Float[Tensor, " point"]], Any]
"""Scores by runs that start so, points as rows, each with its share, added up: an array.

Its first entry is what the input scores, its last axis are the pairs.
"""

_OFFSETS = {"left": 1.0, "midpoint": 0.5, "right": 0.0}
"""How far a point is towards what replaces the embedding, in steps."""

_SETTLED = 0.01
"""The completeness residual, as a share of the whole difference, at which adaptive steps end."""

_MOST_STEPS = 320


def eap(contrast: Contrast) -> EdgeScores:
    """Edge attribution patching: the change times the gradient of the unchanged run.

    It errs where the metric is curved between the runs: compare `attrs["residual"]`, what the edges
    out of the embedding miss of the whole difference, which they carry all together.

    Raises:
        ValueError: if the metric has no gradient.

    Source: Syed et al. 2023, arXiv 2310.10348.
    """
    began = time.perf_counter()
    scores, attrs = unchanged(contrast, scored_edges)
    return EdgeScores.from_array(
        contrast.graph, scores, **attrs, seconds=time.perf_counter() - began
    )


def eap_ig(contrast: Contrast, steps: int | None = 5, *, rule: str = "right") -> EdgeScores:
    """EAP with integrated gradients: the mean gradient on the way from one run to the other.

    The embedding stands at `steps` points between what replaces it (0) and the unchanged run's (1):
    `rule="right"`: 1/m, 2/m ... 1, as in the paper; "left": 0 ... (m - 1)/m, as in its code for
    edges; "midpoint". No rule of five points is best everywhere: `attrs["residual"]` is what the
    edges out of the embedding, which carry the whole difference between the runs, miss of it, in
    the metric's unit. `steps=None`: the trapezoid rule, doubled until the residual is under 1% of
    the difference, or 320 steps.

    Raises:
        ValueError: if the metric has no gradient, `steps` is not positive, or edges are replaced
            by something else than the other run, to which there is no way.

    Source: Hanna et al. 2024, section 3, arXiv 2403.17806.
    """
    began = time.perf_counter()
    scores, attrs = integrated(contrast, scored_edges, steps, rule)
    return EdgeScores.from_array(
        contrast.graph, scores, **attrs, seconds=time.perf_counter() - began
    )


def scored_edges(contrast: Contrast, starts: Resid, shares: Float[Tensor, " point"]) -> Scores:
    """Scores of all edges by runs that start so, points as rows, each with its share, added up."""
    run = traced(contrast, starts)
    return edge_scores(contrast, run.total, run.reads, shares)


def unchanged(
    contrast: Contrast, scored: Scored, method: str = "EAP"
) -> tuple[Any, dict[str, object]]:
    """Scores by the gradients of the unchanged run, and how they were made."""
    scores = _on_way(contrast, scored, [0.0])
    return scores, _as_made(contrast, method, scores, 1)


def integrated(
    contrast: Contrast, scored: Scored, steps: int | None, rule: str
) -> tuple[Any, dict[str, object]]:
    """Their mean over points between the runs, as `eap_ig`, and how they were made.

    Raises:
        ValueError: as `eap_ig`.
    """
    _check_way(contrast, steps, rule)
    if steps is not None:
        scores = _on_way(contrast, scored, points(steps, rule))
        return scores, _as_made(contrast, f"EAP-IG, {rule} points", scores, steps)
    steps, ends = 5, [0.5, 1.0, 1.0, 1.0, 1.0, 0.5]
    scores = _on_way(contrast, scored, [i / 5 for i in range(6)], ends)
    while _residual_share(contrast, scores) > _SETTLED and steps < _MOST_STEPS:
        between_them = _on_way(contrast, scored, [(step + 0.5) / steps for step in range(steps)])
        steps, scores = 2 * steps, (scores + between_them) / 2
    return scores, _as_made(contrast, "EAP-IG, adaptive", scores, steps)


def _as_made(contrast: Contrast, method: str, scores: Any, steps: int) -> dict[str, object]:
    attrs: dict[str, object] = {"method": method, "steps": steps, **contrast.as_read()}
    if contrast.is_patched:
        missed = _of_input(scores) - contrast.embedding_effect
        attrs["residual"] = float(missed.mean())
        attrs["residual_share"] = _residual_share(contrast, scores)
    return attrs


def _check_way(contrast: Contrast, steps: int | None, rule: str) -> None:
    if not contrast.is_patched:
        raise ValueError(
            f"edges are replaced by {contrast.ablate}: eap_ig needs a second run to interpolate "
            f"towards. Use eap_ig_activations, or runs made without ablate=."
        )
    check_points(steps, rule)


def check_points(steps: int | None, rule: str) -> None:
    """Nothing, if there are such points.

    Raises:
        ValueError: if there are none, or the rule is none of those known.
    """
    check_choice("rule", rule, tuple(_OFFSETS))
    if steps is not None and steps < 1:
        raise ValueError(f"steps={steps}: at least one, or None for as many as it takes.")


def points(steps: int, rule: str) -> list[float]:
    """How far each point is from the unchanged run (0) towards what replaces it (1)."""
    return [(step + _OFFSETS[rule]) / steps for step in range(steps)]


def _residual_share(contrast: Contrast, scores: Any) -> float:
    """What the edges out of the embedding miss of the difference, as a share of its mean."""
    whole = contrast.embedding_effect
    missed = _of_input(scores) - whole
    return float(abs(missed.mean()) / max(abs(whole.mean()), 1e-12))


def _of_input(scores: Any) -> Float[np.ndarray, " pair"]:
    found: Float[np.ndarray, " pair"] = scores[0].reshape(-1, scores.shape[-1]).sum(0)
    return found


def _on_way(
    contrast: Contrast,
    scored: Scored,
    points: Sequence[float],
    weights: Sequence[float] | None = None,
) -> Any:
    """The mean, or weighted mean, of the scores at points between the two runs."""
    weights = [1.0] * len(points) if weights is None else weights
    found: Any = 0
    size = contrast.most_arms
    for begin in range(0, len(points), size):
        some = slice(begin, begin + size)
        at = torch.tensor(points[some]).to(contrast.change)[:, None, None, None]
        share = torch.tensor(weights[some]).to(contrast.change) / sum(weights)
        starts = (contrast.resid[0] + at * contrast.change[0]).flatten(0, 1)
        found = found + scored(contrast, starts.detach().requires_grad_(), share)
    return found
