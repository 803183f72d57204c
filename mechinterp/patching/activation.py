"""Activation patching: what carries the difference between clean and corrupt prompts.

Each function is a sweep: one activation at a time is replaced by what the other run had there.
"noise" runs the clean prompts and puts in what the corrupt run had: a drop shows what is needed.
"denoise" runs the corrupt prompts and puts in what the clean run had: a rise shows what suffices.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.patching.activation import patch_heads, normalized
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> found = patch_heads(model, pair, log_prob(token_id(model, "REFUSE")), direction="denoise")
>>> found.dims, float(normalized(found).max().round(2))
(('layer', 'head', 'prompt'), 1.0)

A result has the metric's values, with the scores of the unchanged runs beside them, `clean_score`
and `corrupt_score`. On the scale of the papers 0 is corrupt and 1 is clean: `normalized` gives it
for each prompt; `normalized_mean` for the set, as the ratio of means that papers report, which no
single prompt with a small difference can blow up. They are not the same number.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import xarray as xr

from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Pair, checked_pair
from mechinterp.core.signs import sign_of_change
from mechinterp.core.sites import Site
from mechinterp.core.specs import Specs, patch, read
from mechinterp.engine.runner import Run, run
from mechinterp.models.hook_points import check_site
from mechinterp.models.model import Model
from mechinterp.sweeps import axes
from mechinterp.sweeps.axes import Positions
from mechinterp.sweeps.experiment import sweep
from mechinterp.sweeps.options import SweepOptions, check_options

RESIDUALS = ("resid_pre", "resid_mid", "resid_post")
OUTPUTS = ("attn_out", "mlp_out")

_OF_HEADS = "Wang et al. 2022, arXiv 2211.00593"

_ROUNDING = 1e-5
"""What float32 may be off, in the metric's unit or as a share of it, whichever is more."""


