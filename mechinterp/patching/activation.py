"""Activation patching: what carries the difference between clean and corrupt prompts.

Each function is a sweep that replaces one activation at a time by its value in the other run.
"noise" runs the clean prompts with values of the corrupt run: a drop shows what is necessary.
"denoise" runs the corrupt prompts with values of the clean run: a rise shows what is sufficient.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.patching import normalized, patch_heads
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> found = patch_heads(model, pair, log_prob(token_id(model, "REFUSE")), direction="denoise")
>>> found.dims, float(normalized(found).max().round(2))
(('layer', 'head', 'prompt'), 1.0)

What a result holds, and on which scales it is read: `mechinterp.patching.effects`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.pairs import Pair, require_pair
from mechinterp.core.sites import Pos, Site
from mechinterp.core.specs import Specs, patch, read
from mechinterp.engine.runner import run
from mechinterp.models.hook_points import check_site
from mechinterp.models.model import Model
from mechinterp.patching.effects import with_scores
from mechinterp.sweeps import axes
from mechinterp.sweeps.axes import Positions
from mechinterp.sweeps.experiment import sweep
from mechinterp.sweeps.options import SweepOptions, check_options

RESIDUALS = ("resid_pre", "resid_mid", "resid_post")
OUTPUTS = ("attn_out", "mlp_out")

_OF_HEADS = "Wang et al. 2022, arXiv 2211.00593"


@checks_arguments
def patch_residual(
    model: Model,
    pair: Pair,
    metric: Metric,
    act: str = "resid_pre",
    *,
    direction: str = "noise",
    layers: Iterable[int] | None = None,
    positions: Positions | None = None,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Patch the residual stream by layer and position: dims (layer, pos, prompt), metric's unit.

    `act`: "resid_pre", "resid_mid" or "resid_post". `positions`: by default every one, or those
    that the pair names if the prompts differ in length. `options`: those of `sweep`.

    Raises:
        HookError: as `sweep`, such as for resid_mid of parallel blocks, which have none.
        ValueError: if the act or the direction is unknown, or the prompts share no position.

    Source: Meng et al. 2022, section 2.1, arXiv 2202.05262.
    """
    check_options("patch_residual", options)
    axes.check_choice("act", act, RESIDUALS)
    patches = _Patch(model, pair, metric, act, direction)
    return _sweep_positions(patches, layers, {}, positions, options)


