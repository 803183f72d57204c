"""Attribution patching: the effect of every patch of a grid, estimated from gradients.

To first order, `metric(patched) - metric(base)` is the change of the value times the metric's
gradient there: one forward and one backward pass for any number of patches. Screen with estimates,
then compute the exact effects of the best cells by a sweep:

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

Every estimate is in the metric's unit, and negative where the patch lowers the metric. It is wrong
where the metric is far from linear. `atp_star` corrects for saturated attention and for effects
that cancel; `integrated_patching` averages gradients on the path to the source.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Unpack

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp.core.activations import Activations
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.modes import takes_gradients
from mechinterp.core.signs import no_support
from mechinterp.core.sites import Site
from mechinterp.core.specs import At, Specs, edit, put, read
from mechinterp.engine.gradients import ValuesAndGradients, Variant
from mechinterp.engine.runner import run
from mechinterp.models.model import Model, require_model
from mechinterp.models.tokenization import Text
from mechinterp.patching.grid import Over, PatchGrid, estimate_grid
from mechinterp.patching.qk_fix import QKFix
from mechinterp.sweeps.options import PassOptions, check_options

SIZE = "Size of the effect, never negative: it has no direction."

_EMBED = Site("embed")


@checks_arguments
@takes_gradients
def attribution_patching(
    model: Model,
    prompts: Text,
    source: Activations,
    over: Over,
    site: Callable[..., Site],
    metric: Metric,
    **options: Unpack[PassOptions],
) -> xr.DataArray:
    """First-order estimate of metric(patched) - metric(base) of every patch: dims (*over, prompt).

    It estimates `sweep(model, prompts, over, lambda **p: patch(site(**p), source), metric)` minus
    the base metric: the sum over the site of (source - base) * gradient at the base. In the
    metric's unit. `options`: `budget_bytes`, the memory to use, and `progress`.

    Raises:
        HookError: if the model or `source` lacks a site, or an estimate is not finite.
        ValueError: if a site has no gradient, or the metric has none.

    Source: Nanda 2023, "Attribution Patching"; Syed et al. 2023, arXiv 2310.10348.
    """
    check_options("attribution_patching", options, PassOptions)
    grid = PatchGrid.from_sites(model, prompts, source, over, site)
    found = estimate_grid(grid, metric, [_plain], [], grid.first_order, **options)
    return grid.result(found, found.estimates[0], metric, "attribution patching")


@checks_arguments
@takes_gradients
def qk_fixed_patching(
    model: Model,
    prompts: Text,
    source: Activations,
    over: Over,
    site: Callable[..., Site],
    metric: Metric,
    **options: Unpack[PassOptions],
) -> xr.DataArray:
    """Attribution patching that computes a patched query's or key's attention pattern exactly.

    At `q` and `k` (also `rot_q`, `rot_k`, `q_input`, `k_input`): the sum over links of the change
    of the pattern * gradient at the pattern, which holds for a saturated softmax too. It takes one
    more forward pass for each of these acts. Other sites: as `attribution_patching`.

    Raises:
        HookError: as `attribution_patching`.
        ValueError: as `attribution_patching`.

    Source: Kramár et al. 2024 (AtP*), section 3.1.1, arXiv 2403.00745.
    """
    check_options("qk_fixed_patching", options, PassOptions)
    grid = PatchGrid.from_sites(model, prompts, source, over, site)
    fix = QKFix(model, grid.prompts, source, grid.bands)
    found = estimate_grid(grid, metric, [_plain], fix.needs, grid.with_qk_fix(fix), **options)
    return grid.result(
        found, found.estimates[0], metric, "QK-fixed attribution patching", fix.passes
    )


@checks_arguments
@takes_gradients
def atp_star(
    model: Model,
    prompts: Text,
    source: Activations,
    over: Over,
    site: Callable[..., Site],
    metric: Metric,
    **options: Unpack[PassOptions],
) -> xr.DataArray:
    """AtP*: `qk_fixed_patching` with GradDrop; the size of an effect, without its sign.

    GradDrop takes one backward pass a layer, in which no gradient flows through that layer's
    output, so that effects of opposite sign on several paths do not cancel. The result is the sum
    of absolute estimates over the number of layers less one, since a site's own layer gives zero.

    Raises:
        HookError: as `attribution_patching`.
        ValueError: as `attribution_patching`; if the model has only one layer.

    Source: Kramár et al. 2024 (AtP*), sections 3.1.1 and 3.1.2, arXiv 2403.00745.
    """
    require_model(model)
    check_options("atp_star", options, PassOptions)
    n_layers = model.cfg.n_layers
    if n_layers < 2:
        raise ValueError(
            "atp_star drops one layer's gradient, and this model has only one layer. Use "
            "qk_fixed_patching."
        )
    grid = PatchGrid.from_sites(model, prompts, source, over, site)
    fix = QKFix(model, grid.prompts, source, grid.bands)
    drops = [_without(model, layer) for layer in range(n_layers)]
    found = estimate_grid(grid, metric, drops, fix.needs, grid.with_qk_fix(fix), **options)
    estimates = np.abs(found.estimates).sum(0) / (n_layers - 1)
    result = grid.result(found, estimates, metric, "AtP*", fix.passes)
    return result.assign_attrs(no_support(SIZE))


@checks_arguments
@takes_gradients
def integrated_patching(
    model: Model,
    prompts: Text,
    source: Activations,
    over: Over,
    site: Callable[..., Site],
    metric: Metric,
    *,
    steps: int = 8,
    **options: Unpack[PassOptions],
) -> xr.DataArray:
    """As `attribution_patching`, with the gradient averaged on the path from base to source.

    The runs have embeddings `base + a * (source - base)`, at `steps` midpoints `a` of 0 to 1; the
    change of a value is still that from the base run to the source. `source` must hold `embed` too.
    At the site `embed` the sum over positions is metric(source embeddings) - metric(base), up to
    `attrs["completeness_error"]`. Estimates at other sites do not add up to it.

    Raises:
        HookError: as `attribution_patching`.
        ValueError: as `attribution_patching`; if `steps` is below 1.

    Source: Hanna et al. 2024 (EAP-IG, inputs), section 3, arXiv 2403.17806; with the midpoint rule
    instead of its sum over right ends.
    """
    check_options("integrated_patching", options, PassOptions)
    if steps < 1:
        raise ValueError(f"integrated_patching: steps={steps}. Give at least one.")
    grid = PatchGrid.from_sites(model, prompts, source, over, site)
    whole = list(dict.fromkeys([_EMBED, *(band.whole() for band in grid.bands)]))
    goal = source[_EMBED]
    base = run(model, grid.prompts, read(*whole), logits_at=metric.at)
    last = run(model, grid.prompts, put(_EMBED, goal), logits_at=metric.at)
    variants = [_between(goal, (number + 0.5) / steps) for number in range(steps)]
    completed = np.zeros(len(grid.prompts))

    def estimate(part: ValuesAndGradients) -> Float[np.ndarray, "cell row"]:
        values = {at: value[part.rows] for at, value in base.acts.items()}
        change = (goal[part.rows].to(values[_EMBED]) - values[_EMBED]) * part.gradients[_EMBED]
        completed[part.rows] += change.flatten(1).sum(1).double().cpu().numpy() / steps
        return grid.first_order(replace(part, values=values))

    found = estimate_grid(grid, metric, variants, [_EMBED], estimate, **options)
    exact = (metric(last) - metric(base)).double().cpu().numpy()
    name = f"integrated patching, {steps} midpoints"
    result = grid.result(found, found.estimates.mean(0), metric, name, extra_passes=2)
    return result.assign_attrs(completeness_error=float(np.abs(completed - exact).mean()))


@checks_arguments
def top_k(screen: xr.DataArray, k: int) -> xr.DataArray:
    """A mask of the `k` cells with the largest absolute mean over prompts, to sweep with `only=`.

    Ties go to the first cell; NaN is never chosen. `screen` must be a change, such as an estimate
    or an `effect`: the largest of the metric's own values are not the largest effects.

    Raises:
        ValueError: if `k` is below 1 or above the number of cells without NaN, or if `screen`
            holds the metric's own values, as patching and ablation return them.
    """
    scores = {"clean_score", "corrupt_score", "base_score"} & set(screen.coords)
    if scores and screen.attrs.get("quantity") != "change":
        raise ValueError(
            "top_k: these are the metric's own values, not changes of it. Give effect(result), of "
            "mechinterp.patching or mechinterp.ablation."
        )
    cells = screen.mean("prompt", skipna=False) if "prompt" in screen.dims else screen
    size = np.abs(cells.values.astype(float)).ravel()
    known = int((~np.isnan(size)).sum())
    if not 1 <= k <= known:
        raise ValueError(
            f"top_k: k={k}, but there are {known} cells with a number. Give 1 to {known}."
        )
    order = np.argsort(np.where(np.isnan(size), np.inf, -size), kind="stable")
    chosen = np.zeros(size.shape, dtype=bool)
    chosen[order[:k]] = True
    return cells.copy(data=chosen.reshape(cells.shape)).rename("chosen").drop_attrs()


def _plain(rows: slice, keep: Specs) -> Specs:
    return keep


def _without(model: Model, layer: int) -> Variant:
    """A run in which no gradient flows through a layer's output; its values stay."""
    writers = [Site("attn_out", layer), Site("mlp_out", layer)][: 1 if model.cfg.attn_only else 2]
    cut: Specs = ()
    for writer in writers:
        cut += edit(writer, lambda value, at: value.detach(), name="drop the gradient of")
    return lambda rows, keep: keep + cut


def _between(goal: Tensor, share: float) -> Variant:
    """A run whose embeddings are moved by a share towards others."""

    def moved(rows: slice, keep: Specs) -> Specs:
        def towards(value: Tensor, at: At) -> Tensor:
            return value + share * (goal[rows].to(value) - value)

        return edit(_EMBED, towards, name="interpolate") + keep

    return moved
