"""Local search: swap edges of a circuit as long as the circuit, run by itself, gets better.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Circuit, Contrast, swap_edges
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> wrong = ["a1.h0->logits", "input->a1.h0<v>", "input->a1.h1<k>"]
>>> swap_edges(contrast, Circuit.from_edges(contrast.graph, wrong)).names
('input->a1.h0<k>', 'input->a1.h0<v>', 'a1.h0->logits')

Scores rank edges by what each does in the whole model, which differs from what it does in a circuit
of `n` edges. Here the gradient of the circuit's own faithfulness proposes swaps, and a run of each
proposed circuit decides, so that no step makes it worse.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float

from mechinterp.circuits.circuit import Circuit
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.evaluation.faithfulness import (
    Target,
    check_target,
    evaluate,
    faithfulness,
    run_without,
)
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import takes_gradients
from mechinterp.engine.scoring import total_score
from mechinterp.sweeps.options import Progress

_NEAR = 1e-3
"""The search for `target="model"` stops when faithfulness is this near to 1."""

_LEAST_GAIN = 1e-6
"""The least gain of a step; less is noise."""

Mask = Bool[np.ndarray, "writer reader pos"]


@checks_arguments
@takes_gradients
def swap_edges(
    contrast: Contrast,
    *circuits: Circuit,
    target: Target = "model",
    rounds: int = 10,
    progress: Progress | None = None,
) -> Circuit:
    """The most faithful circuit that swapping edges finds, beginning with the best of those given.

    Each round takes the gradient of the circuit's metric with respect to every edge, inside or
    outside. It runs circuits in which the best 1, 2, 4 ... edges outside take free places and those
    of the worst edges inside, and goes on with the best. It ends when none is better, or after
    `rounds`. Better means nearer to a faithfulness of 1 (to .001) with `target="model"`, as
    CMD measures it, and higher with "above", as CPR does. The result is pruned, and never has more
    edges than were requested of the circuit it began with.

    The result is fitted to these pairs: judge it on others.

    Raises:
        ValueError: if no circuit is given, the metric has no gradient, `target` is unknown, or as
            `faithfulness`.
    """
    check_target(target)
    if not circuits:
        raise ValueError("no circuit to begin with: give one or more, such as top_n(scores, 100).")
    found = faithfulness(contrast, {str(at): each for at, each in enumerate(circuits)})
    ends = found.attrs["empty"], found.attrs["full"]
    costs = _cost(found["faithfulness"].values, target)
    best = int(costs.argmin())
    n, mask = int(found["requested"][best]), circuits[best].mask
    share, least = float(found["faithfulness"][best]), float(costs[best])
    for number in range(rounds):
        if progress is not None:
            progress(number, rounds)
        if target == "model" and least < _NEAR:
            break
        masks = _propose_swaps(
            _edge_gains(contrast, mask, ends), mask, n, 1 - share if target == "model" else None
        )
        if not masks:
            break
        scores = evaluate(contrast, [Circuit(contrast.graph, each) for each in masks]).mean(1)
        shares = (scores - ends[0]) / (ends[1] - ends[0])
        costs = _cost(shares, target)
        best = int(costs.argmin())
        if not costs[best] < least - _LEAST_GAIN:
            break
        mask, share, least = masks[best], float(shares[best]), float(costs[best])
    if progress is not None:
        progress(rounds, rounds)
    return Circuit(contrast.graph, mask, requested=n).pruned()


def _cost(share: Float[np.ndarray, " circuit"], target: Target) -> Float[np.ndarray, " circuit"]:
    """What the search minimizes, given each circuit's faithfulness."""
    return np.abs(1 - share) if target == "model" else -share


def _edge_gains(
    contrast: Contrast, mask: Mask, ends: tuple[float, float]
) -> Float[np.ndarray, "writer reader pos"]:
    """What each edge adds to a circuit's faithfulness, to first order; NaN where no edge is.

    Raises:
        ValueError: if the metric has no gradient.
    """
    edges = contrast.graph.edges
    cut = torch.from_numpy(edges & ~mask)[None].to(contrast.change).requires_grad_()
    output, _, n_arms = contrast.output(run_without(contrast, cut))
    every = slice(0, contrast.n_pairs)
    total = total_score(contrast.metric, output, n_arms, every, contrast.n_pairs)
    (gradient,) = torch.autograd.grad(total, cut)
    gains = -gradient[0].double().cpu().numpy() / contrast.n_pairs / (ends[1] - ends[0])
    return np.where(edges, gains, np.nan)


def _propose_swaps(
    gains: Float[np.ndarray, "writer reader pos"], mask: Mask, n: int, wanted: float | None
) -> list[Mask]:
    """Circuits of at most `n` edges, with the 1, 2, 4 ... swaps that gain the most.

    `wanted`: by how much faithfulness shall rise, or fall if negative; swaps that would overshoot
    it are left out. None: as much as possible.
    """
    falls = wanted is not None and wanted < 0
    gain = (-gains if falls else gains).ravel()
    is_in = mask.ravel()
    inside, outside = np.flatnonzero(is_in), np.flatnonzero(~is_in & np.isfinite(gain))
    inside = inside[np.argsort(gain[inside], kind="stable")]
    outside = outside[np.argsort(-gain[outside], kind="stable")]
    n_free = n - len(inside)
    n_swaps = min(len(outside), n)
    outside = outside[:n_swaps]
    lost = np.r_[np.zeros(n_free), gain[inside]][:n_swaps]
    gained = gain[outside] - lost
    begin = 0 if wanted is None else int(np.searchsorted(-gained, -abs(wanted)))
    end = int((gained > 0).sum())
    found, size = [], 1
    while begin + size <= end:
        swapped = is_in.copy()
        swapped[inside[max(begin - n_free, 0) : max(begin + size - n_free, 0)]] = False
        swapped[outside[begin : begin + size]] = True
        found.append(swapped.reshape(mask.shape))
        size *= 2
    return found
