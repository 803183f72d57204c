"""Learned edge masks: which `n` edges together keep the behaviour.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, eap_ig, learned_mask, top_n
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> scores = learned_mask(contrast, eap_ig(contrast), 3, steps=20)
>>> top_n(scores, 3, rank="signed").names
('input->a1.h0<k>', 'input->a1.h0<v>', 'a1.h0->logits')

Scores rank edges one by one. Here all edges are judged together: each has a gate, trained by the
gradient of the distance between the circuit's metric and the model's own, while about `n` gates
stay open.
"""

import time

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.evaluation.faithfulness import check_circuits, evaluate, run_without
from mechinterp.circuits.selection import Rank, rank_keys
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import takes_gradients
from mechinterp.engine.scoring import score_tensor
from mechinterp.sweeps.options import Progress

_TEMPERATURE = 2 / 3
"""Of the hard concrete distribution (Louizos et al.)."""
_LOW, _HIGH = -0.1, 1.1
"""A gate is stretched to this range and then clipped to 0 and 1 (Louizos et al.)."""
_RANK_SPREAD = 3.0
"""How far apart two gates begin whose ranks differ by a factor of e, in log odds."""


@checks_arguments
@takes_gradients
def learned_mask(
    contrast: Contrast,
    start: EdgeScores,
    n: int,
    *,
    steps: int = 100,
    rate: float = 0.3,
    rank: Rank = "size",
    seed: int = 0,
    progress: Progress | None = None,
) -> EdgeScores:
    """Log odds that an edge is one of the best `n`, learned by gradient descent from given scores.

    `top_n(learned, n, rank="signed")` is the circuit. Gates are hard concrete: random, and exactly
    0 or 1 for most edges; the gate of the n-th best edge is open half of the time. The loss is the
    mean distance, over pairs, between the metric of the circuit and the model's own, as a share of
    the effect of cutting all edges. `attrs["losses"]` has one for each step; they should fall: if
    not, give more steps or a smaller `rate`. With few pairs the result may hold for these alone:
    evaluate it on others.

    Raises:
        ValueError: if the metric has no gradient, or as `top_n` and `evaluate`.

    Source: Louizos et al. 2018, section 2.2, arXiv 1712.01312 (hard concrete); Bhaskar et al. 2024,
    arXiv 2406.16778 (edge pruning).
    """
    began = time.perf_counter()
    check_circuits(contrast, [Circuit.empty(start.graph)])
    scored = torch.from_numpy(np.isfinite(start.mean))
    keys = torch.from_numpy(rank_keys(start, rank, n))[scored]
    odds = _initial_odds(keys).to(contrast.change).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam([odds], lr=rate)
    (empty,) = evaluate(contrast, [Circuit.empty(start.graph)])
    target = torch.from_numpy(contrast.base_scores).to(contrast.change)
    whole_effect = max(abs(float((contrast.base_scores - empty).mean())), 1e-12)
    losses = []
    for step in range(steps):
        # Edges without a score stay cut.
        cut = torch.zeros(1, *scored.shape).to(contrast.change)
        cut[:, torch.from_numpy(start.graph.edges)] = 1.0
        cut[:, scored] = 1.0 - _sample_gates(odds, n, generator)
        output, at, n_arms = contrast.output(run_without(contrast, cut))
        metric = score_tensor(contrast.metric, output, at, n_arms)[0]  # [pair]
        loss = (metric - target).abs().mean() / whole_effect
        (odds.grad,) = torch.autograd.grad(loss, odds)
        adam.step()
        losses.append(float(loss.detach()))
        if progress is not None:
            progress(step + 1, steps)
    values = np.full((*start.graph.edges.shape, 1), np.nan)
    values[scored.numpy(), 0] = odds.detach().double().cpu().numpy()
    attrs = {**contrast.describe(), "unit": "log odds", "losses": losses, "n": n, "steps": steps}
    seconds = time.perf_counter() - began
    return EdgeScores.from_array(
        start.graph, values, method="learned mask", seconds=seconds, **attrs
    )


def _initial_odds(keys: Float[Tensor, " edge"]) -> Float[Tensor, " edge"]:
    """The log odds to begin with: they fall by `_RANK_SPREAD` for each factor of e in rank."""
    ranks = torch.empty(len(keys))
    ranks[keys.argsort(descending=True, stable=True)] = torch.arange(1.0, len(keys) + 1)
    return _RANK_SPREAD * (len(keys) / ranks).log()


def _sample_gates(
    odds: Float[Tensor, " edge"], n: int, generator: torch.Generator
) -> Float[Tensor, " edge"]:
    """Draw a gate for each edge, 0 to 1, with the median of the n-th best in the middle."""
    ordered = odds.detach().sort(descending=True).values
    threshold = ordered[min(n, len(ordered) - 1)]
    # Hard concrete: the sigmoid of the log odds plus logistic noise, stretched and clipped. The
    # odds are shifted so that about `n` gates are open, whatever the mean of the odds.
    drawn = torch.rand(len(odds), generator=generator).clamp(1e-6, 1 - 1e-6).to(odds)
    noise = drawn.log() - (-drawn).log1p()
    open_ = torch.sigmoid((noise + odds - threshold) / _TEMPERATURE)
    return (open_ * (_HIGH - _LOW) + _LOW).clamp(0, 1)
