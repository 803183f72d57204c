"""The error for a metric that is not finite: it names the first activation that was not.

>>> from mechinterp import HookError, Site, load_model, log_prob, put, sweep
>>> try:
...     sweep(load_model("toy:trigger"), "bring the sesame", {"layer": [1]},
...           lambda layer: put(Site("attn_out", layer), float("nan")), log_prob(2))
... except HookError as error:
...     print(str(error).split(". ")[1])
It began at blocks.1.hook_attn_out.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from mechinterp.core.metrics import Metric
from mechinterp.core.sites import HookError
from mechinterp.engine.arms import Arm
from mechinterp.engine.passes import forward
from mechinterp.models.model import Model


def not_finite_error(
    model: Model, arm: Arm, reading: Tensor, metrics: Sequence[Metric]
) -> HookError:
    """Run an arm again and say where its numbers first stopped being finite."""
    first: list[str] = []

    def watch(name: str, value: Tensor) -> None:
        masked = name.endswith("hook_attn_scores")  # the causal mask is made of -inf
        fine = ~value.isnan() if masked else value.isfinite()
        if not first and not bool(fine.all()):
            first.append(name)

    names = ", ".join(m.name for m in metrics)
    specs = " + ".join(s.name for s in arm.specs) or "no specs"
    again = replace(arm, reads={s: v for s, v in arm.reads.items() if s.act == "tokens"})
    forward(model, [again], reading, watch=watch)
    where = f"It began at {first[0]}." if first else "Every activation is finite: see the metric."
    return HookError(f"{names} is not finite for {dict(arm.point)} ({specs}). {where}")
