"""EAP-IG over activations: the mean gradient while the writers of one layer are interpolated.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, eap_ig_activations
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> refuse = log_prob(token_id(model, "REFUSE"))
>>> found = eap_ig_activations(Contrast.from_pair(model, pair, refuse, ablate="zero"), steps=20)
>>> sorted(name for name, score in found.strongest(2))
['a1.h0->logits', 'input->a1.h0<v>']

`eap_ig` interpolates the embedding, and so needs a second run. Here the output of each writer is
interpolated itself, towards any replacement: zero and means too.
"""

import time

import numpy as np
import torch
from jaxtyping import Float

from mechinterp.circuits.circuit import EdgeScores
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.scores.eap import check_points, path_points
from mechinterp.circuits.scores.edge_gradients import (
    EdgeValues,
    ReaderInput,
    edge_scores,
    trace_run,
)
from mechinterp.circuits.scores.nodes import Continuation, continuation_after
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import gradients_off, gradients_on, takes_gradients
from mechinterp.sweeps.options import Progress
from mechinterp.sweeps.planner import CPU_POSITIONS


@checks_arguments
@takes_gradients
def eap_ig_activations(
    contrast: Contrast,
    steps: int = 5,
    *,
    rule: str = "right",
    progress: Progress | None = None,
) -> EdgeScores:
    """EAP with the mean gradient on the path from each layer's writers to their replacement.

    The input, all heads of a layer together, and each MLP are interpolated one group after another,
    at `steps` points placed as in `eap_ig`; everything later in the model responds. The gradients
    score the edges out of the group alone. So the edges out of the heads of a layer add up to the
    effect of replacing all these heads. The `attrs` say where this fails most and by how much, in
    the metric's unit: `residual_at`, `residual`.

    It takes 2 x layers + 1 runs for each point, each from its layer on.

    The published code of the same name is another method. There every run of the same points scores
    all edges, upstream of the interpolated writers too, and the sum is divided by the number of
    runs, (2 x layers + 1) x steps. Most of each score is then the gradient of a run in which
    something else was interpolated.

    Raises:
        ValueError: if the metric has no gradient, or `steps` is not positive.

    Source: integrated gradients, Sundararajan et al. 2017, arXiv 1703.01365; of activations, the
        code of Hanna et al. 2024, arXiv 2403.17806.
    """
    began, graph = time.perf_counter(), contrast.graph
    check_points(steps, rule)
    scores = np.zeros((*graph.edges.shape, contrast.n_pairs))
    residuals = {}
    for group in graph.simultaneous_writers:
        if bool((contrast.change[group] != 0).any()):
            rest = continuation_after(contrast, group)
            scores[group] = _path_scores(contrast, rest, group, path_points(steps, rule))
            name = graph.writers[group.start]
            residuals[name] = _residual(contrast, rest, group, scores[group])
        if progress is not None:
            progress(group.stop, len(graph.nodes))
    attrs: dict[str, object] = {"method": f"EAP-IG (activations), {rule} points", "steps": steps}
    if residuals:
        worst = max(residuals, key=lambda name: abs(residuals[name]))
        attrs |= {"residual_at": worst, "residual": residuals[worst]}
    attrs |= {**contrast.describe(), "seconds": time.perf_counter() - began}
    return EdgeScores.from_array(graph, scores, **attrs)


def _path_scores(
    contrast: Contrast, rest: Continuation, writers: slice, points: list[float]
) -> EdgeValues:
    """The mean, over points, of the scores of the edges out of some writers, all interpolated."""
    total = contrast.change[writers].sum(0)[:, -rest.resid.shape[1] :]
    scores = np.zeros(
        (writers.stop - writers.start, *contrast.graph.edges.shape[1:], total.shape[0])
    )
    size = max(1, CPU_POSITIONS // total[..., 0].numel())
    for begin in range(0, len(points), size):
        at = torch.tensor(points[begin : begin + size]).to(total)
        resid = rest.resid + at[:, None, None, None] * total
        resid = resid.flatten(0, 1).detach().requires_grad_()
        with gradients_on():
            reads = []
            if rest.mlp is not None:
                read = resid.view_as(resid)  # a view, so that its gradient is this reader's alone
                reads.append(ReaderInput(rest.number - 1, "mlp", read, read))
                resid = resid + rest.mlp.mlp(read)
            run = trace_run(contrast, resid, rest.number)
        shares = torch.full_like(at, 1 / len(points))
        scores += edge_scores(contrast, run.total, [*reads, *run.reads], shares, writers)
    return scores


def _residual(contrast: Contrast, rest: Continuation, writers: slice, scores: EdgeValues) -> float:
    """The sum of the scores of the edges out of the writers, minus the effect of replacing all."""
    with gradients_off():
        (other,) = rest.score(contrast, contrast.change[writers].sum(0, keepdim=True))
    effect: Float[np.ndarray, " pair"] = contrast.sign * (contrast.base_scores - other)
    return float((scores.sum((0, 1, 2)) - effect).mean())
