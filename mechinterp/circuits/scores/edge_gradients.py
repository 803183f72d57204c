"""Gradients at what every reader reads, and the edge scores that follow from them.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast
>>> from mechinterp.circuits.scores.edge_gradients import trace_run
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> run = trace_run(contrast, contrast.resid[0].clone().requires_grad_())
>>> [read.kind for read in run.reads]
['q', 'k', 'v', 'q', 'k', 'v', 'logits']

A run holds several points of an integration path as rows, each with all pairs. Each point has a
share; the shares of a mean add up to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.circuits.contrast import Contrast, Resid
from mechinterp.circuits.graph import KINDS
from mechinterp.core.modes import gradients_on
from mechinterp.engine.scoring import total_score

EdgeValues = Float[np.ndarray, "writer reader pos pair"]


@dataclass(frozen=True, eq=False)
class ReaderInput:
    """What the readers of one kind read in a layer.

    `value`: where the gradient is taken; for heads their queries, keys or values. `resid`: the
    residual stream from which these were computed.
    """

    layer: int | None
    kind: str
    value: Tensor
    resid: Resid


@dataclass(frozen=True, eq=False)
class Trace:
    """A run from some layer on, recorded for gradients.

    `resids`: the residual stream before each of its layers, and after the last. `total`: the
    metric, summed over points and pairs.
    """

    resids: tuple[Tensor, ...]
    reads: tuple[ReaderInput, ...]
    total: Float[Tensor, ""]


def trace_run(
    contrast: Contrast, resid: Resid, layer: int = 0, dropped: int | None = None
) -> Trace:
    """Run the model from the residual stream before a layer, which must require a gradient.

    `dropped`: a layer through whose attention and MLP no gradient flows.

    Raises:
        ValueError: if the metric has no gradient.
    """
    graph, resids, reads = contrast.graph, [resid], []
    with gradients_on():
        for number in range(layer, graph.n_layers):
            passed, skip = contrast.run_layer(number, resids[-1]), contrast.n_skipped(number)
            for kind, value in zip(KINDS, (passed.q, passed.k, passed.v), strict=True):
                read = resids[-1][:, skip * (kind == "q") :]
                reads.append(ReaderInput(number, kind, value, read))
            if passed.mlp_in is not None:
                reads.append(ReaderInput(number, "mlp", passed.mlp_in, passed.mlp_in))
            around = resids[-1][:, skip:]
            wrote = (passed.resid - around).detach() if number == dropped else None
            resids.append(passed.resid if wrote is None else around + wrote)
        reads.append(ReaderInput(None, "logits", resids[-1], resids[-1]))
        output, _, n_points = contrast.output(resids[-1])
        every = slice(0, contrast.n_pairs)
        total = total_score(contrast.metric, output, n_points, every, contrast.n_pairs)
    return Trace(tuple(resids), tuple(reads), total)


def gradients_at(total: Float[Tensor, ""], values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradient at each value; zero where the metric does not depend on it."""
    return torch.autograd.grad(total, values, allow_unused=True, materialize_grads=True)


def gradients_at_writes(contrast: Contrast, run: Trace) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients in the residual stream: around each layer, and where its heads write.

    The first list has one before each layer and one after the last. Heads write into what the MLP
    of their layer reads, or, in a parallel model or without MLPs, into the stream after the layer.
    """
    reads = [read.value for read in run.reads if read.kind == "mlp"]
    found = gradients_at(run.total, [*run.resids, *reads])
    around, into_mlp = found[: len(run.resids)], found[len(run.resids) :]
    if not reads or contrast.graph.is_parallel:
        return list(around), list(around[1:])
    return list(around), [a + b for a, b in zip(around[1:], into_mlp, strict=True)]


def edge_scores(
    contrast: Contrast,
    total: Float[Tensor, ""],
    reads: Sequence[ReaderInput],
    shares: Float[Tensor, " point"],
    writers: slice = slice(None),
) -> EdgeValues:
    """The scores of the edges out of some writers by one run, summed over points by their share."""
    change = contrast.change[writers]
    graph, first = contrast.graph, writers.start or 0
    scores = np.zeros((len(change), *graph.edges.shape[1:], contrast.n_pairs))
    for read, gradient in zip(reads, gradients_at(total, [r.value for r in reads]), strict=True):
        at = graph.readers_of(read.layer, read.kind)
        if read.kind in KINDS:
            gradient = _gradient_at_inputs(contrast, read, gradient, at.stop - at.start)
        else:
            gradient = gradient[:, :, None]
        n = graph.n_writers_before(graph.inputs[at.start]) - first
        mean = mean_gradient(contrast, gradient, shares)  # [pair, token, reader, d_model]
        skip = change.shape[2] - mean.shape[1]
        # [writer, pair, token, d_model] x [pair, token, reader, d_model]
        products = torch.einsum("wbtd,btrd->wrbt", change[:n, :, skip:], mean)
        scores[:n, at] -= contrast.sign * sum_by_position(contrast, products)
    return scores


def mean_gradient(
    contrast: Contrast, gradient: Float[Tensor, "row token *axes"], shares: Float[Tensor, " point"]
) -> Float[Tensor, "pair token *axes"]:
    """The mean of a gradient over points, weighted by their shares."""
    by_point = gradient.reshape(len(shares), contrast.n_pairs, *gradient.shape[1:])
    return torch.einsum("n,n...->...", shares, by_point)


def sum_by_position(
    contrast: Contrast, products: Float[Tensor, "*part pair token"]
) -> Float[np.ndarray, "*part pos pair"]:
    """Sums over the tokens of each position of the graph; the first tokens may be missing."""
    graph_pos = contrast.graph_pos[:, contrast.graph_pos.shape[1] - products.shape[-1] :]
    positions = range(contrast.graph.n_positions)
    sums = [(products * (graph_pos == pos).to(products)).sum(-1) for pos in positions]
    found: Float[np.ndarray, "*part pos pair"] = torch.stack(sums, -2).double().cpu().numpy()
    return found


def _gradient_at_inputs(
    contrast: Contrast,
    read: ReaderInput,
    gradient: Float[Tensor, "row token head d_head"],
    n_readers: int,
) -> Float[Tensor, "row token reader d_model"]:
    """The gradient at what each head reads, from that at its queries, keys or values."""
    assert read.layer is not None
    resid = read.resid.detach()
    first = contrast.first + contrast.resid[0].shape[1] - resid.shape[1]
    # Each reader gets a copy of the stream, so that its gradient is had apart from the others'.
    shared = resid[:, :, None].expand(-1, -1, n_readers, -1)
    with gradients_on():
        inputs = shared.detach().requires_grad_()
        projected = contrast.layer(read.layer).project(read.kind, inputs, first)
    (found,) = torch.autograd.grad(projected, inputs, gradient)
    return found