_SIGN_ON_SCALE = {
    "noise": {
        "sign": "Below 1: the patch moves the metric towards the corrupt prompts' score, so the "
        "part supports the behaviour.",
        "supports": "negative",
    },
    "denoise": {
        "sign": "Above 0: the patch moves the metric towards the clean prompts' score, so the "
        "part supports the behaviour.",
        "supports": "positive",
    },
}
"""Of a score and of a distance alike: the division by clean - corrupt turns a distance round."""


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

    `act`: "resid_pre", "resid_mid" or "resid_post". `positions`: by default every one, or, if the
    prompts differ in length, those that the pair names. `options`: those of `sweep`.

    Raises:
        HookError: as `sweep`, as where parallel blocks have no resid_mid.
        ValueError: if the act or the direction is unknown, or no position is the same in all.

    Source: Meng et al. 2022, section 2.1, arXiv 2202.05262.
    """
    check_options("patch_residual", options)
    axes.check_choice("act", act, RESIDUALS)
    return _by_position(model, pair, metric, act, direction, layers, {}, positions, options)


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
    """Patch what a part of a layer writes, by position: dims (layer, pos, prompt), metric's unit.

    `act`: "attn_out" or "mlp_out". The rest as in `patch_residual`.

    Raises:
        HookError: as `sweep`, as where a model has no MLPs.
        ValueError: if the act or the direction is unknown, or no position is the same in all.

    Source: Meng et al. 2022, section 2.2, arXiv 2202.05262.
    """
    check_options("patch_outputs", options)
    axes.check_choice("act", act, OUTPUTS)
    return _by_position(model, pair, metric, act, direction, layers, {}, positions, options)


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

    `act`: "z" (the head's output before W_O), "q", "k", "v", "pattern", or another that heads have.
    Under grouped-query attention `k` and `v` belong to key-value heads, and the axis is called
    kv_head. `positions`: these together; by default all. `options`: those of `sweep`.

    Raises:
        HookError: as `sweep`, as for a head that is not there.
        ValueError: if the act or the direction is unknown.

    Source: Wang et al. 2022, arXiv 2211.00593.
    """
    check_options("patch_heads", options)
    over = {"layer": axes.layers(model, layers), **axes.heads(model, act, heads)}
    found = _patched(model, pair, metric, act, direction, over, positions, options)
    return found.assign_attrs(source=_OF_HEADS)


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
        ValueError: if the act or the direction is unknown, or no position is the same in all.
    """
    check_options("patch_heads_by_position", options)
    axis = axes.heads(model, act, heads)
    found = _by_position(model, pair, metric, act, direction, layers, axis, positions, options)
    return found.assign_attrs(source=_OF_HEADS)


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
    """Patch each neuron of a layer (after its non-linearity): dims (neuron, prompt), metric's unit.

    `positions`: these together; by default all. `options`: those of `sweep`.

    Raises:
        HookError: as `sweep`, as where a model has no MLPs.
        ValueError: if the direction is unknown.
    """
    check_options("patch_neurons", options)
    over = {"layer": [layer], "neuron": axes.neurons(model, neurons)}
    found = _patched(model, pair, metric, "mlp_post", direction, over, positions, options)
    return found.isel(layer=0)


def effect(result: xr.DataArray) -> xr.DataArray:
    """What a patch changes: the value minus that of the prompts that ran, in the metric's unit.

    Those are the clean prompts for noising, the corrupt ones for denoising. 0: no effect.

    Raises:
        ValueError: if it is no result of patching.
    """
    clean, corrupt = _scores(result)
    base = clean if result.attrs.get("direction") == "noise" else corrupt
    return (result - base).rename(result.name).assign_attrs(result.attrs | {"quantity": "change"})


def normalized(result: xr.DataArray) -> xr.DataArray:
    """(value - corrupt) / (clean - corrupt) of each prompt: 0 is corrupt, 1 is clean.

    A patch may go beyond both. For noising, 1 means that the patch changed nothing.

    Raises:
        ValueError: if it is no result of patching, or clean and corrupt score alike for a prompt.

    Source: Zhang & Nanda 2023, arXiv 2309.16042.
    """
    clean, corrupt = _scores(result)
    _check_apart(clean, corrupt)
    return _on_scale(result, (result - corrupt) / (clean - corrupt))


def normalized_mean(result: xr.DataArray) -> xr.DataArray:
    """Mean over prompts of (value - corrupt) over that of (clean - corrupt): 0 corrupt, 1 clean.

    Prompts count by how far apart clean and corrupt are. Dims: those of the result without prompt.

    Raises:
        ValueError: if it is no result of patching, or clean and corrupt score alike on average.

    Source: Zhang & Nanda 2023, arXiv 2309.16042.
    """
    clean, corrupt = (score.mean("prompt") for score in _scores(result))
    _check_apart(clean, corrupt)
    return _on_scale(result, (result.mean("prompt") - corrupt) / (clean - corrupt))


def with_scores(
    result: xr.DataArray, metric: Metric, base: Run, other: Run, direction: str
) -> xr.DataArray:
    """The result with the unchanged runs' scores beside the prompts, and the metric's unit."""
    runs = (base, other) if direction == "noise" else (other, base)
    clean, corrupt = (("prompt", metric(run).double().cpu().numpy()) for run in runs)
    return result.assign_coords(clean_score=clean, corrupt_score=corrupt).assign_attrs(
        direction=direction,
        unit=metric.unit,
        **sign_of_change(metric, "patch", direction=direction),
    )


def _by_position(
    model: Model,
    pair: Pair,
    metric: Metric,
    act: str,
    direction: str,
    layers: Iterable[int] | None,
    axis: Mapping[str, Sequence[Any]],
    positions: Positions | None,
    options: Mapping[str, Any],
) -> xr.DataArray:
    chosen = axes.positions(pair.clean, positions)
    over = {"layer": axes.layers(model, layers), **axis, "pos": chosen}
    found = _patched(model, pair, metric, act, direction, over, None, options)
    return axes.with_tokens(found, pair.clean, chosen)


def _patched(
    model: Model,
    pair: Pair,
    metric: Metric,
    act: str,
    direction: str,
    over: Mapping[str, Sequence[Any]],
    together: Positions | None,
    options: Mapping[str, Any],
) -> xr.DataArray:
    """The metric with the act patched at each point of `over`, at the positions of `together`."""
    base, other = checked_pair(pair).sides(direction)
    whole = dict.fromkeys(Site(act, layer) for layer in over["layer"])
    source = run(model, other, read(*whole), logits_at=metric.at)

    def arm(layer: int, pos: Any = None, neuron: int | None = None, **head: int) -> Specs:
        site = Site(act, layer, next(iter(head.values()), None), pos, neuron)
        check_site(model, site, f"patch {site}")
        return sum((patch(s, source.acts) for s in axes.at_positions(site, together)), ())

    found = sweep(model, base, over, arm, metric, **options).assign_attrs(
        method="activation patching", act=act, source="Meng et al. 2022, arXiv 2202.05262"
    )
    unchanged = run(model, base, logits_at=metric.at)
    return with_scores(found, metric, unchanged, source, direction)


def _scores(result: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    if "clean_score" not in result.coords or "prompt" not in result.dims:
        raise ValueError(
            "this is no result of patching by prompt: it has no clean_score and corrupt_score. "
            "Give what a function of mechinterp.patching returned, before averaging."
        )
    return result["clean_score"], result["corrupt_score"]


def _check_apart(clean: xr.DataArray, corrupt: xr.DataArray) -> None:
    size = np.maximum(abs(clean), abs(corrupt)).clip(min=1)
    alike = abs(clean - corrupt) <= _ROUNDING * size
    if bool(alike.any()):
        which = f"prompt {clean['prompt'].values[alike.values][0]}" if alike.ndim else "the mean"
        low = float(clean.values[alike.values].flat[0])
        raise ValueError(
            f"{which}: clean and corrupt both score {low:.6g}, so that there is no scale between "
            f"them. Leave such prompts out, result.sel(prompt=[...]), or use a metric that tells "
            f"them apart."
        )


def _on_scale(result: xr.DataArray, scaled: xr.DataArray) -> xr.DataArray:
    direction = str(result.attrs.get("direction", "denoise"))
    attrs = result.attrs | {"unit": "0 corrupt, 1 clean"} | _SIGN_ON_SCALE[direction]
    return scaled.rename(result.name).assign_attrs(attrs)
