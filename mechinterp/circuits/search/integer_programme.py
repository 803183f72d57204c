"""The connected circuit of a given size whose scores add up to the most: an integer programme.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, exact_edges, optimal_circuit
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> scores = exact_edges(Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE"))))
>>> optimal_circuit(scores, 3).names
('input->a1.h0<k>', 'input->a1.h0<v>', 'a1.h0->logits')

A choice edge by edge keeps edges that lead nowhere, and best-first misses a strong edge behind a
weak one. Here every edge that is chosen lies on a way from the embedding to the logits, and no
other such choice has a larger sum.
"""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array, eye_array, hstack, vstack

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.selection import Rank, best_first, of_largest, rank_keys, top_n

_ALL = 5000
"""How many of the best edges are looked at in any case."""


class NotOptimalWarning(UserWarning):
    """The integer programme ended before its solution was proved to be the best."""


def optimal_circuit(
    scores: EdgeScores, n: int, *, rank: Rank = "signed", seconds: float = 60.0
) -> Circuit:
    """The `n` edges, or fewer, of the largest total score, all on ways from input to logits.

    With `rank="signed"` an edge that works against the behaviour is chosen only where it connects
    others. `seconds`: after which the best choice so far is taken, with a warning
    that says how far from the best it may be. It is chosen among
    the best 5,000 edges, or more if `n` is large, the best-first choice, and each part's best edge
    in and out.

    Raises:
        ValueError: if there are not so many scores, or the graph has positions, where a head reads
            its keys at others.

    Source: integer-programme selection in the BlackboxNLP 2025 shared task, arXiv 2511.18409.
    """
    graph = scores.graph
    keys = rank_keys(scores, rank, n)
    if graph.positions:
        raise ValueError(
            "the optimal choice is of graphs without positions: use best_first, or score "
            "Graph.from_model(model)."
        )
    if n == 0:
        return Circuit(graph, np.zeros(graph.edges.shape, dtype=bool), requested=0)
    best = Circuit(graph, of_largest(keys, min(n, int((keys > 0).sum()))), requested=n)
    if best.pruned().n_edges == best.n_edges:
        return best  # all of it lies on ways as it is, and no choice has a larger sum
    among = np.argwhere(_candidates(scores, keys[..., 0], n, rank))
    chosen, gap = _solved(scores, keys[among[:, 0], among[:, 1], 0], among, n, seconds)
    if chosen is None:
        made = (select(scores, n, rank=rank) for select in (best_first, top_n))
        found = max(made, key=lambda circuit: float(keys[circuit.mask].sum()))
        gap = keys[best.mask].sum() / max(keys[found.mask].sum(), 1e-30) - 1
    else:
        mask: Any = np.zeros(graph.edges.shape, dtype=bool)
        mask[among[chosen, 0], among[chosen, 1], 0] = True
        found = Circuit(graph, mask, requested=n).pruned()
    if gap > 0:
        warnings.warn(
            f"after {seconds:g} s the best circuit so far is taken; another may have a sum larger "
            f"by up to {100 * gap:.2g}%. Give more seconds=.",
            NotOptimalWarning,
            stacklevel=2,
        )
    return found


def _candidates(
    scores: EdgeScores, keys: Float[np.ndarray, "writer reader"], n: int, rank: Rank
) -> Bool[np.ndarray, "writer reader"]:
    """Edges among which the best are looked for."""
    found: Any = best_first(scores, n, rank=rank).mask[..., 0].copy()
    there: Any = np.isfinite(keys)
    most = max(min(4 * n, n + 5000), _ALL)
    best = np.argsort(np.where(there, -keys, np.inf), axis=None)[:most]
    found[np.unravel_index(best, keys.shape)] = True
    writers = np.arange(len(keys))
    found[writers, np.where(there, keys, -np.inf).argmax(1)] = True
    for writer in range(1, len(keys)):
        inputs = np.where(scores.graph.feeds[:, writer], keys, -np.inf)
        found[np.unravel_index(inputs.argmax(), keys.shape)] = True
    found &= there
    among: Bool[np.ndarray, "writer reader"] = found
    return among


def _solved(
    scores: EdgeScores,
    values: Float[np.ndarray, " edge"],
    among: np.ndarray,
    n: int,
    seconds: float,
) -> tuple[Bool[np.ndarray, " edge"] | None, float]:
    """Which edges are chosen, if any were found in time; how much larger the best sum may be.

    Unknowns: each edge, then each writer, in the circuit or not.
    """
    graph = scores.graph
    n_edges, n_nodes = len(among), len(graph.nodes)
    one_each = np.ones(n_edges), (np.arange(n_edges), among[:, 0])
    written = csr_array(one_each, shape=(n_edges, n_nodes))
    read = csr_array(graph.feeds[among[:, 1]].astype(float))
    edge, node = eye_array(n_edges, format="csr"), eye_array(n_nodes, format="csr")
    leads_on = np.flatnonzero(read.sum(1))  # all but those into the logits
    at_most_0 = (
        hstack([edge, -written]),  # an edge only if its writer is in
        hstack([edge, -read], format="csr")[leads_on],  # and one that reads it
        hstack([-written.T, node]),  # a writer only if an edge goes out
        hstack([-read.T, node], format="csr")[1:],  # and, but for the embedding, one goes in
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
