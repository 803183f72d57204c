"""Edge masks that are learned: which `n` edges together keep what the model does.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, eap_ig, learned_mask, top_n
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> scores = learned_mask(contrast, eap_ig(contrast), 3, steps=20)
>>> top_n(scores, 3, rank="signed").names
('input->a1.h0<k>', 'input->a1.h0<v>', 'a1.h0->logits')

Scores rank edges one by one; here they are judged together, each gate by the gradient of how far
the metric of the circuit is from the model's own, while the number of edges stays near `n`.
"""

import time

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.evaluation.faithfulness import check_runs, evaluate, run_without
from mechinterp.circuits.selection import Rank, rank_keys
from mechinterp.engine.scoring import score_tensor
from mechinterp.sweeps.options import Progress

_TEMPERATURE = 2 / 3
_LOW, _HIGH = -0.1, 1.1
"""The range to which a gate is stretched before it is cut off at 0 and 1 (Louizos et al.)."""
_SLOPE = 3.0
"""How far apart the gates of two edges begin whose ranks differ by a factor of e, in log odds."""


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
    """Log odds of each edge to be one of the best `n`, learned from scores to begin with.

    `top_n(learned, n, rank="signed")` is the circuit. Gates are hard concrete: random, and exactly
    0 or 1 for most edges; those of the n best so far are as likely open as not. The loss is the
    difference between the metric of the circuit and the model's own, as a share of that between the
    full and the empty circuit, by pair; `attrs["losses"]` are those of each step, over which they
    have to fall: if not, give more steps or a smaller `rate`. What is learned on few pairs may hold
    for these alone: evaluate it on others.

    Raises:
        ValueError: if the metric has no gradient, or as `top_n` and `evaluate`.

    Source: Louizos et al. 2018, section 2.2, arXiv 1712.01312 (hard concrete); Bhaskar et al. 2024,
    arXiv 2406.16778 (edge pruning).
    """
    began = time.perf_counter()
    check_runs(contrast, [Circuit.empty(start.graph)])
    there = torch.from_numpy(np.isfinite(start.mean))
    keys = torch.from_numpy(rank_keys(start, rank, n))[there]
    odds = _begun(keys).to(contrast.change).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam([odds], lr=rate)
    (empty,) = evaluate(contrast, [Circuit.empty(start.graph)])
    target = torch.from_numpy(contrast.base_scores).to(contrast.change)
    whole = max(abs(float((contrast.base_scores - empty).mean())), 1e-12)
    losses = []
    for step in range(steps):
        cut = torch.zeros(1, *there.shape).to(contrast.change)
        cut[:, torch.from_numpy(start.graph.edges)] = 1.0
        cut[:, there] = 1.0 - _gates(odds, n, generator)
        output, at, n_arms = contrast.output(run_without(contrast, cut))
        found = score_tensor(contrast.metric, output, at, n_arms)[0]
        loss = (found - target).abs().mean() / whole
        (odds.grad,) = torch.autograd.grad(loss, odds)
        adam.step()
        losses.append(float(loss.detach()))
        if progress is not None:
            progress(step + 1, steps)
    values = np.full((*start.graph.edges.shape, 1), np.nan)
    values[there.numpy(), 0] = odds.detach().double().cpu().numpy()
    attrs = {**contrast.as_read(), "unit": "log odds", "losses": losses, "n": n, "steps": steps}
    seconds = time.perf_counter() - began
    return EdgeScores.from_array(
        start.graph, values, method="learned mask", seconds=seconds, **attrs
    )


def _begun(keys: Float[Tensor, " edge"]) -> Float[Tensor, " edge"]:
    """Log odds by rank: evenly spread in its logarithm."""
    ranks = torch.empty(len(keys))
    ranks[keys.argsort(descending=True, stable=True)] = torch.arange(1.0, len(keys) + 1)
    return _SLOPE * (len(keys) / ranks).log()


def _gates(
    odds: Float[Tensor, " edge"], n: int, generator: torch.Generator
) -> Float[Tensor, " edge"]:
    """A random gate for each edge, 0 to 1; that of the n-th best is open as often as not."""
    ordered = odds.detach().sort(descending=True).values
    threshold = ordered[min(n, len(ordered) - 1)]
    drawn = torch.rand(len(odds), generator=generator).clamp(1e-6, 1 - 1e-6).to(odds)
    noise = drawn.log() - (-drawn).log1p()
    open_ = torch.sigmoid((noise + odds - threshold) / _TEMPERATURE)
    return (open_ * (_HIGH - _LOW) + _LOW).clamp(0, 1)
