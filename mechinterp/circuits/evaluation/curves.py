"""Faithfulness by size of the circuit, as in the benchmark MIB; scores against a known circuit.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Circuit, Contrast, faithfulness_curve, exact_edges, rank_auc
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> scores = exact_edges(contrast)
>>> found = faithfulness_curve(contrast, scores, sizes=(0.06, 0.5, 1.0))
>>> found["requested"].values, found["edges"].values
(array([ 3, 26, 52]), array([ 3, 10, 52]))
>>> edges = ["input->a1.h0<k>", "input->a1.h0<v>", "a1.h0->logits"]
>>> rank_auc(scores, Circuit.from_edges(contrast.graph, edges))
1.0
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import rankdata

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.evaluation.faithfulness import faithfulness
from mechinterp.circuits.selection import Rank, check_rank, top_n
from mechinterp.core.arguments import checks_arguments
from mechinterp.sweeps.options import Progress

MIB_SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""The shares of all edges at which MIB evaluates circuits; 0 is not among them."""


@runtime_checkable
class Select(Protocol):
    """A choice of edges by their scores, such as `top_n`."""

    def __call__(self, scores: EdgeScores, n: int, /, *, rank: Rank) -> Circuit:
        """The circuit of the best `n` edges."""
        ...


@checks_arguments
def faithfulness_curve(
    contrast: Contrast,
    scores: EdgeScores,
    *,
    sizes: Sequence[float] = MIB_SIZES,
    rank: Rank = "size",
    select: Select = top_n,
    progress: Progress | None = None,
) -> xr.Dataset:
    """The `faithfulness` of the best edges at each size, and its areas: `attrs` CPR and CMD.

    `select(scores, n, rank=...)` makes the circuit of `n` edges, a share of all rounded down. CPR
    is the area under the faithfulness, 0.999 for a perfect curve, by custom with `rank="signed"`.
    CMD is the area between it and 1, 0 for a perfect curve, by custom with `rank="size"`. Both
    areas are over the share that was requested, as in MIB; "CPR by edges kept" and "CMD by edges
    kept" are over the share that is left after pruning.

    Raises:
        ValueError: if the scores belong to another graph, or as `faithfulness`.

    Source: MIB, Mueller et al. 2025, section 4.1, arXiv 2504.13151.
    """
    n_edges = contrast.graph.n_edges
    circuits = {f"{size:g}": select(scores, int(size * n_edges), rank=rank) for size in sizes}
    found = faithfulness(contrast, circuits, progress=progress)
    values = found["faithfulness"].values
    kept = found["edges"].values / n_edges
    found = found.assign(size=("circuit", list(sizes)), share=("circuit", kept))
    by_kept = np.argsort(kept, kind="stable")
    areas = {
        "CPR": _area(values, sizes),
        "CMD": _area(np.abs(1 - values), sizes),
        "CPR by edges kept": _area(values[by_kept], kept[by_kept]),
        "CMD by edges kept": _area(np.abs(1 - values)[by_kept], kept[by_kept]),
    }
    return found.assign_attrs(areas, ranked_by=rank)


@checks_arguments
def rank_auc(scores: EdgeScores, truth: Circuit, *, rank: Rank = "size") -> float:
    """The probability that an edge of a known circuit scores above one outside; ties count half.

    This is the exact area under the ROC curve, over all edges with a score.

    Raises:
        ValueError: if the truth belongs to another graph, or has none or all of the scored edges.
    """
    check_rank(rank)
    if truth.graph != scores.graph:
        raise ValueError(f"the truth belongs to {truth.graph}, the scores to {scores.graph}.")
    scored = np.isfinite(scores.mean)
    values, is_true = scores.mean[scored], truth.mask[scored]
    n_true, n_false = int(is_true.sum()), int((~is_true).sum())
    if not n_true or not n_false:
        raise ValueError(
            f"{n_true} of {len(values)} scored edges are in the known circuit: an AUC needs edges "
            f"inside and outside it."
        )
    ranks = rankdata(np.abs(values) if rank == "size" else values)
    return float((ranks[is_true].sum() - n_true * (n_true + 1) / 2) / (n_true * n_false))


def _area(
    values: Float[np.ndarray, " size"], at: Sequence[float] | Float[np.ndarray, " size"]
) -> float:
    return float(np.trapezoid(values, at))