@checks_arguments
def patch_outputs(
    model: Model,
    pair: Pair,
    metric: Metric,
    act: str = "attn_out",
    *,
    direction: str = "noise",
    layers: Iterable[int] | None = None,
    positions: Positions | None = None,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Patch the output of attention or MLPs by position: dims (layer, pos, prompt), metric's unit.

    `act`: "attn_out" or "mlp_out". The rest as in `patch_residual`.

    Raises:
        HookError: as `sweep`, such as for a model without MLPs.
        ValueError: if the act or the direction is unknown, or the prompts share no position.

    Source: Meng et al. 2022, section 2.2, arXiv 2202.05262.
    """
    check_options("patch_outputs", options)
    axes.check_choice("act", act, OUTPUTS)
    patches = _Patch(model, pair, metric, act, direction)
    return _sweep_positions(patches, layers, {}, positions, options)


@checks_arguments
def patch_heads(
    model: Model,
    pair: Pair,
    metric: Metric,
    act: str = "z",
    *,
    direction: str = "noise",
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
    positions: Positions | None = None,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Patch each head: dims (layer, head or kv_head, prompt), in the metric's unit.

    `act`: "z" (the head's output before W_O), "q", "k", "v", "pattern", or another activation of
    heads. Under grouped-query attention `k` and `v` belong to key-value heads, and the axis is
    called kv_head. `positions`: patched together; by default all. `options`: those of `sweep`.

    Raises:
        HookError: as `sweep`, such as for a head that does not exist.
        ValueError: if the act or the direction is unknown.

    Source: Wang et al. 2022, arXiv 2211.00593.
    """
    check_options("patch_heads", options)
    patches = _Patch(model, pair, metric, act, direction)
    found = _sweep(patches, layers, axes.heads(model, act, heads), positions, options)
    return found.assign_attrs(source=_OF_HEADS)


@checks_arguments
def patch_heads_by_position(
    model: Model,
    pair: Pair,
    metric: Metric,
    act: str = "z",
    *,
    direction: str = "noise",
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
    positions: Positions | None = None,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Patch each head at each position: dims (layer, head or kv_head, pos, prompt), metric's unit.

    For "pattern" and "attn_scores" the position is that of the query. `positions`: as in
    `patch_residual`; the rest as in `patch_heads`.

    Raises:
        HookError: as `sweep`.
        ValueError: if the act or the direction is unknown, or the prompts share no position.
    """
    check_options("patch_heads_by_position", options)
    patches, axis = _Patch(model, pair, metric, act, direction), axes.heads(model, act, heads)
    found = _sweep_positions(patches, layers, axis, positions, options)
    return found.assign_attrs(source=_OF_HEADS)


@checks_arguments
def patch_neurons(
    model: Model,
    pair: Pair,
    metric: Metric,
    layer: int,
    neurons: Iterable[int] | None = None,
    *,
    direction: str = "noise",
    positions: Positions | None = None,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Patch each neuron of a layer, after the non-linearity: dims (neuron, prompt), metric's unit.

    `positions`: patched together; by default all. `options`: those of `sweep`.

    Raises:
        HookError: as `sweep`, such as for a model without MLPs.
        ValueError: if the direction is unknown.
    """
    check_options("patch_neurons", options)
    patches = _Patch(model, pair, metric, "mlp_post", direction)
    over = {"neuron": axes.neurons(model, neurons)}
    found = _sweep(patches, [layer], over, positions, options)
    return found.isel(layer=0)


@dataclass(frozen=True, eq=False)
class _Patch:
    """What is patched, in which prompts, and what is measured."""

    model: Model
    pair: Pair
    metric: Metric
    act: str
    direction: str


def _sweep_positions(
    patches: _Patch,
    layers: Iterable[int] | None,
    axis: Mapping[str, Sequence[int]],
    positions: Positions | None,
    options: SweepOptions,
) -> xr.DataArray:
    """The metric with the act patched at each layer, point of `axis` and position."""
    chosen = axes.positions(patches.pair.clean, positions)
    over = {**axis, "pos": chosen}
    found = _sweep(patches, layers, over, None, options)
    return axes.with_tokens(found, patches.pair.clean, chosen)


def _sweep(
    patches: _Patch,
    layers: Iterable[int] | None,
    over: Mapping[str, Sequence[Pos]],
    together: Positions | None,
    options: SweepOptions,
) -> xr.DataArray:
    """The metric with the act patched at each layer and point, at the positions `together`."""
    model, metric, act = patches.model, patches.metric, patches.act
    base, other = require_pair(patches.pair).sides(patches.direction)
    chosen = axes.layers(model, layers)
    whole = dict.fromkeys(Site(act, layer) for layer in chosen)
    source = run(model, other, read(*whole), logits_at=metric.at)

    def arm(layer: int, pos: Pos | None = None, neuron: int | None = None, **head: int) -> Specs:
        site = Site(act, layer, next(iter(head.values()), None), pos, neuron)
        check_site(model, site, f"patch {site}")
        return sum((patch(s, source.acts) for s in axes.at_positions(site, together)), ())

    found = sweep(model, base, {"layer": chosen, **over}, arm, metric, **options).assign_attrs(
        method="activation patching", act=act, source="Meng et al. 2022, arXiv 2202.05262"
    )
    unchanged = run(model, base, logits_at=metric.at)
    return with_scores(found, metric, unchanged, source, patches.direction)
