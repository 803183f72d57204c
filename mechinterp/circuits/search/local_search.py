"""A better circuit of the same size: edges are swapped as long as the measured circuit gains.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Circuit, Contrast, swap_edges
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> wrong = ["a1.h0->logits", "input->a1.h0<v>", "input->a1.h1<k>"]
>>> swap_edges(contrast, Circuit.from_edges(contrast.graph, wrong)).names
('input->a1.h0<k>', 'input->a1.h0<v>', 'a1.h0->logits')

Scores rank edges by what each does in the whole model. What it does in a circuit of `n` edges is
another thing: here it is the gradient of the circuit's own faithfulness that proposes, and a run of
each proposed circuit that decides, so that no step is ever for the worse.
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
from mechinterp.engine.scoring import total_score
from mechinterp.sweeps.options import Progress

_NEAR = 1e-3
"""How near to 1 faithfulness is near enough."""

_GAINS = 1e-6
"""A step that gains no more than this is noise."""

Mask = Bool[np.ndarray, "writer reader label"]


def swap_edges(
    contrast: Contrast,
    *circuits: Circuit,
    target: Target = "model",
    rounds: int = 10,
    progress: Progress | None = None,
) -> Circuit:
    """The most faithful of some circuits, and then of those that swapping edges leads to.

    Each round takes the gradient of the circuit's metric by every edge, in it or not, and runs
    circuits in which the best 1, 2, 4 ... outside take the places of the worst inside, and places
    that are free; the best of them is the next, and the search ends when none is better, or after
    `rounds`. Better is nearer to a faithfulness of 1 (to .001) with `target="model"`, as CMD wants
    it; higher with "above", as CPR does. Never more edges than were requested of the circuit begun
    with; pruned.

    What is found so fits the pairs that it was found on: judge it on others.

    Raises:
        ValueError: if there is no circuit, the metric has no gradient, or as `faithfulness`.
    """
    check_target(target)
    if not circuits:
        raise ValueError("no circuit to begin with: give one or more, such as top_n(scores, 100).")
    found = faithfulness(contrast, {str(at): each for at, each in enumerate(circuits)})
    ends = found.attrs["empty"], found.attrs["full"]
    badness = _badness(found["faithfulness"].values, target)
    best = int(badness.argmin())
    n, mask = int(found["requested"][best]), circuits[best].mask
    share, least = float(found["faithfulness"][best]), float(badness[best])
    for number in range(rounds):
        if progress is not None:
            progress(number, rounds)
        if target == "model" and least < _NEAR:
            break
        masks = _proposed(
            _worth(contrast, mask, ends), mask, n, 1 - share if target == "model" else None
        )
        if not masks:
            break
        scores = evaluate(contrast, [Circuit(contrast.graph, each) for each in masks]).mean(1)
        shares = (scores - ends[0]) / (ends[1] - ends[0])
        badness = _badness(shares, target)
        best = int(badness.argmin())
        if not badness[best] < least - _GAINS:
            break
        mask, share, least = masks[best], float(shares[best]), float(badness[best])
    if progress is not None:
        progress(rounds, rounds)
    return Circuit(contrast.graph, mask, requested=n).pruned()


def _badness(share: Float[np.ndarray, " circuit"], target: Target) -> Float[np.ndarray, " circuit"]:
    return np.abs(1 - share) if target == "model" else -share


def _worth(
    contrast: Contrast, mask: Mask, ends: tuple[float, float]
) -> Float[np.ndarray, "writer reader label"]:
    """What each edge adds to the faithfulness of a circuit, to first order; NaN if there is none.

    Raises:
        ValueError: if the metric has no gradient.
    """
    there = contrast.graph.edges
    cut = torch.from_numpy(there & ~mask)[None].to(contrast.change).requires_grad_()
    output, _, n_arms = contrast.output(run_without(contrast, cut))
    every = slice(0, contrast.n_pairs)
    total = total_score(contrast.metric, output, n_arms, every, contrast.n_pairs)
    (slope,) = torch.autograd.grad(total, cut)
    worth = -slope[0].double().cpu().numpy() / contrast.n_pairs / (ends[1] - ends[0])
    return np.where(there, worth, np.nan)


def _proposed(
    worth: Float[np.ndarray, "writer reader label"], mask: Mask, n: int, wanted: float | None
) -> list[Mask]:
    """Circuits of `n` edges at most, with 1, 2, 4 ... swaps, of those that gain the most.

    `wanted`: how much faithfulness is to rise, or fall; no swap that gains more is made.
    """
    falls = wanted is not None and wanted < 0
    gain = (-worth if falls else worth).ravel()
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
