"""A metric as a sum over what was written: its slope at the last stream, the norm's scale held.

>>> from mechinterp import Site, centred_logit, load_model, read, run
>>> from mechinterp.engine.linear_readout import final_reading
>>> model, end = load_model("toy:trigger"), Site("resid_post", 1, pos="end")
>>> done = run(model, "please bring the sesame", read(end))
>>> found = final_reading(model, done, [centred_logit(2)], done.acts[end][:, None])
>>> bool(abs(found.total - found.of_parts(done.acts[end][:, None]) - found.constant).max() < 1e-4)
True

With the scale that the final norm divides by taken as it is in the run, logits are linear in the
residual stream, and so is a metric that is linear in the logits: what a part wrote counts by its
product with the slope; what no part wrote, the biases of norm and unembedding, is `constant`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.metrics import Metric
from mechinterp.core.sites import Site
from mechinterp.core.specs import Specs, edit
from mechinterp.engine.arms import planned
from mechinterp.engine.passes import Base, forward
from mechinterp.engine.runner import Run
from mechinterp.models.model import Model


@dataclass(frozen=True, eq=False)
class FinalReading:
    """Metrics of a run, by prompt, and their slopes at the last streams of the positions read."""

    total: Float[np.ndarray, "metric prompt"]
    slopes: Float[Tensor, "metric prompt k d_model"]
    constant: Float[np.ndarray, "metric prompt"]

    def of_parts(
        self, written: Float[Tensor, "prompt k d_model"]
    ) -> Float[np.ndarray, "metric prompt"]:
        """What something that was written there gives, summed over the positions."""
        found = torch.einsum("mpkd,pkd->mp", self.slopes, written.to(self.slopes))
        return np.asarray(found.cpu().numpy())


def final_reading(
    model: Model,
    done: Run,
    metrics: Sequence[Metric],
    resid: Float[Tensor, "prompt k d_model"],
) -> FinalReading:
    """The reading of metrics at the last residual streams, those at the `logits_at` of a run.

    Raises:
        ValueError: if a metric has no gradient.
    """
    leaf = resid.clone().requires_grad_()
    hold: Specs = ()
    if model.cfg.normalization_type is not None:
        hold = edit(Site("ln_final_scale"), lambda scale, at: scale.detach(), name="hold")
    n_layers, (n_prompts, n_read, _) = model.cfg.n_layers, resid.shape
    output = forward(
        model,
        [planned(model, done.prompts, hold)],
        torch.arange(n_read, device=resid.device).expand(n_prompts, -1),
        base=Base({n_layers: leaf}),
        starts=[n_layers],
        differentiable=True,
    )
    with torch.enable_grad():
        again = replace(done, logits=output.logits())
        totals = torch.stack([metric(again).double() for metric in metrics])
        slopes = torch.stack(
            [torch.autograd.grad(each.sum(), leaf, retain_graph=True)[0] for each in totals]
        ).double()
    total = totals.detach().cpu().numpy()
    bare = FinalReading(total, slopes, np.zeros_like(total))
    return replace(bare, constant=total - bare.of_parts(resid))


def bends(metric: Metric, done: Run) -> bool:
    """True if a metric is not linear in the logits of a run."""

    def value(times: float) -> Tensor:
        return metric(replace(done, logits=times * done.logits)).double()

    none, once, twice = (value(times) for times in (0.0, 1.0, 2.0))
    return bool((abs(twice - 2 * once + none) > 1e-3 * (1 + abs(once))).any())


def check_sum(model: Model, what: str, *, by_head: bool) -> None:
    """Nothing, if a logit is a sum of what layers (or heads, `by_head`) wrote.

    Raises:
        ValueError: if it is none.
    """
    if by_head and models.has_norm_after_heads(model):
        raise ValueError(
            f"{what}: this model puts a norm on what all heads of a layer write together, so that "
            f"none has a part of its own."
        )
    if (model.cfg.output_logits_soft_cap or 0) > 0:
        raise ValueError(f"{what}: this model caps its logits, so that they are no sum of parts.")
