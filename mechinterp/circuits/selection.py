"""From scores to circuits: the best edges, those above a threshold, or best first from the logits.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, above_threshold, best_first, exact_edges, top_n
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> scores = exact_edges(Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE"))))
>>> top_n(scores, 3) == above_threshold(scores, 0.5) == best_first(scores, 3)
True
>>> top_n(scores, 3)
Circuit(3 of 3 requested, of 52 edges)

`rank="size"` ranks edges by the size of the mean score, so that edges which work against the
behaviour are chosen too; `rank="signed"` by the score with its sign. Every circuit has its dangling
parts pruned, and keeps the number of edges that was requested. Ties go by the order of the graph.
"""

import heapq
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.graph import KINDS
from mechinterp.core.arguments import checks_arguments
from mechinterp.sweeps.axes import check_choice

Rank = Literal["size", "signed"]
"""What edges are ranked by: the size of the mean score, or the mean score with its sign."""

_RANKS: tuple[Rank, ...] = ("size", "signed")


@checks_arguments
def top_n(scores: EdgeScores, n: int, *, rank: Rank = "size") -> Circuit:
    """The `n` edges with the largest scores, pruned.

    Raises:
        ValueError: if there are fewer than `n` scores, or `rank` is unknown.
    """
    mask = largest_mask(rank_keys(scores, rank, n), n)
    return Circuit(scores.graph, mask, requested=n).pruned()


def largest_mask(
    keys: Float[np.ndarray, "writer reader pos"], n: int
) -> Bool[np.ndarray, "writer reader pos"]:
    """A mask of the `n` largest keys; ties go by the order of the graph."""
    mask = np.zeros(keys.size, dtype=bool)
    mask[np.argsort(-keys, axis=None, kind="stable")[:n]] = True
    return mask.reshape(keys.shape)


@checks_arguments
def above_threshold(scores: EdgeScores, threshold: float, *, rank: Rank = "size") -> Circuit:
    """The edges whose score is above a threshold, in the metric's unit, pruned.

    Raises:
        ValueError: if `rank` is unknown.
    """
    mask = rank_keys(scores, rank, 0) > threshold
    return Circuit(scores.graph, mask, requested=int(mask.sum())).pruned()


@checks_arguments
def best_first(scores: EdgeScores, n: int, *, rank: Rank = "size") -> Circuit:
    """`n` edges from the logits down: always the best edge into what the circuit has already.

    So every edge leads to the logits; parts that read nothing are pruned.

    Raises:
        ValueError: if there are fewer than `n` scores, or `rank` is unknown.

    Source: the greedy search of Hanna et al. 2024, arXiv 2403.17806.
    """
    graph, keys = scores.graph, rank_keys(scores, rank, n)
    mask = np.zeros(graph.edges.shape, dtype=bool)
    queue: list[tuple[float, int, int, int]] = []
    seen = {(len(graph.inputs) - 1, pos) for pos in range(graph.n_positions)}
    fresh = list(seen)
    while int(mask.sum()) < n:
        for reader, pos in fresh:
            for writer in np.flatnonzero(np.isfinite(keys[:, reader, pos])).tolist():
                heapq.heappush(queue, (-keys[writer, reader, pos], writer, reader, pos))
        if not queue:
            break
        _, writer, reader, pos = heapq.heappop(queue)
        mask[writer, reader, pos] = True
        fresh = [at for at in _inputs_of(scores, writer, pos) if at not in seen]
        seen.update(fresh)
    return Circuit(graph, mask, requested=n).pruned()


def _inputs_of(scores: EdgeScores, writer: int, pos: int) -> list[tuple[int, int]]:
    """What a writer reads, by reader and position: keys and values at all positions."""
    graph = scores.graph
    found = []
    for reader in np.flatnonzero(graph.feeds[:, writer]).tolist():
        spreads = graph.inputs[reader].kind in KINDS[1:]
        found += [(reader, at) for at in (range(graph.n_positions) if spreads else [pos])]
    return found


def check_rank(rank: Rank) -> None:
    """Check that edges can be ranked like this.

    Raises:
        ValueError: if not, naming the choices.
    """
    check_choice("rank", rank, _RANKS)


def rank_keys(scores: EdgeScores, rank: Rank, n: int) -> Float[np.ndarray, "writer reader pos"]:
    """What `rank` compares: the mean score or its size; -inf where there is no score.

    Raises:
        ValueError: if `rank` is unknown, or there are fewer than `n` scores.
    """
    check_rank(rank)
    n_scores = int(np.isfinite(scores.mean).sum())
    if not 0 <= n <= n_scores:
        raise ValueError(f"n={n}: the scores cover {n_scores} edges. Ask for 0 to {n_scores}.")
    keys = np.abs(scores.mean) if rank == "size" else scores.mean
    return np.where(np.isfinite(keys), keys, -np.inf)
