"""EAP-IG over activations: the gradient's mean while one layer's writers go over to the other side.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, eap_ig_activations
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> refuse = log_prob(token_id(model, "REFUSE"))
>>> found = eap_ig_activations(Contrast.from_pair(model, pair, refuse, ablate="zero"), steps=20)
>>> sorted(name for name, score in found.strongest(2))
['a1.h0->logits', 'input->a1.h0<v>']

`eap_ig` moves the embedding, and so needs another run to move it to; here what each writer writes
is moved itself, to anything that replaces it, zero and means too.
"""

import time
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechinterp.circuits.circuit import EdgeScores
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.scores.eap import check_points, points
from mechinterp.circuits.scores.edge_gradients import Read, Scores, edge_scores, traced
from mechinterp.circuits.scores.nodes import Onset, onset
from mechinterp.sweeps.options import Progress
from mechinterp.sweeps.planner import CPU_POSITIONS


def eap_ig_activations(
    contrast: Contrast,
    steps: int = 5,
    *,
    rule: str = "right",
    progress: Progress | None = None,
) -> EdgeScores:
    """EAP with the mean gradient on the way of each layer's writers to what replaces them.

    The input, the heads of a layer together, and each MLP go that way one after another, in `steps`
    points placed as in `eap_ig`; what comes later answers. The gradients there score the edges out
    of these writers, and no others. So the edges out of the heads of a layer add up to the effect
    of replacing them all; the `attrs` say by how much that fails, in the metric's unit, where it
    fails most: `residual`, `residual_at`.

    It takes 2 x layers + 1 runs for each point, each from its layer on.

    The published code, of the same name, is another method: there every run of the same points
    scores all edges, upstream of the moved writers too, and the sum is divided by the number of
    runs, (2 x layers + 1) x steps, so that most of each score is the gradient of a run in which
    something else was moved.

    Raises:
        ValueError: if the metric has no gradient, or `steps` is not positive.

    Source: integrated gradients, Sundararajan et al. 2017, arXiv 1703.01365; of activations, the
        code of Hanna et al. 2024, arXiv 2403.17806.
    """
    began, graph = time.perf_counter(), contrast.graph
    check_points(steps, rule)
    scores = np.zeros((*graph.edges.shape, contrast.n_pairs))
    missed = {}
    for group in graph.together:
        if bool((contrast.change[group] != 0).any()):
            at = onset(contrast, group)
            scores[group] = _moved(contrast, at, group, points(steps, rule))
            missed[graph.writers[group.start]] = _missed(contrast, at, group, scores[group])
        if progress is not None:
            progress(group.stop, len(graph.nodes))
    attrs: dict[str, object] = {"method": f"EAP-IG (activations), {rule} points", "steps": steps}
    if missed:
        attrs["residual_at"] = max(missed, key=lambda name: abs(missed[name]))
        attrs["residual"] = missed[str(attrs["residual_at"])]
    attrs |= {**contrast.as_read(), "seconds": time.perf_counter() - began}
    return EdgeScores.from_array(graph, scores, **attrs)


def _moved(contrast: Contrast, at: Onset, writers: slice, shares: list[float]) -> Scores:
    """The mean, over points, of the scores of the edges out of some writers, all moved so far."""
    total = contrast.change[writers].sum(0)[:, -at.resid.shape[1] :]
    found: Any = 0
    size = max(1, CPU_POSITIONS // total[..., 0].numel())
    for begin in range(0, len(shares), size):
        share = torch.tensor(shares[begin : begin + size]).to(total)
        resid = at.resid + share[:, None, None, None] * total
        resid = resid.flatten(0, 1).detach().requires_grad_()
        with torch.enable_grad():
            reads = []
            if at.mlp is not None:
                read = resid.view_as(resid)  # of its own, for the gradient of this reader alone
                reads.append(Read(at.number - 1, "mlp", read, read))
                resid = resid + at.mlp.mlp(read)
            run = traced(contrast, resid, at.number)
        weights = torch.full_like(share, 1 / len(shares))
        found = found + edge_scores(contrast, run.total, [*reads, *run.reads], weights, writers)
    summed: Scores = found
    return summed


def _missed(contrast: Contrast, at: Onset, writers: slice, scores: Scores) -> float:
    """What the edges out of the writers score, beyond the effect of replacing all of these."""
    with torch.no_grad():
        (other,) = at.score(contrast, contrast.change[writers].sum(0, keepdim=True))
    effect: Float[np.ndarray, " pair"] = contrast.sign * (contrast.base_scores - other)
    return float((scores.sum((0, 1, 2)) - effect).mean())
