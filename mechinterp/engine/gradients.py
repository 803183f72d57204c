"""Gradients of a metric at sites: how it changes with the value there, to first order.

One forward and one backward pass for all sites; in more passes only where one would not fit into
memory. Nothing is left on the model, and no parameter gets a gradient. What a gradient times a
change of the value says about an experiment is `mechinterp.patching.attribution`.

>>> from mechinterp import Site, load_model, log_prob, token_id
>>> from mechinterp.engine.gradients import site_gradients
>>> model = load_model("toy:trigger")
>>> refuse = log_prob(token_id(model, "REFUSE"))
>>> slope = site_gradients(model, "please bring the sesame", [Site("z", 1)], refuse)
>>> slope[Site("z", 1, head=0, pos="end")].shape
torch.Size([1, 4])
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from mechinterp import models
from mechinterp.core.activations import Activations
from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError, Site
from mechinterp.core.specs import At, Specs, edit
from mechinterp.engine.arms import check_specs, planned
from mechinterp.engine.passes import forward
from mechinterp.engine.scoring import total_score
from mechinterp.models.hook_points import check_site, read_bytes
from mechinterp.models.memory import available_bytes, readable
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize

Variant = Callable[[slice, Specs], Specs]
"""The specs of a run on some rows of the prompts, around those that keep what gradients need."""


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
    Prompts go through in as few passes as `budget_bytes` holds (default: a quarter of the free
    memory, at most 4 GiB); with specs, which may look at all of them, always in one.

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
    chunks = scheduled(model, given, sites, metric, 1, bool(specs), budget_bytes)
    parts = [
        part
        for chunk in chunks
        for part in backward(model, given, chunk, sites, metric, [lambda _, keep: specs + keep])
    ]
    seen = parts[0].prompts if len(parts) == 1 else given
    whole = Activations(
        {site: torch.cat([part.slopes[site] for part in parts]) for site in parts[0].slopes}, seen
    )
    for site, slope in whole.items():
        if not bool(slope.isfinite().all()):
            raise HookError(f"the gradient of {metric.name} at {site} is not finite.")
    return Activations({site: whole[site] for site in sites}, seen)


def check_differentiable(model: Model, site: Site) -> None:
    """Nothing, if the model has the site and gradients can be taken there.

    Raises:
        HookError: if the model lacks it.
        ValueError: if it is token ids, or a full hook name.
    """
    if site.act == "tokens":
        raise ValueError(f'{site}: token ids have no gradient. Use Site("embed").')
    if site.axes is None:
        raise ValueError(f"{site}: a full hook name has axes that are not known. Use a short name.")
    check_site(model, site, f"gradient at {site}")


@dataclass(frozen=True)
class Chunk:
    """One pass: some rows of the prompts, in some variants, and the bytes planned for it."""

    rows: slice
    variants: range
    planned_bytes: int

    @property
    def n_rows(self) -> int:
        """Rows of the batch."""
        return len(range(self.rows.stop)[self.rows]) * len(self.variants)


def scheduled(
    model: Model,
    prompts: Prompts,
    sites: Sequence[Site],
    metric: Metric,
    n_variants: int,
    together: bool,
    budget_bytes: int | None = None,
) -> list[Chunk]:
    """The passes that `backward` makes: variants and rows in one batch as the budget holds them.

    `together`: all prompts in every pass.

    Raises:
        HookError: if the smallest pass would not fit into memory.
    """
    free = available_bytes(models.device(model))
    budget = min(free // 4, 4 << 30) if budget_bytes is None else budget_bytes
    each = _row_bytes(model, prompts, sites, metric)
    foreign = models.has_foreign_hooks(model)  # they may look at the whole batch
    n = len(prompts)
    n_rows = n if together or foreign else min(n, max(1, budget // each))
    n_at_once = 1 if foreign else max(1, budget // (each * n_rows))
    if n_rows * each > free:
        raise HookError(
            f"gradients of {n_rows} prompts need {readable(n_rows * each)}, but {readable(free)} "
            f"are free. Give shorter or fewer prompts, or fewer sites."
        )
    return [
        Chunk(rows, variants, each * (rows.stop - rows.start) * len(variants))
        for rows in (slice(i, min(i + n_rows, n)) for i in range(0, n, n_rows))
        for variants in (
            range(i, min(i + n_at_once, n_variants)) for i in range(0, n_variants, n_at_once)
        )
    ]


@dataclass(frozen=True, eq=False)
class Slopes:
    """Values and gradients `[prompt, ...]` at whole sites, of some rows of the prompts."""

    variant: int
    rows: slice
    prompts: Prompts
    values: Mapping[Site, Tensor]
    slopes: Mapping[Site, Tensor]


def backward(
    model: Model,
    prompts: Prompts,
    chunk: Chunk,
    sites: Sequence[Site],
    metric: Metric,
    variants: Sequence[Variant],
) -> Iterator[Slopes]:
    """One forward and one backward pass: values and gradients at whole sites, a variant at a time.

    Raises:
        HookError: as `run`.
        ValueError: if the metric has no gradient.
    """
    whole_set = (chunk.rows.start, chunk.rows.stop) == (0, len(prompts))
    part = prompts if whole_set else prompts.rows(torch.arange(len(prompts))[chunk.rows])
    whole = list(dict.fromkeys(site.whole() for site in sites))
    kept: list[dict[Site, list[Tensor]]] = [{site: [] for site in whole} for _ in chunk.variants]
    arms = [
        planned(model, part, variants[number](chunk.rows, _keep(whole, seen)))
        for number, seen in zip(chunk.variants, kept, strict=True)
    ]
    reading = torch.cat([arm.prompts.reading(metric.at) for arm in arms])
    output = forward(model, arms, reading, differentiable=True)
    with torch.enable_grad():
        total = total_score(metric, output, len(arms), chunk.rows, len(prompts))
    inputs = [value for seen in kept for site in whole for value in seen[site]]
    if total.requires_grad:
        found = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    else:  # specs cut every way from the sites to the metric
        found = tuple(map(torch.zeros_like, inputs))
    slope = iter(found)
    for number, arm, seen in zip(chunk.variants, arms, kept, strict=True):
        values = {site: seen[site][0].detach() for site in whole}
        slopes = {site: reduce(torch.add, [next(slope) for _ in seen[site]]) for site in whole}
        yield Slopes(number, chunk.rows, arm.prompts, values, slopes)


def _keep(sites: Sequence[Site], seen: dict[Site, list[Tensor]]) -> Specs:
    """Edits that change nothing, and note the values by which the metric is differentiated.

    A norm may run for the queries, the keys and the values: a change of it is a change of all.
    """

    def keep(value: Tensor, at: At) -> Tensor:
        noted = seen[at.site]
        if noted and not torch.equal(noted[0], value):
            raise HookError(
                f"gradient at {at.site}: {at.site.hook} ran more than once, with different "
                f"values. Take it at what it is computed from instead."
            )
        noted.append(value if value.requires_grad else value.requires_grad_())
        return value

    return tuple(spec for site in sites for spec in edit(site, keep, name="gradient"))


def _row_bytes(model: Model, prompts: Prompts, sites: Sequence[Site], metric: Metric) -> int:
    """Bytes that one prompt takes while its graph is kept: a bound from shapes alone."""
    cfg = model.cfg
    heads = cfg.n_heads * (10 * cfg.d_head + 8 * prompts.width)
    per_pos = 16 * cfg.d_model + 6 * (cfg.d_mlp or 0) + heads
    vocabulary = 12 * len(metric.at) * cfg.d_vocab_out if metric.tokens is None else 0
    graph = (cfg.n_layers * prompts.width * per_pos + vocabulary) * cfg.dtype.itemsize
    whole = list(dict.fromkeys(site.whole() for site in sites))
    return int(graph + 4 * read_bytes(model, prompts, whole) // len(prompts))
