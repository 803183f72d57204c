"""Edge scores from gradients: all edges for a few passes, to first order.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import contrast, eap, eap_ig
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> between = contrast(model, pair, log_prob(token_id(model, "REFUSE")))
>>> sorted(name for name, score in eap(between).strongest(3))
['a1.h0->logits', 'input->a1.h0<k>', 'input->a1.h0<v>']
>>> found = eap_ig(between, steps=None)
>>> found.per_pair.attrs["steps"], found.per_pair.attrs["residual_share"] < 0.01
(10, True)

An edge's score is what its writer changes, times the gradient of the metric at what its reader
reads, through the reader's own norm; positive, as in `exact`, where the edge supports the metric.
It is the sum over positions, and the mean over pairs: divided by their number once.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.axes import check_choice
from mechinterp.blocks import Layer
from mechinterp.circuits.circuit import EdgeScores
from mechinterp.circuits.contrasts import Contrast
from mechinterp.circuits.graph import KINDS
from mechinterp.circuits.replay import MOST_POSITIONS
from mechinterp.scoring import total_score

Scores = Float[np.ndarray, "writer reader label pair"]

_OFFSETS = {"left": 1.0, "midpoint": 0.5, "right": 0.0}
"""How far a point is towards what replaces the embedding, in steps."""

_SETTLED = 0.01
"""The completeness residual, as a share of the whole difference, at which adaptive steps end."""

_MOST_STEPS = 320


def eap(between: Contrast) -> EdgeScores:
    """Edge attribution patching: the change times the gradient of the unchanged run.

    It errs where the metric is curved between the runs: compare `attrs["residual"]`, what the edges
    out of the embedding miss of the whole difference, which they carry all together.

    Raises:
        ValueError: if the metric has no gradient.

    Source: Syed et al. 2023, arXiv 2310.10348.
    """
    began = time.perf_counter()
    return _made(between, "EAP", _on_way(between, [0.0]), 1, began)


def eap_ig(between: Contrast, steps: int | None = 5, *, rule: str = "right") -> EdgeScores:
    """EAP with integrated gradients: the mean gradient on the way from one run to the other.

    The embedding stands at `steps` points between what replaces it (0) and the unchanged run's (1):
    `rule="right"`: 1/m, 2/m ... 1, as in the paper; "left": 0 ... (m - 1)/m, as in its code for
    edges; "midpoint". No rule of five points is best everywhere: `attrs["residual"]` is what the
    edges out of the embedding, which carry the whole difference between the runs, miss of it, in
    the metric's unit. `steps=None`: the trapezoid rule, doubled until the residual is under 1% of
    the difference, or 320 steps.

    Raises:
        ValueError: if the metric has no gradient, `steps` is not positive, or edges are replaced
            by something else than the other run, to which there is no way.

    Source: Hanna et al. 2024, section 3, arXiv 2403.17806.
    """
    began = time.perf_counter()
    _check_way(between, steps, rule)
    if steps is not None:
        points = [(step + _OFFSETS[rule]) / steps for step in range(steps)]
        return _made(between, f"EAP-IG, {rule} points", _on_way(between, points), steps, began)
    steps, scores = 5, _on_way(between, [i / 5 for i in range(6)], [0.5, 1.0, 1.0, 1.0, 1.0, 0.5])
    while _residual_share(between, scores) > _SETTLED and steps < _MOST_STEPS:
        between_them = _on_way(between, [(step + 0.5) / steps for step in range(steps)])
        steps, scores = 2 * steps, (scores + between_them) / 2
    return _made(between, "EAP-IG, adaptive", scores, steps, began)


def _made(between: Contrast, method: str, scores: Scores, steps: int, began: float) -> EdgeScores:
    attrs: dict[str, object] = {"method": method, "steps": steps, **between.as_read()}
    if between.is_patched:
        missed = scores[0].sum((0, 1)) - _difference(between)
        attrs["residual"] = float(missed.mean())
        attrs["residual_share"] = _residual_share(between, scores)
    seconds = time.perf_counter() - began
    return EdgeScores.of(between.graph, scores, **attrs, seconds=seconds)


def _check_way(between: Contrast, steps: int | None, rule: str) -> None:
    if not between.is_patched:
        raise ValueError(
            f"edges are replaced by {between.ablate}: from the run to that there is no way of "
            f"embeddings. Use eap, or runs made without ablate=."
        )
    check_choice("rule", rule, tuple(_OFFSETS))
    if steps is not None and steps < 1:
        raise ValueError(f"steps={steps}: at least one, or None for as many as it takes.")


def _difference(between: Contrast) -> Float[np.ndarray, " pair"]:
    """What the edges out of the embedding carry together, with the sign of a score."""
    with torch.no_grad():
        (other,) = between.onward(0, between.resid[0] + between.change[0])
    found: Float[np.ndarray, " pair"] = between.sign * (between.base_scores - other)
    return found


def _residual_share(between: Contrast, scores: Scores) -> float:
    """What the edges out of the embedding miss of the difference, as a share of its mean."""
    whole = _difference(between)
    missed = scores[0].sum((0, 1)) - whole
    return float(abs(missed.mean()) / max(abs(whole.mean()), 1e-12))


def _on_way(
    between: Contrast, points: Sequence[float], weights: Sequence[float] | None = None
) -> Scores:
    """The mean, or weighted mean, of the scores at points between the two runs."""
    weights = [1.0] * len(points) if weights is None else weights
    found = np.zeros((*between.graph.edges.shape, between.n_pairs))
    size = max(1, MOST_POSITIONS // between.change[0, ..., 0].numel())
    for begin in range(0, len(points), size):
        some = slice(begin, begin + size)
        at = torch.tensor(points[some]).to(between.change)[:, None, None, None]
        share = torch.tensor(weights[some]).to(between.change) / sum(weights)
        found += _scores_at(between, between.resid[0] + at * between.change[0], share)
    return found


def _scores_at(
    between: Contrast,
    starts: Float[Tensor, "point pair pos d_model"],
    shares: Float[Tensor, " point"],
) -> Scores:
    """Scores by the gradients of runs that start so, each with its share, added up."""
    graph, scores = between.graph, np.zeros((*between.graph.edges.shape, between.n_pairs))
    resids, passed = [starts.flatten(0, 1).detach().requires_grad_()], []
    with torch.enable_grad():
        for number in range(graph.n_layers):
            passed.append(between.run_layer(number, resids[-1]))
            resids.append(passed[-1].resid)
        output, _, n_points = between.output(resids[-1])
        every = slice(0, between.n_pairs)
        total = total_score(between.metric, output, n_points, every, between.n_pairs)
        wanted = [x for p in passed for x in (p.q, p.k, p.v, p.mlp_in) if x is not None]
        found = torch.autograd.grad(
            total, [*wanted, resids[-1]], allow_unused=True, materialize_grads=True
        )
    slopes = iter(found)
    for number in range(graph.n_layers):
        layer, skip = Layer(between.model, number), between.skipped(number)
        resid = resids[number].detach()
        for kind in KINDS:
            from_ = skip if kind == "q" else 0
            n_readers = graph.n_heads if kind == "q" else graph.n_key_readers
            slope = _through_head(
                layer, kind, resid[:, from_:], next(slopes), n_readers, between.first + from_
            )
            _add(between, scores, number, kind, slope, shares)
        if layer.has_mlp:
            _add(between, scores, number, "mlp", next(slopes)[:, :, None], shares)
    _add(between, scores, None, "logits", next(slopes)[:, :, None], shares)
    return scores


def _through_head(
    layer: Layer,
    kind: str,
    resid: Float[Tensor, "row pos d_model"],
    slope: Float[Tensor, "row pos head d_head"],
    n_readers: int,
    first: int,
) -> Float[Tensor, "row pos reader d_model"]:
    """The gradient at what each head reads, from that at its queries, keys or values."""
    shared = resid[:, :, None].expand(-1, -1, n_readers, -1)
    with torch.enable_grad():
        inputs = shared.detach().requires_grad_()
        made = layer.project(kind, inputs, first)
    (found,) = torch.autograd.grad(made, inputs, slope)
    return found


def _add(
    between: Contrast,
    scores: Scores,
    layer: int | None,
    kind: str,
    slope: Float[Tensor, "row pos input d_model"],
    shares: Float[Tensor, " point"],
) -> None:
    """Add what the edges into the readers of a kind score, summed over positions, by label."""
    graph = between.graph
    readers = graph.readers_of(layer, kind)
    n = graph.n_writers_before(graph.inputs[readers.start])
    by_point = slope.reshape(len(shares), between.n_pairs, *slope.shape[1:])
    mean = torch.einsum("n,nbprd->bprd", shares, by_point)
    skip = between.change.shape[2] - mean.shape[1]
    products = torch.einsum("wbpd,bprd->wrbp", between.change[:n, :, skip:], mean)
    for label in range(graph.n_positions):
        here = (between.place[:, skip:] == label).to(products)
        total = (products * here).sum(-1).double().cpu().numpy()
        scores[:n, readers, label] -= between.sign * total
