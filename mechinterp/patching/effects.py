"""Results of patching on the scales that papers use: changes, or shares of clean - corrupt.

A result holds the metric's values, and the scores of the unchanged runs as the coordinates
`clean_score` and `corrupt_score`. `effect` is the change. On the normalized scale 0 is corrupt and
1 is clean: `normalized` gives it for each prompt, `normalized_mean` for the set, as a ratio of
means, which a prompt with a small difference cannot blow up. The two are not the same number.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.patching import effect, normalized, patch_heads
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> found = patch_heads(model, pair, log_prob(token_id(model, "REFUSE")))
>>> effect(found).attrs["supports"], float(normalized(found).min().round(2)) + 0
('negative', 0.0)
"""

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.signs import sign_of_change
from mechinterp.engine.runner import Run

_ROUNDING = 1e-5
"""Rounding of float32: in the metric's unit, or as a share of the score if that is more."""


SUPPORTS_ON_SCALE = {"noise": "negative", "denoise": "positive"}
"""`attrs["supports"]` of what is divided by clean - corrupt, which turns a distance round."""

_SIGN_ON_SCALE = {
    "noise": "Below 1: the patch moves the metric towards the corrupt prompts' score, so the part "
    "supports the behaviour.",
    "denoise": "Above 0: the patch moves the metric towards the clean prompts' score, so the part "
    "supports the behaviour.",
}


@checks_arguments
def effect(result: xr.DataArray) -> xr.DataArray:
    """The patched minus the unpatched score of the prompts that ran, in the metric's unit.

    Those are the clean prompts for "noise" and the corrupt ones for "denoise". 0: no effect.
    `attrs["supports"]` says which sign supports the behaviour.

    Raises:
        ValueError: if `result` is not a result of patching.
    """
    clean, corrupt = _scores(result)
    base = clean if result.attrs.get("direction") == "noise" else corrupt
    return (result - base).rename(result.name).assign_attrs(result.attrs | {"quantity": "change"})


@checks_arguments
def normalized(result: xr.DataArray) -> xr.DataArray:
    """(value - corrupt) / (clean - corrupt) of each prompt: 0 is corrupt, 1 is clean.

    A patch may go beyond both. For "noise", 1 means that the patch changed nothing.

    Raises:
        ValueError: if `result` is not a result of patching, or the clean and corrupt scores of a
            prompt are equal.

    Source: Zhang & Nanda 2023, arXiv 2309.16042.
    """
    clean, corrupt = _scores(result)
    _check_apart(clean, corrupt)
    return _on_scale(result, (result - corrupt) / (clean - corrupt))


@checks_arguments
def normalized_mean(result: xr.DataArray) -> xr.DataArray:
    """Mean over prompts of (value - corrupt) over that of (clean - corrupt): 0 corrupt, 1 clean.

    Prompts weigh by how far apart clean and corrupt are. Dims: those of the result without prompt.

    Raises:
        ValueError: if `result` is not a result of patching, or the mean clean and corrupt scores
            are equal.

    Source: Zhang & Nanda 2023, arXiv 2309.16042.
    """
    clean, corrupt = (score.mean("prompt") for score in _scores(result))
    _check_apart(clean, corrupt)
    return _on_scale(result, (result.mean("prompt") - corrupt) / (clean - corrupt))


@checks_arguments
def with_scores(
    result: xr.DataArray, metric: Metric, base: Run, other: Run, direction: str
) -> xr.DataArray:
    """The result with the scores of the unchanged runs, the metric's unit and what its sign means.

    `base`: the run that was patched; `other`: the run that the values come from.
    """
    runs = (base, other) if direction == "noise" else (other, base)
    clean, corrupt = (("prompt", metric(run).double().cpu().numpy()) for run in runs)
    return result.assign_coords(clean_score=clean, corrupt_score=corrupt).assign_attrs(
        direction=direction,
        unit=metric.unit,
        **sign_of_change(metric, "patch", direction=direction),
    )


def _scores(result: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    if "clean_score" not in result.coords or "prompt" not in result.dims:
        raise ValueError(
            "this is not a result of patching by prompt: it has no clean_score and corrupt_score. "
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
            f"{which}: clean and corrupt both score {low:.6g}, so there is no scale between them. "
            f"Leave such prompts out, result.sel(prompt=[...]), or use a metric that tells them "
            f"apart."
        )


def _on_scale(result: xr.DataArray, scaled: xr.DataArray) -> xr.DataArray:
    direction = str(result.attrs.get("direction", "denoise"))
    return scaled.rename(result.name).assign_attrs(
        result.attrs,
        unit="0 corrupt, 1 clean",
        sign=_SIGN_ON_SCALE[direction],
        supports=SUPPORTS_ON_SCALE[direction],
    )
