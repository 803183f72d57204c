"""The connected circuit of a given size with the largest sum of scores, by integer programming.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, exact_edges, optimal_circuit
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> scores = exact_edges(Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE"))))
>>> optimal_circuit(scores, 3).names
('input->a1.h0<k>', 'input->a1.h0<v>', 'a1.h0->logits')

Choosing edge by edge keeps edges that lead nowhere, and best-first misses a strong edge behind a
weak one. Here every chosen edge lies on a path from the embedding to the logits, and no other such
choice has a larger sum.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, eye_array, hstack, vstack

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.selection import Rank, best_first, largest_mask, rank_keys, top_n
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.cautions import caution

_LEAST_CANDIDATES = 5000
"""How many of the best edges are candidates in any case."""


class NotOptimalWarning(UserWarning):
    """The integer programme ran out of time before it proved its solution to be optimal."""


@checks_arguments
def optimal_circuit(
    scores: EdgeScores, n: int, *, rank: Rank = "signed", seconds: float = 60.0
) -> Circuit:
    """The at most `n` edges with the largest total score, all on paths from input to logits.

    With `rank="signed"` an edge that works against the behaviour is chosen only where it connects
    others. `seconds`: the time limit, after which the best choice so far is taken, with a warning
    that says how far from optimal it may be. The candidates are the best 5,000 edges (more if `n`
    is large), the best-first choice, and the best edge into and out of each part.

    Raises:
        ValueError: if there are fewer than `n` scores, `rank` is unknown, or the graph has
            positions, between which heads move information.

    Source: integer-programme selection in the BlackboxNLP 2025 shared task, arXiv 2511.18409.
    """
    graph = scores.graph
    keys = rank_keys(scores, rank, n)
    if graph.positions:
        raise ValueError(
            "optimal_circuit needs a graph without positions: use best_first, or score "
            "Graph.from_model(model)."
        )
    if n == 0:
        return Circuit(graph, np.zeros(graph.edges.shape, dtype=bool), requested=0)
    best = Circuit(graph, largest_mask(keys, min(n, int((keys > 0).sum()))), requested=n)
    if best.pruned().n_edges == best.n_edges:
        return best  # already connected, and no choice has a larger sum
    candidates = np.argwhere(_candidates(scores, keys[..., 0], n, rank))
    values = keys[candidates[:, 0], candidates[:, 1], 0]
    chosen, gap = _solve(scores, values, candidates, n, seconds)
    if chosen is None:
        simple = (select(scores, n, rank=rank) for select in (best_first, top_n))
        found = max(simple, key=lambda circuit: float(keys[circuit.mask].sum()))
        gap = keys[best.mask].sum() / max(keys[found.mask].sum(), 1e-30) - 1
    else:
        mask = np.zeros(graph.edges.shape, dtype=bool)
        mask[candidates[chosen, 0], candidates[chosen, 1], 0] = True
        found = Circuit(graph, mask, requested=n).pruned()
    if gap > 0:
        caution(
            f"out of time after {seconds:g} s: this is the best circuit so far; the sum of another "
            f"may be larger by up to {100 * gap:.2g}%. Give more seconds=.",
            NotOptimalWarning,
        )
    return found


def _candidates(
    scores: EdgeScores, keys: Float[np.ndarray, "writer reader"], n: int, rank: Rank
) -> Bool[np.ndarray, "writer reader"]:
    """The edges from which the programme chooses: fewer than all, for speed."""
    found = np.array(best_first(scores, n, rank=rank).mask[..., 0])
    scored = np.isfinite(keys)
    most = max(min(4 * n, n + 5000), _LEAST_CANDIDATES)
    best = np.argsort(np.where(scored, -keys, np.inf), axis=None)[:most]
    found[np.unravel_index(best, keys.shape)] = True
    writers = np.arange(len(keys))
    found[writers, np.where(scored, keys, -np.inf).argmax(1)] = True
    for writer in range(1, len(keys)):
        inputs = np.where(scores.graph.feeds[:, writer], keys, -np.inf)
        found[np.unravel_index(inputs.argmax(), keys.shape)] = True
    found &= scored
    return found


def _solve(
    scores: EdgeScores,
    values: Float[np.ndarray, " edge"],
    candidates: Int[np.ndarray, "edge 2"],
    n: int,
    seconds: float,
) -> tuple[Bool[np.ndarray, " edge"] | None, float]:
    """Which candidates are chosen, None if none were found in time; how much is left to gain.

    The unknowns are 1 or 0, in the circuit or not: first each candidate edge, then each writer
    (a node). Maximize the sum of the values of the chosen edges, with at most `n` of them, so that
    every chosen edge leaves a chosen node and enters one (or the logits), and every chosen node has
    a chosen edge out of it and, but for the embedding, one into it. Edges go forward only, so that
    this puts all of them on paths from the embedding to the logits.
    """
    graph = scores.graph
    n_edges, n_nodes = len(candidates), len(graph.nodes)
    one_each = np.ones(n_edges), (np.arange(n_edges), candidates[:, 0])
    # [edge, node], sparse: the node that writes an edge, and the nodes that read it.
    written = csr_array(one_each, shape=(n_edges, n_nodes))
    read = csr_array(graph.feeds[candidates[:, 1]].astype(float))
    edge, node = eye_array(n_edges, format="csr"), eye_array(n_nodes, format="csr")
    into_nodes = np.flatnonzero(read.sum(1))  # all but the edges into the logits
    at_most_0 = (  # rows of linear constraints: row @ unknowns <= 0
        hstack([edge, -written]),  # an edge only if its writer is in
        hstack([edge, -read], format="csr")[into_nodes],  # and one that reads it
        hstack([-written.T, node]),  # a node only if an edge leaves it
        hstack([-read.T, node], format="csr")[1:],  # and, but for the embedding, one enters
    )
    counted = np.r_[np.ones(n_edges), np.zeros(n_nodes)]
    found = milp(
        -np.r_[values, np.zeros(n_nodes)],
        integrality=np.ones(n_edges + n_nodes),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(csr_array(vstack(at_most_0)), ub=0),
            LinearConstraint(counted[None], ub=n),
        ],
        options={"time_limit": seconds, "mip_rel_gap": 1e-6},
    )
    if found.x is None:
        return None, np.inf
    return found.x[:n_edges] > 0.5, 0.0 if found.status == 0 else found.mip_gap
