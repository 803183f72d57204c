"""Automated circuit discovery (ACDC): try each edge in turn, and remove it if that costs little.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, acdc
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> acdc(contrast, 0.05).names
('input->a1.h0<k>', 'input->a1.h0<v>', 'a1.h0->logits')

Removed edges stay removed, so the order matters. It is fixed here: readers from the logits down, in
the reverse of the graph's order (the MLP, then values, keys and queries, the last head first); for
each reader its writers from the last to the first, and for each writer positions from the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.evaluation.faithfulness import (
    Target,
    check_circuits,
    check_target,
    run_without,
)
from mechinterp.circuits.scores.eap import eap
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import gradients_off
from mechinterp.core.sites import HookError
from mechinterp.sweeps.options import Progress

Mask = Bool[np.ndarray, "writer reader pos"]


@checks_arguments
def acdc(
    contrast: Contrast,
    tau: float,
    edges: Circuit | None = None,
    *,
    target: Target = "above",
    at_once: int | None = None,
    progress: Progress | None = None,
) -> Circuit:
    """The edges that are left after removing, one by one, each whose removal costs less than `tau`.

    `tau`: how much the mean of the metric may fall by one removal, in its unit (for a distance such
    as KL: rise). With `target="above"` edges that work against the metric are removed too, and the
    circuit may do more than the model; with "model" `tau` bounds how much one removal adds to the
    distance from the model's own metric, the mean of its size over pairs. `edges`: begin with these
    alone; the others are removed at once. `at_once`: how many removals are tried in one pass
    (default: as many as fit); 1 is the algorithm as published. The result is the same: a pass runs
    the states after one, two, three ... removals together, and takes those before the first edge
    that has to stay. A pass stops at the first edge that the gradient predicts will stay.

    Raises:
        ValueError: if `tau` is negative, `target` is unknown, or the edges belong to another graph.

    Source: Conmy et al. 2023, algorithm 1, arXiv 2304.14997.
    """
    check_target(target)
    if tau < 0:
        raise ValueError(f"tau={tau}: what one edge may cost is 0 or more.")
    start = edges or Circuit.full(contrast.graph)
    check_circuits(contrast, [start])
    return _run_acdc(contrast, tau, start, target, at_once, _estimated_effects(contrast), progress)


def _run_acdc(
    contrast: Contrast,
    tau: float,
    start: Circuit,
    target: Target,
    at_once: int | None,
    expected: Float[np.ndarray, "writer reader pos"],
    progress: Progress | None,
) -> Circuit:
    graph, kept = contrast.graph, np.array(start.mask)
    search = _RemovalSearch(contrast, kept, tau, target)
    # From all edges, nothing is cut before the layer of the edge at hand: runs may start there.
    is_full = start.n_edges == graph.n_edges
    todo = [(int(w), int(r), int(p)) for r, w, p in np.argwhere(kept.transpose(1, 0, 2))[::-1]]
    most = at_once or contrast.most_arms
    with np.errstate(invalid="ignore"):
        stays = (np.abs(expected) if target == "model" else expected) >= tau
    done, size = 0, min(most, 4)
    while done < len(todo):
        some = todo[done : done + size]
        predicted = next((i for i, edge in enumerate(some) if stays[edge]), len(some))
        some = some[: predicted + 1]
        n = search.try_removing(some, search.layer_of(some[-1]) if is_full else 0)
        done += min(n + 1, len(some))
        # Try fewer at a time after an edge that stays although the gradient did not predict it.
        size = min(most, 2 * size if n >= predicted else n + 1)
        if progress is not None:
            progress(done, len(todo))
    return Circuit(graph, kept)


@checks_arguments
def acdc_scores(
    contrast: Contrast,
    taus: Sequence[float],
    *,
    target: Target = "above",
    progress: Progress | None = None,
) -> EdgeScores:
    """Score each edge by the largest `tau` at which `acdc` keeps it; 0 if it keeps it at none.

    This ranks all edges, so that ACDC can be compared with methods that score them. `target`: as in
    `acdc`.

    Raises:
        ValueError: as `acdc`, or if there is no tau.

    Source: Conmy et al. 2023, section 4, arXiv 2304.14997.
    """
    check_target(target)
    if not taus:
        raise ValueError("taus is empty: give several, such as [0.001, 0.01, 0.1].")
    start = Circuit.full(contrast.graph)
    check_circuits(contrast, [start])
    expected = _estimated_effects(contrast)
    values = np.zeros((*contrast.graph.edges.shape, 1))
    for number, tau in enumerate(sorted(taus)):
        if progress is not None:
            progress(number, len(taus))
        values[_run_acdc(contrast, tau, start, target, None, expected, None).mask] = tau
    return EdgeScores.from_array(
        contrast.graph, values, method="ACDC", taus=sorted(taus), **contrast.describe()
    )


def _estimated_effects(contrast: Contrast) -> Float[np.ndarray, "writer reader pos"]:
    """The first-order effect of each edge; NaN throughout if the metric has no gradient."""
    try:
        return eap(contrast).mean
    except (ValueError, HookError):  # no gradients: then nothing is predicted
        return np.full(contrast.graph.edges.shape, np.nan)


@dataclass(eq=False)
class _RemovalSearch:
    """The edges that are left and what their circuit has lost; `kept` is changed in place."""

    contrast: Contrast
    kept: Mask
    tau: float
    target: Target
    _lost: float = field(init=False)

    def __post_init__(self) -> None:
        self._lost = float(self._losses(self.kept[None], 0)[0])

    def layer_of(self, edge: tuple[int, int, int]) -> int:
        """The layer in which an edge's reader stands."""
        layer = self.contrast.graph.inputs[edge[1]].layer
        return self.contrast.graph.n_layers if layer is None else layer

    def try_removing(self, some: list[tuple[int, int, int]], layer: int) -> int:
        """Remove edges up to the first that costs too much, and count them.

        `layer`: none of their readers is before it.
        """
        states = np.repeat(self.kept[None], len(some), 0)
        for number, edge in enumerate(some):
            states[(slice(number, None), *edge)] = False
        losses = self._losses(states, layer).tolist()
        for number, (edge, lost) in enumerate(zip(some, losses, strict=True)):
            if lost - self._lost >= self.tau:
                return number
            self.kept[edge], self._lost = False, lost
        return len(some)

    def _losses(
        self, kept: Bool[np.ndarray, "state writer reader pos"], layer: int
    ) -> Float[np.ndarray, " state"]:
        """The loss of each state, a mean over pairs: the fall of the metric, or its distance."""
        cut = torch.from_numpy(self.contrast.graph.edges & ~kept).to(self.contrast.change)
        with gradients_off():
            scores = self.contrast.score(run_without(self.contrast, cut, layer))
        lost = -self.contrast.sign * scores
        if self.target == "model":
            lost = np.abs(scores - self.contrast.base_scores)
        found: Float[np.ndarray, " state"] = lost.mean(1)
        return found
