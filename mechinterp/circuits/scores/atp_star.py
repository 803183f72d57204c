"""Edge scores with the two corrections of AtP*: a reader answers exactly, and layers are dropped.

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

A gradient through a saturated softmax is near zero, whatever the change. Here the attention (and
the MLP) that reads an edge is run again with the change, and only what that writes is taken on by
the gradient. Where two ways cancel in the unchanged run, the gradient with one layer dropped at a
time shows what either carries.
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
from mechinterp.circuits.scores.edge_gradients import slopes_written, traced
from mechinterp.circuits.scores.exact_edges import chunked, edges_of, patched, says_else
from mechinterp.sweeps.options import Progress


def qk_fixed_edges(
    contrast: Contrast, edges: Circuit | None = None, *, progress: Progress | None = None
) -> EdgeScores:
    """The exact change of what an edge's reader writes, times the gradient there; by pair.

    Sign and unit as `exact_edges`; of edges into the logits, which have no more ahead, it is exact.
    All edges unless some are given. About a seventh of the cost of `exact_edges`.

    Raises:
        ValueError: if the metric has no gradient, or the edges are of another graph.

    Source: Kramár et al. 2024 (AtP*), section 3.1.1, arXiv 2403.00745, of edges.
    """
    return _scored(contrast, edges, [None], "EAP, QK fix", progress)


def atp_star_edges(
    contrast: Contrast, edges: Circuit | None = None, *, progress: Progress | None = None
) -> EdgeScores:
    """The same with GradDrop: how large an effect is, without its sign.

    The mean over layers, but for the reader's own, of the size of `qk_fixed_edges` with the
    gradient through that layer dropped; one backward pass a layer.

    Raises:
        ValueError: if the model has one layer alone, or as `qk_fixed_edges`.

    Source: Kramár et al. 2024 (AtP*), sections 3.1.1 and 3.1.2, arXiv 2403.00745, of edges.
    """
    n_layers = contrast.graph.n_layers
    if n_layers < 2:
        raise ValueError("AtP* drops a layer's gradient, and this model has one layer alone.")
    return _scored(contrast, edges, list(range(n_layers)), "AtP*", progress)


def _scored(
    contrast: Contrast,
    edges: Circuit | None,
    dropped: Sequence[int | None],
    method: str,
    progress: Progress | None,
) -> EdgeScores:
    """Edges by the gradients with each of these layers dropped, of which the sizes are averaged."""
    began, graph = time.perf_counter(), contrast.graph
    wanted, speaks = edges_of(contrast, edges), says_else(contrast)[:, None]
    around, mid = zip(*(_slopes(contrast, layer) for layer in dropped), strict=True)
    effects = np.full((*wanted.shape, contrast.n_pairs), np.nan)
    effects[wanted & ~speaks] = 0.0  # what is replaced by itself
    done, total = 0, int((wanted & speaks).sum())
    for chunk in chunked(contrast, wanted & speaks):
        if progress is not None:
            progress(done, total)
        number = chunk.layer
        if number == graph.n_layers:
            found = (patched(contrast, chunk) - contrast.base_scores)[:, None]
        else:
            others = [at for at, layer in enumerate(dropped) if layer != number]
            slopes = {
                "mid": torch.stack([mid[at][number] for at in others]),
                "after": torch.stack([around[at][number + 1] for at in others]),
            }
            found = patched(contrast, chunk, partial(_by_slope, slopes))
        found = -contrast.sign * found if dropped == [None] else np.abs(found)
        effects[tuple(np.array(chunk.edges).T)] = found.mean(1)
        done += len(chunk.edges)
    if progress is not None:
        progress(total, total)
    attrs = {"method": method, "passes": len(dropped), **contrast.as_read()}
    if dropped != [None]:
        attrs["sign"] = "size of the effect"
    return EdgeScores.from_array(graph, effects, **attrs, seconds=time.perf_counter() - began)


def _slopes(contrast: Contrast, dropped: int | None) -> tuple[list[Tensor], list[Tensor]]:
    run = traced(contrast, contrast.resid[0].clone().requires_grad_(), dropped=dropped)
    return slopes_written(contrast, run)


def _by_slope(
    slopes: Mapping[str, Float[Tensor, "dropped pair pos d_model"]],
    where: str,
    unchanged: Float[Tensor, "pair pos d_model"],
    rows: Float[Tensor, "row pos d_model"],
) -> Float[np.ndarray, "arm dropped pair"]:
    """What the change of each row does to the metric, to first order from there on."""
    change = rows.reshape(-1, *unchanged.shape) - unchanged
    return torch.einsum("abpd,nbpd->anb", change, slopes[where]).double().cpu().numpy()
