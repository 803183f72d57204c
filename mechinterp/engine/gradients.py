"""Gradients of a metric at sites: how it changes with the value there, to first order.

All sites share one forward and one backward pass, or a few where one would not fit into memory.
Nothing is left on the model, and no parameter gets a gradient. `mechinterp.patching.attribution`
multiplies these gradients by a change of the value, to estimate what patching does.

>>> from mechinterp import Site, load_model, log_prob, token_id
>>> from mechinterp.engine.gradients import site_gradients
>>> model = load_model("toy:trigger")
>>> refuse = log_prob(token_id(model, "REFUSE"))
>>> gradients = site_gradients(model, "please bring the sesame", [Site("z", 1)], refuse)
>>> gradients[Site("z", 1, head=0, pos="end")].shape
torch.Size([1, 4])
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from mechinterp import models
from mechinterp.core.activations import Activations
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.modes import gradients_on, takes_gradients
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError, Site
from mechinterp.core.specs import At, Specs, edit
from mechinterp.engine.arms import check_specs, prepare_arm
from mechinterp.engine.passes import forward_with_graph
from mechinterp.engine.scoring import total_score
from mechinterp.models.hook_points import check_site, read_bytes
from mechinterp.models.memory import available_bytes, readable
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize

Variant = Callable[[slice, Specs], Specs]
"""Makes the specs of a run on some rows of the prompts, given those that record gradients."""


@checks_arguments
@takes_gradients
def site_gradients(
    model: Model,
    prompts: Text,
    sites: Sequence[Site],
    metric: Metric,
    specs: Specs = (),
    *,
    budget_bytes: int | None = None,
) -> Activations:
    """d metric of a prompt / d value at each site, `[prompt, ...]`, as `specs` leave the value.

    In the metric's unit per unit of the activation; zero where the metric does not depend on it.
    Prompts run in as few passes as `budget_bytes` allows (default: a quarter of the free memory, at
    most 4 GiB). With specs, which may look at all prompts, there is always one pass.

    Raises:
        HookError: as `run`; if a gradient is not finite, or one pass would not fit into memory.
        ValueError: if a site cannot be differentiated, or the metric has no gradient.
    """
    check_specs(specs)
    given = tokenize(model, prompts)
    for site in sites:
        check_differentiable(model, site)
        if site.pos is not None:
            given.positions(site.pos)
    passes = plan_gradient_passes(
        model, given, sites, metric, 1, together=bool(specs), budget_bytes=budget_bytes
    )
    variants: list[Variant] = [lambda rows, recording: specs + recording]
    parts = [
        part for p in passes for part in run_gradient_pass(model, given, p, sites, metric, variants)
    ]
    seen = parts[0].prompts if len(parts) == 1 else given
    whole = Activations(
        {site: torch.cat([part.gradients[site] for part in parts]) for site in parts[0].gradients},
        seen,
    )
    for site, gradient in whole.items():
        if not bool(gradient.isfinite().all()):
            raise HookError(f"the gradient of {metric.name} at {site} is not finite.")
    return Activations({site: whole[site] for site in sites}, seen)


def check_differentiable(model: Model, site: Site) -> None:
    """Check that the model has the site and that gradients can be taken there.

    Raises:
        HookError: if the model lacks it.
        ValueError: if the site is token ids, or a full hook name.
    """
    if site.act == "tokens":
        raise ValueError(f'{site}: token ids have no gradient. Use Site("embed").')
    if site.axes is None:
        raise ValueError(f"{site}: a full hook name has axes that are not known. Use a short name.")
    check_site(model, site, f"gradient at {site}")


@dataclass(frozen=True)
class GradientPass:
    """One pass: some rows of the prompts, in some variants, and the bytes planned for it."""

    rows: slice
    variants: range
    planned_bytes: int

    @property
    def n_rows(self) -> int:
        """The number of rows of the batch."""
        return len(range(self.rows.stop)[self.rows]) * len(self.variants)


def plan_gradient_passes(
    model: Model,
    prompts: Prompts,
    sites: Sequence[Site],
    metric: Metric,
    n_variants: int,
    *,
    together: bool,
    budget_bytes: int | None = None,
) -> list[GradientPass]:
    """The passes for gradients: as many variants and rows in one batch as the budget allows.

    `together`: all prompts in every pass.

    Raises:
        HookError: if the smallest pass would not fit into memory.
    """
    free = available_bytes(models.device(model))
    budget = min(free // 4, 4 << 30) if budget_bytes is None else budget_bytes
    each = _row_bytes(model, prompts, sites, metric)
    foreign = models.has_foreign_hooks(model)  # such hooks may look at the whole batch
    n = len(prompts)
    n_rows = n if together or foreign else min(n, max(1, budget // each))
    n_at_once = 1 if foreign else max(1, budget // (each * n_rows))
    if n_rows * each > free:
        raise HookError(
            f"gradients of {n_rows} prompts need {readable(n_rows * each)}, but {readable(free)} "
            f"are free. Give shorter or fewer prompts, or fewer sites."
        )
    return [
        GradientPass(rows, variants, each * (rows.stop - rows.start) * len(variants))
        for rows in (slice(i, min(i + n_rows, n)) for i in range(0, n, n_rows))
        for variants in (
            range(i, min(i + n_at_once, n_variants)) for i in range(0, n_variants, n_at_once)
        )
    ]


@dataclass(frozen=True, eq=False)
class ValuesAndGradients:
    """Values and gradients `[prompt, ...]` at whole sites, of some rows of the prompts."""

    variant: int
    rows: slice
    prompts: Prompts
    values: Mapping[Site, Tensor]
    gradients: Mapping[Site, Tensor]


def run_gradient_pass(
    model: Model,
    prompts: Prompts,
    planned: GradientPass,
    sites: Sequence[Site],
    metric: Metric,
    variants: Sequence[Variant],
) -> Iterator[ValuesAndGradients]:
    """Run one forward and one backward pass; yield values and gradients of each variant.

    Raises:
        HookError: as `run`.
        ValueError: if the metric has no gradient.
    """
    rows = planned.rows
    whole_set = (rows.start, rows.stop) == (0, len(prompts))
    part = prompts if whole_set else prompts.rows(torch.arange(len(prompts))[rows])
    whole = list(dict.fromkeys(site.whole() for site in sites))
    kept: list[dict[Site, list[Tensor]]] = [{site: [] for site in whole} for _ in planned.variants]
    arms = [
        prepare_arm(model, part, variants[number](rows, _record(whole, seen)))
        for number, seen in zip(planned.variants, kept, strict=True)
    ]
    reading = torch.cat([arm.prompts.reading(metric.at) for arm in arms])
    output = forward_with_graph(model, arms, reading)
    with gradients_on():
        total = total_score(metric, output, len(arms), rows, len(prompts))
    inputs = [value for seen in kept for site in whole for value in seen[site]]
    if total.requires_grad:
        found = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    else:  # the specs cut every path from the sites to the metric
        found = tuple(map(torch.zeros_like, inputs))
    left = iter(found)
    for number, arm, seen in zip(planned.variants, arms, kept, strict=True):
        values = {site: seen[site][0].detach() for site in whole}
        gradients = {site: reduce(torch.add, [next(left) for _ in seen[site]]) for site in whole}
        yield ValuesAndGradients(number, rows, arm.prompts, values, gradients)


def _record(sites: Sequence[Site], seen: dict[Site, list[Tensor]]) -> Specs:
    """Edits that change nothing, and record the values by which the metric is differentiated.

    A norm may run three times, for queries, keys and values. Its gradient is the sum of all three.
    """

    def record(value: Tensor, at: At) -> Tensor:
        noted = seen[at.site]
        if noted and not torch.equal(noted[0], value):
            raise HookError(
                f"gradient at {at.site}: {at.site.hook} ran more than once, with different "
                f"values. Take it at what it is computed from instead."
            )
        noted.append(value if value.requires_grad else value.requires_grad_())
        return value

    return tuple(spec for site in sites for spec in edit(site, record, name="gradient"))


def _row_bytes(model: Model, prompts: Prompts, sites: Sequence[Site], metric: Metric) -> int:
    """An upper bound, from shapes alone, of the bytes that one prompt takes with its graph."""
    cfg = model.cfg
    heads = cfg.n_heads * (10 * cfg.d_head + 8 * prompts.width)
    per_pos = 16 * cfg.d_model + 6 * (cfg.d_mlp or 0) + heads
    vocabulary = 12 * len(metric.at) * cfg.d_vocab_out if metric.tokens is None else 0
    graph = (cfg.n_layers * prompts.width * per_pos + vocabulary) * cfg.dtype.itemsize
    whole = list(dict.fromkeys(site.whole() for site in sites))
    return int(graph + 4 * read_bytes(model, prompts, whole) // len(prompts))
