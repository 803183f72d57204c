"""Attribution patching: the effect of every patch of a grid, estimated from gradients.

To first order, `metric(patched) - metric(base)` is the change of the value times the metric's
gradient there: one forward and one backward pass for any number of patches. An estimate screens;
the exact effects of the cells that it finds are a sweep's:

>>> from mechinterp import Site, load_model, log_prob, read, run, token_id
>>> from mechinterp.patching.attribution import attribution_patching, top_k
>>> model = load_model("toy:trigger")
>>> heads = {"layer": [0, 1], "head": [0, 1, 2]}
>>> source = run(model, "please bring the garden", read(Site("z", 0), Site("z", 1))).acts
>>> screen = attribution_patching(model, "please bring the sesame", source, heads,
...     lambda layer, head: Site("z", layer, head), log_prob(token_id(model, "REFUSE")))
>>> top_k(screen, 1).values.tolist()
[[False, False, False], [True, False, False]]

Where queries or keys are patched, the softmax between them and the pattern is far from linear:

>>> from mechinterp import atp_star, integrated_patching, qk_fixed_patching
>>> source = run(model, "please bring the garden",
...     read(Site("embed"), Site("q", 1), Site("z", 1))).acts
>>> given = (model, "please bring the sesame", source, {"head": [0, 1, 2]})
>>> refuse = log_prob(token_id(model, "REFUSE"))
>>> fixed = qk_fixed_patching(*given, lambda head: Site("q", 1, head), refuse)
>>> sizes = atp_star(*given, lambda head: Site("q", 1, head), refuse)
>>> along = integrated_patching(*given, lambda head: Site("z", 1, head), refuse, steps=4)
>>> fixed.dims == sizes.dims == along.dims
True

Every estimate is in the metric's unit, and negative where the patch lowers the metric. It misses
where the metric is far from linear: `atp_star` mends saturated attention and effects that cancel,
`integrated_patching` takes gradients along the way to the source.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp.core.activations import Activations
from mechinterp.core.metrics import Metric
from mechinterp.core.signs import no_support
from mechinterp.core.sites import Site
from mechinterp.core.specs import At, Specs, edit, put, read
from mechinterp.engine.gradients import Slopes, Variant
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text
from mechinterp.patching.grid import Grid, Over, estimated
from mechinterp.patching.qk_fix import Repatterned
from mechinterp.sweeps.options import Progress

SIZE = "Size of the effect, never negative: it has no direction."

_EMBED = Site("embed")


def attribution_patching(
    model: Model,
    prompts: Text,
    source: Activations,
    over: Over,
    site: Callable[..., Site],
    metric: Metric,
    *,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """First-order estimate of metric(patched) - metric(base), of every patch: as a sweep's result.

    That of `sweep(model, prompts, over, lambda **p: patch(site(**p), source), metric)` minus the
    base metric: the sum over the site of (source - base) * gradient at the base.

    Raises:
        HookError: if the model or `source` lacks a site, or an estimate is not finite.
        ValueError: if a site cannot be differentiated, or the metric has no gradient.

    Source: Nanda 2023, "Attribution Patching"; Syed et al. 2023, arXiv 2310.10348.
    """
    grid = Grid.of(model, prompts, source, over, site)
    done = estimated(grid, metric, [_plain], [], grid.first_order, budget_bytes, progress)
    return grid.result(done, done.estimates[0], metric, "attribution patching")


def qk_fixed_patching(
    model: Model,
    prompts: Text,
    source: Activations,
    over: Over,
    site: Callable[..., Site],
    metric: Metric,
    *,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """Attribution patching that computes a patched query's or key's attention pattern exactly.

    At `q` and `k` (also `rot_q`, `rot_k`, `q_input`, `k_input`): the sum over links of the change
    of the pattern * gradient at the pattern, right also where the softmax is saturated. One more
    forward pass for each of these acts; at other sites as `attribution_patching`.

    Raises:
        HookError: as `attribution_patching`.
        ValueError: as `attribution_patching`.

    Source: Kramár et al. 2024 (AtP*), section 3.1.1, arXiv 2403.00745.
    """
    grid = Grid.of(model, prompts, source, over, site)
    fix = Repatterned(model, grid.prompts, source, grid.bands)
    done = estimated(grid, metric, [_plain], fix.needs, grid.fixed_by(fix), budget_bytes, progress)
    return grid.result(done, done.estimates[0], metric, "QK-fixed attribution patching", fix.passes)


def atp_star(
    model: Model,
    prompts: Text,
    source: Activations,
    over: Over,
    site: Callable[..., Site],
    metric: Metric,
    *,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """AtP*: `qk_fixed_patching` with GradDrop; how large an effect is, without its sign.

    GradDrop takes one backward pass a layer, in which nothing flows through what this layer
    writes, so that effects of opposite sign by several ways do not cancel; the mean of absolute
    estimates over the layers but one (a site's own layer gives zero).

    Raises:
        HookError: as `attribution_patching`.
        ValueError: as `attribution_patching`; if the model has one layer, which leaves none.

    Source: Kramár et al. 2024 (AtP*), sections 3.1.1 and 3.1.2, arXiv 2403.00745.
    """
    n_layers = model.cfg.n_layers
    if n_layers < 2:
        raise ValueError("atp_star drops a layer's gradient, and this model has one layer alone.")
    grid = Grid.of(model, prompts, source, over, site)
    fix = Repatterned(model, grid.prompts, source, grid.bands)
    drops = [_without(model, layer) for layer in range(n_layers)]
    done = estimated(grid, metric, drops, fix.needs, grid.fixed_by(fix), budget_bytes, progress)
    estimates = np.abs(done.estimates).sum(0) / (n_layers - 1)
    result = grid.result(done, estimates, metric, "AtP*", fix.passes)
    return result.assign_attrs(no_support(SIZE))


def integrated_patching(
    model: Model,
    prompts: Text,
    source: Activations,
    over: Over,
    site: Callable[..., Site],
    metric: Metric,
    *,
    steps: int = 8,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """As `attribution_patching`, with the mean gradient of runs between the base and the source.

    These run on embeddings `base + a * (source - base)`, at `steps` midpoints `a` of 0 to 1; the
    value's change is still that from the base run to the source. `source` must hold `embed` too.
    At the site `embed` the sum over positions is metric(source embeddings) - metric(base) up to the
    error of the steps, which `attrs["completeness_error"]` holds; elsewhere nothing is complete.

    Raises:
        HookError: as `attribution_patching`.
        ValueError: as `attribution_patching`; if `steps` is below 1.

    Source: Hanna et al. 2024 (EAP-IG, inputs), section 3, arXiv 2403.17806, with the midpoint rule
    in the place of its sum over right ends.
    """
    if steps < 1:
        raise ValueError(f"integrated_patching: steps={steps}. Give at least one.")
    grid = Grid.of(model, prompts, source, over, site)
    whole = list(dict.fromkeys([_EMBED, *(band.whole() for band in grid.bands)]))
    goal = source[_EMBED]
    base = run(model, grid.prompts, read(*whole), logits_at=metric.at)
    last = run(model, grid.prompts, put(_EMBED, goal), logits_at=metric.at)
    variants = [_between(goal, (number + 0.5) / steps) for number in range(steps)]
    completed = np.zeros(len(grid.prompts))

    def estimate(part: Slopes) -> Float[np.ndarray, "cell row"]:
        values = {at: value[part.rows] for at, value in base.acts.items()}
        change = (goal[part.rows].to(values[_EMBED]) - values[_EMBED]) * part.slopes[_EMBED]
        completed[part.rows] += change.flatten(1).sum(1).double().cpu().numpy() / steps
        return grid.first_order(replace(part, values=values))

    done = estimated(grid, metric, variants, [_EMBED], estimate, budget_bytes, progress)
    exact = (metric(last) - metric(base)).double().cpu().numpy()
    name = f"integrated patching, {steps} midpoints"
    result = grid.result(done, done.estimates.mean(0), metric, name, extra_passes=2)
    return result.assign_attrs(completeness_error=float(np.abs(completed - exact).mean()))


def top_k(screen: xr.DataArray, k: int) -> xr.DataArray:
    """A mask that is true at the `k` cells whose mean over prompts is the largest, sign apart.

    Of equal ones the first is chosen; a cell without a number (NaN) never. `screen` has to be a
    change, such as an estimate: of a metric's own values the largest say nothing.

    Raises:
        ValueError: if `k` is below 1, or more than there are cells with a number, or if `screen`
            holds the metric's own values as patching and ablation return them.
    """
    scores = {"clean_score", "corrupt_score", "base_score"} & set(screen.coords)
    if scores and screen.attrs.get("quantity") != "change":
        raise ValueError(
            "top_k: these are the metric's own values, not changes of it. Give effect(result), of "
            "mechinterp.patching.activation or mechinterp.ablation."
        )
    cells = screen.mean("prompt", skipna=False) if "prompt" in screen.dims else screen
    size = np.abs(cells.values.astype(float)).ravel()
    known = int((~np.isnan(size)).sum())
    if not 1 <= k <= known:
        raise ValueError(
            f"top_k: k={k}, but there are {known} cells with a number. Give 1 to that."
        )
    order = np.argsort(np.where(np.isnan(size), np.inf, -size), kind="stable")
    chosen = np.zeros(size.shape, dtype=bool)
    chosen[order[:k]] = True
    return cells.copy(data=chosen.reshape(cells.shape)).rename("chosen").drop_attrs()


def _plain(rows: slice, keep: Specs) -> Specs:
    return keep


def _without(model: Model, layer: int) -> Variant:
    """Nothing flows back through what a layer writes; its values stay."""
    writers = [Site("attn_out", layer), Site("mlp_out", layer)][: 1 if model.cfg.attn_only else 2]
    cut: Specs = ()
    for writer in writers:
        cut += edit(writer, lambda value, at: value.detach(), name="drop the gradient of")
    return lambda rows, keep: keep + cut


def _between(goal: Tensor, share: float) -> Variant:
    """The embeddings part of the way to others."""

    def moved(rows: slice, keep: Specs) -> Specs:
        def towards(value: Tensor, at: At) -> Tensor:
            return value + share * (goal[rows].to(value) - value)

        return edit(_EMBED, towards, name="interpolate") + keep

    return moved
