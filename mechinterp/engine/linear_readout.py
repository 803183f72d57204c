"""A metric as a sum over what the model's parts wrote, with the final norm's scale held fixed.

>>> from mechinterp import Site, centred_logit, load_model, read, run
>>> from mechinterp.engine.linear_readout import linearize_metrics
>>> model, end = load_model("toy:trigger"), Site("resid_post", 1, pos="end")
>>> done = run(model, "please bring the sesame", read(end))
>>> found = linearize_metrics(model, done, [centred_logit(2)], done.acts[end][:, None])
>>> rest = found.total - found.contribution(done.acts[end][:, None]) - found.constant
>>> bool(abs(rest).max() < 1e-4)
True

If the scale that the final norm divides by is held at its value in the run, logits are linear in
the residual stream, and so is a metric that is linear in the logits. The contribution of a part is
then its output times the metric's gradient at the last residual stream. `constant` is what no part
wrote: the biases of norm and unembedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.metrics import Metric
from mechinterp.core.modes import gradients_on, takes_gradients
from mechinterp.core.sites import Site
from mechinterp.core.specs import Specs, edit
from mechinterp.engine.arms import prepare_arm
from mechinterp.engine.base_run import BaseRun
from mechinterp.engine.batch import Extent
from mechinterp.engine.passes import forward_with_graph
from mechinterp.engine.runner import Run
from mechinterp.models.model import Model


@dataclass(frozen=True, eq=False)
class LinearReadout:
    """Metrics of a run, by prompt, and their gradients at the last residual streams that are read.

    `total` and `constant` are in the metric's unit.
    """

    total: Float[np.ndarray, "metric prompt"]
    gradients: Float[Tensor, "metric prompt k d_model"]
    constant: Float[np.ndarray, "metric prompt"]

    def contribution(
        self, written: Float[Tensor, "prompt k d_model"]
    ) -> Float[np.ndarray, "metric prompt"]:
        """What something that a part wrote adds to each metric, summed over the positions."""
        # m metric, p prompt, k position that is read, d d_model
        found = torch.einsum("mpkd,pkd->mp", self.gradients, written.to(self.gradients))
        return np.asarray(found.cpu().numpy())


@takes_gradients
def linearize_metrics(
    model: Model,
    done: Run,
    metrics: Sequence[Metric],
    resid: Float[Tensor, "prompt k d_model"],
) -> LinearReadout:
    """The metrics of a run as linear functions of `resid`, the last streams at its `logits_at`.

    Raises:
        ValueError: if a metric has no gradient.
    """
    leaf = resid.clone().requires_grad_()
    hold: Specs = ()
    if model.cfg.normalization_type is not None:
        hold = edit(Site("ln_final_scale"), lambda scale, at: scale.detach(), name="hold")
    n_layers, (n_prompts, n_read, _) = model.cfg.n_layers, resid.shape
    # A pass that starts behind the last layer: norm and unembedding alone, at the k positions.
    output = forward_with_graph(
        model,
        [prepare_arm(model, done.prompts, hold)],
        torch.arange(n_read, device=resid.device).expand(n_prompts, -1),
        Extent(BaseRun({n_layers: leaf}), [n_layers]),
    )
    with gradients_on():
        again = replace(done, logits=output.logits())
        totals = torch.stack([metric(again).double() for metric in metrics])
        gradients = torch.stack(
            [torch.autograd.grad(each.sum(), leaf, retain_graph=True)[0] for each in totals]
        ).double()
    total = totals.detach().cpu().numpy()
    bare = LinearReadout(total, gradients, np.zeros_like(total))
    return replace(bare, constant=total - bare.contribution(resid))


def is_nonlinear(metric: Metric, done: Run) -> bool:
    """True if a metric is not linear in the logits of a run: its second difference is not 0."""

    def value(times: float) -> Tensor:
        return metric(replace(done, logits=times * done.logits)).double()

    none, once, twice = (value(times) for times in (0.0, 1.0, 2.0))
    return bool((abs(twice - 2 * once + none) > 1e-3 * (1 + abs(once))).any())


def check_additive(model: Model, what: str, *, by_head: bool) -> None:
    """Check that a logit is a sum over what layers wrote, or heads (`by_head`).

    Raises:
        ValueError: if it is not; `what` names the analysis that needs it.
    """
    if by_head and models.has_norm_after_heads(model):
        raise ValueError(
            f"{what}: this model applies a norm to the summed output of a layer's heads, so a head "
            f"has no contribution of its own. Use whole layers."
        )
    if (model.cfg.output_logits_soft_cap or 0) > 0:
        raise ValueError(
            f"{what}: this model caps its logits, so they are not a sum of parts. Patch instead."
        )
