"""Automated circuit discovery: try each edge in turn, and remove it if the metric stays.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, acdc
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> acdc(contrast, 0.05).names
('input->a1.h0<k>', 'input->a1.h0<v>', 'a1.h0->logits')

What is removed stays removed, so that the order matters. Ours is fixed: readers from the logits
down, in the reverse of the graph's order (the MLP, then values, keys and queries, the last head
first), and of each its writers from the last to the first; labels of positions from the last.
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
    check_runs,
    check_target,
    run_without,
)
from mechinterp.circuits.scores.eap import eap
from mechinterp.sweeps.options import Progress

Mask = Bool[np.ndarray, "writer reader pos"]


def acdc(
    contrast: Contrast,
    tau: float,
    edges: Circuit | None = None,
    *,
    target: Target = "above",
    at_once: int | None = None,
    progress: Progress | None = None,
) -> Circuit:
    """The edges left when each whose removal costs less than `tau` is removed, one after the other.

    `tau`: what the mean of the metric may lose by one edge, in its unit (of a distance such as KL:
    gain). With `target="above"` edges that work against the metric are removed too, and the circuit
    may do more than the model; with "model" `tau` bounds how much one removal adds to the distance
    from the model's own metric, the mean of its size over pairs. `edges`: begin with these alone;
    the others are removed at once. `at_once`: how many removals are tried in one pass (default: as
    many as fit); 1 is the algorithm as published. The result is the same: the states after one,
    two, three ... removals are run together, and those up to the first refusal are taken. A pass
    ends where the gradient lets expect a refusal.

    Raises:
        ValueError: if `tau` is negative, or the edges are of another graph.

    Source: Conmy et al. 2023, algorithm 1, arXiv 2304.14997.
    """
    check_target(target)
    if tau < 0:
        raise ValueError(f"tau={tau}: what an edge may cost is 0 or more.")
    start = edges or Circuit.full(contrast.graph)
    check_runs(contrast, [start])
    return _searched(contrast, tau, start, target, at_once, _expected(contrast), progress)


def _searched(
    contrast: Contrast,
    tau: float,
    start: Circuit,
    target: Target,
    at_once: int | None,
    expected: Float[np.ndarray, "writer reader label"],
    progress: Progress | None,
) -> Circuit:
    graph, kept = contrast.graph, np.array(start.mask)
    search = _Search(contrast, kept, tau, target)
    is_full = start.n_edges == graph.n_edges  # then nothing is cut before the layer of an edge
    todo = [(int(w), int(r), int(c)) for r, w, c in np.argwhere(kept.transpose(1, 0, 2))[::-1]]
    most = at_once or contrast.most_arms
    with np.errstate(invalid="ignore"):
        likely = (np.abs(expected) if target == "model" else expected) >= tau
    done, size = 0, min(most, 4)
    while done < len(todo):
        some = todo[done : done + size]
        refused = next((i for i, edge in enumerate(some) if likely[edge]), len(some))
        some = some[: refused + 1]
        n = search.try_removing(some, search.layer_of(some[-1]) if is_full else 0)
        done += min(n + 1, len(some))
        # Shorter after a refusal that nobody expected.
        size = min(most, 2 * size if n >= refused else n + 1)
        if progress is not None:
            progress(done, len(todo))
    return Circuit(graph, kept)


def acdc_scores(
    contrast: Contrast,
    taus: Sequence[float],
    *,
    target: Target = "above",
    progress: Progress | None = None,
) -> EdgeScores:
    """A score of each edge: the largest `tau` at which it is kept, 0 where it is at none.

    It ranks all edges, so that ACDC can be compared with methods that score them. `target`: as in
    `acdc`.

    Raises:
        ValueError: as `acdc`, or if there is no tau.

    Source: Conmy et al. 2023, section 4, arXiv 2304.14997.
    """
    check_target(target)
    if not taus:
        raise ValueError("no taus were given. Give several, such as [0.001, 0.01, 0.1].")
    start = Circuit.full(contrast.graph)
    check_runs(contrast, [start])
    expected = _expected(contrast)
    values = np.zeros((*contrast.graph.edges.shape, 1))
    for number, tau in enumerate(sorted(taus)):
        if progress is not None:
            progress(number, len(taus))
        values[_searched(contrast, tau, start, target, None, expected, None).mask] = tau
    return EdgeScores.from_array(
        contrast.graph, values, method="ACDC", taus=sorted(taus), **contrast.as_read()
    )


def _expected(contrast: Contrast) -> Float[np.ndarray, "writer reader label"]:
    """The first-order effect of each edge; NaN throughout if the metric has no gradient."""
    try:
        return eap(contrast).mean
    except ValueError:
        return np.full(contrast.graph.edges.shape, np.nan)


@dataclass(eq=False)
class _Search:
    """What is left, and what is lost with that; `kept` is changed."""

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
        """Remove edges up to the first that costs too much: how many. None is before `layer`."""
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
        """What is lost with these edges alone: the metric's mean, so signed that less is better."""
        cut = torch.from_numpy(self.contrast.graph.edges & ~kept).to(self.contrast.change)
        with torch.no_grad():
            scores = self.contrast.scored(run_without(self.contrast, cut, layer))
        lost = -self.contrast.sign * scores
        if self.target == "model":
            lost = np.abs(scores - self.contrast.base_scores)
        found: Float[np.ndarray, " state"] = lost.mean(1)
        return found
