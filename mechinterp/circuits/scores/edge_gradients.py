"""Runs that can be differentiated, and what edges score by the gradients at what readers read.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast
>>> from mechinterp.circuits.scores.edge_gradients import traced
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> run = traced(contrast, contrast.resid[0].clone().requires_grad_())
>>> [read.kind for read in run.reads]
['q', 'k', 'v', 'q', 'k', 'v', 'logits']

Rows of a run are points, each of all pairs: what a point scores counts by its share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.circuits.contrast import Contrast, Resid
from mechinterp.circuits.graph import KINDS
from mechinterp.engine.scoring import total_score

Scores = Float[np.ndarray, "writer reader label pair"]


@dataclass(frozen=True, eq=False)
class Read:
    """What the readers of a kind read: of heads, the queries, keys or values that they made of it.

    `resid`: the residual stream that it was made of.
    """

    layer: int | None
    kind: str
    value: Tensor
    resid: Resid


@dataclass(frozen=True, eq=False)
class Trace:
    """A run from a layer on. `resids`: the residual stream before each of its layers, and after.

    `total`: the metric, summed over points and pairs.
    """

    resids: tuple[Tensor, ...]
    reads: tuple[Read, ...]
    total: Float[Tensor, ""]


def traced(contrast: Contrast, resid: Resid, layer: int = 0, dropped: int | None = None) -> Trace:
    """The run from the residual stream before a layer on, which has to require a gradient.

    `dropped`: a layer through whose attention and MLP no gradient flows.

    Raises:
        ValueError: if the metric has no gradient.
    """
    graph, resids, reads = contrast.graph, [resid], []
    with torch.enable_grad():
        for number in range(layer, graph.n_layers):
            passed, skip = contrast.run_layer(number, resids[-1]), contrast.skipped(number)
            for kind, value in zip(KINDS, (passed.q, passed.k, passed.v), strict=True):
                reads.append(Read(number, kind, value, resids[-1][:, skip * (kind == "q") :]))
            if passed.mlp_in is not None:
                reads.append(Read(number, "mlp", passed.mlp_in, passed.mlp_in))
            around = resids[-1][:, skip:]
            wrote = (passed.resid - around).detach() if number == dropped else None
            resids.append(passed.resid if wrote is None else around + wrote)
        reads.append(Read(None, "logits", resids[-1], resids[-1]))
        output, _, n_points = contrast.output(resids[-1])
        every = slice(0, contrast.n_pairs)
        total = total_score(contrast.metric, output, n_points, every, contrast.n_pairs)
    return Trace(tuple(resids), tuple(reads), total)


def slopes_at(total: Float[Tensor, ""], values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradient at each value; zero where the metric does not depend on it."""
    return torch.autograd.grad(total, values, allow_unused=True, materialize_grads=True)


def slopes_written(contrast: Contrast, run: Trace) -> tuple[list[Tensor], list[Tensor]]:
    """The gradient before each layer and after the last, and where the heads of each layer write.

    Heads write what the MLP of their layer reads, or, if it reads beside them, after the layer.
    """
    reads = [read.value for read in run.reads if read.kind == "mlp"]
    found = slopes_at(run.total, [*run.resids, *reads])
    around, into_mlp = found[: len(run.resids)], found[len(run.resids) :]
    if not reads or contrast.graph.is_parallel:
        return list(around), list(around[1:])
    return list(around), [a + b for a, b in zip(around[1:], into_mlp, strict=True)]


def edge_scores(
    contrast: Contrast,
    total: Float[Tensor, ""],
    reads: Sequence[Read],
    shares: Float[Tensor, " point"],
    writers: slice = slice(None),
) -> Scores:
    """What the edges out of some writers score by one run, each point with its share, added up."""
    change = contrast.change[writers]
    graph, first = contrast.graph, writers.start or 0
    scores = np.zeros((len(change), *graph.edges.shape[1:], contrast.n_pairs))
    for read, slope in zip(reads, slopes_at(total, [r.value for r in reads]), strict=True):
        at = graph.readers_of(read.layer, read.kind)
        if read.kind in KINDS:
            slope = _through_head(contrast, read, slope, at.stop - at.start)
        else:
            slope = slope[:, :, None]
        n = graph.n_writers_before(graph.inputs[at.start]) - first
        mean = mean_slope(contrast, slope, shares)
        skip = change.shape[2] - mean.shape[1]
        products = torch.einsum("wbpd,bprd->wrbp", change[:n, :, skip:], mean)
        scores[:n, at] -= contrast.sign * by_label(contrast, products)
    return scores


def mean_slope(
    contrast: Contrast, slope: Float[Tensor, "row pos *axes"], shares: Float[Tensor, " point"]
) -> Float[Tensor, "pair pos *axes"]:
    """The mean over points of a gradient."""
    by_point = slope.reshape(len(shares), contrast.n_pairs, *slope.shape[1:])
    return torch.einsum("n,n...->...", shares, by_point)


def by_label(
    contrast: Contrast, products: Float[Tensor, "*part pair pos"]
) -> Float[np.ndarray, "*part label pair"]:
    """Sums over the positions of each label of the graph; the first positions may be missing."""
    place = contrast.place[:, contrast.place.shape[1] - products.shape[-1] :]
    labels = range(contrast.graph.n_positions)
    sums = [(products * (place == label).to(products)).sum(-1) for label in labels]
    found: Float[np.ndarray, "*part label pair"] = torch.stack(sums, -2).double().cpu().numpy()
    return found


def _through_head(
    contrast: Contrast, read: Read, slope: Float[Tensor, "row pos head d_head"], n_readers: int
) -> Float[Tensor, "row pos reader d_model"]:
    """The gradient at what each head reads, from that at its queries, keys or values."""
    assert read.layer is not None
    resid = read.resid.detach()
    first = contrast.first + contrast.resid[0].shape[1] - resid.shape[1]
    shared = resid[:, :, None].expand(-1, -1, n_readers, -1)
    with torch.enable_grad():
        inputs = shared.detach().requires_grad_()
        made = contrast.layer(read.layer).project(read.kind, inputs, first)
    (found,) = torch.autograd.grad(made, inputs, slope)
    return found
