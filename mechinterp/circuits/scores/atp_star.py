"""Edge scores with the two corrections of AtP*: readers respond exactly, and layers are dropped.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, atp_star_edges, eap, exact_edges, qk_fixed_edges
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> edge = "input->a1.h0<k>"
>>> by_gradient, fixed = eap(contrast)[edge], qk_fixed_edges(contrast)[edge]
>>> abs(fixed - exact_edges(contrast)[edge]) < abs(by_gradient - exact_edges(contrast)[edge])
True

The gradient through a saturated softmax is near zero, however large the change. So the attention
(or the MLP) that reads an edge is run again with the change, and only what it writes is carried on
by the gradient. Where two paths cancel in the base run, the gradient with one layer dropped at a
time shows what each of them carries.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.scores.edge_gradients import gradients_at_writes, trace_run
from mechinterp.circuits.scores.edge_runs import (
    changed_writers,
    chosen_edges,
    score_chunk,
    split_edges,
)
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import takes_gradients
from mechinterp.core.signs import no_support
from mechinterp.sweeps.options import Progress


@checks_arguments
@takes_gradients
def qk_fixed_edges(
    contrast: Contrast, edges: Circuit | None = None, *, progress: Progress | None = None
) -> EdgeScores:
    """The exact change of what an edge's reader writes, times the gradient there; by pair.

    Sign and unit as `exact_edges`. For edges into the logits it is exact, as nothing comes after
    them. All edges unless some are given. About a seventh of the cost of `exact_edges`.

    Raises:
        ValueError: if the metric has no gradient, or the edges belong to another graph.

    Source: Kramár et al. 2024 (AtP*), section 3.1.1, arXiv 2403.00745, of edges.
    """
    return _corrected_scores(contrast, edges, [None], "EAP, QK fix", progress)


@checks_arguments
@takes_gradients
def atp_star_edges(
    contrast: Contrast, edges: Circuit | None = None, *, progress: Progress | None = None
) -> EdgeScores:
    """`qk_fixed_edges` with GradDrop: the size of an effect, without its sign.

    The mean, over all layers but the reader's own, of the size of `qk_fixed_edges` with the
    gradient through that layer dropped; one backward pass a layer.

    Raises:
        ValueError: if the model has one layer alone, or as `qk_fixed_edges`.

    Source: Kramár et al. 2024 (AtP*), sections 3.1.1 and 3.1.2, arXiv 2403.00745, of edges.
    """
    n_layers = contrast.graph.n_layers
    if n_layers < 2:
        raise ValueError("AtP* drops one layer's gradient at a time; this model has one layer.")
    return _corrected_scores(contrast, edges, list(range(n_layers)), "AtP*", progress)


def _corrected_scores(
    contrast: Contrast,
    edges: Circuit | None,
    dropped: Sequence[int | None],
    method: str,
    progress: Progress | None,
) -> EdgeScores:
    """Scores with each of these layers dropped; the mean of their sizes if there are several."""
    began, graph = time.perf_counter(), contrast.graph
    wanted, changed = chosen_edges(contrast, edges), changed_writers(contrast)[:, None]
    around, mid = zip(*(_layer_gradients(contrast, layer) for layer in dropped), strict=True)
    effects = np.full((*wanted.shape, contrast.n_pairs), np.nan)
    effects[wanted & ~changed] = 0.0  # replaced by an equal value
    done, total = 0, int((wanted & changed).sum())
    for chunk in split_edges(contrast, wanted & changed):
        if progress is not None:
            progress(done, total)
        number = chunk.layer
        if number == graph.n_layers:
            found = (score_chunk(contrast, chunk) - contrast.base_scores)[:, None]
        else:
            others = [at for at, layer in enumerate(dropped) if layer != number]
            gradients = {
                "mid": torch.stack([mid[at][number] for at in others]),
                "after": torch.stack([around[at][number + 1] for at in others]),
            }
            found = score_chunk(contrast, chunk, partial(_first_order_effect, gradients))
        found = -contrast.sign * found if dropped == [None] else np.abs(found)
        effects[tuple(np.array(chunk.edges).T)] = found.mean(1)
        done += len(chunk.edges)
    if progress is not None:
        progress(total, total)
    attrs = {"method": method, "passes": len(dropped), **contrast.describe()}
    if dropped != [None]:
        attrs |= no_support("Never negative: the size of the effect.")
    return EdgeScores.from_array(graph, effects, **attrs, seconds=time.perf_counter() - began)


def _layer_gradients(contrast: Contrast, dropped: int | None) -> tuple[list[Tensor], list[Tensor]]:
    run = trace_run(contrast, contrast.resid[0].clone().requires_grad_(), dropped=dropped)
    return gradients_at_writes(contrast, run)


def _first_order_effect(
    gradients: Mapping[str, Float[Tensor, "dropped pair token d_model"]],
    where: str,
    base: Float[Tensor, "pair token d_model"],
    rows: Float[Tensor, "row token d_model"],
) -> Float[np.ndarray, "arm dropped pair"]:
    """How the change in each row changes the metric, to first order from there on."""
    change = rows.reshape(-1, *base.shape) - base
    # [arm, pair, token, d_model] x [dropped, pair, token, d_model]
    return torch.einsum("abtd,nbtd->anb", change, gradients[where]).double().cpu().numpy()
