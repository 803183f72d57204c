"""Results of patching on the scales that papers use: changes, or shares of clean - corrupt.

A result holds the metric's values, and the scores of the unchanged runs as the coordinates
`clean_score` and `corrupt_score`. `effect` is the change. On the normalized scale 0 is corrupt and
1 is clean: `normalized` gives it for the set of prompts, as a ratio of means, which a prompt with a
small difference cannot blow up. `normalized_each` gives it for each prompt; the mean of that is
another number.

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
from mechinterp.core.cautions import caution
from mechinterp.core.metrics import Metric
from mechinterp.core.signs import sign_of_change
from mechinterp.engine.runner import Run

_ROUNDING = 1e-5
"""Rounding of float32: in the metric's unit, or as a share of the score if that is more."""

_UNEVEN = 0.1
"""Below this share of the mean, clean - corrupt of a prompt is small."""


class UnevenPromptsWarning(UserWarning):
    """The metric hardly tells clean from corrupt on some prompts, or the other way round."""


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
    """Mean over prompts of (value - corrupt) over that of (clean - corrupt): 0 corrupt, 1 clean.

    A ratio of means: prompts weigh by how far apart clean and corrupt are. A patch may go beyond
    both ends. For "noise", 1 means that the patch changed nothing. Dims: those of the result
    without prompt. For its interval: `stats.ratio_interval`.

    Warns: `UnevenPromptsWarning` if clean - corrupt of a prompt is below a tenth of the mean, or
        has the other sign.

    Raises:
        ValueError: if `result` is not a result of patching, or the mean clean and corrupt scores
            are equal.

    Source: Zhang & Nanda 2023, arXiv 2309.16042.
    """
    scores = _scores(result)
    clean, corrupt = (score.mean("prompt") for score in scores)
    check_apart(clean, corrupt)
    _warn_if_uneven(*scores)
    return _on_scale(result, (result.mean("prompt") - corrupt) / (clean - corrupt))


@checks_arguments
def normalized_each(result: xr.DataArray) -> xr.DataArray:
    """(value - corrupt) / (clean - corrupt) of each prompt: 0 is corrupt, 1 is clean.

    A prompt whose clean and corrupt scores are close has values of any size here, so the mean over
    prompts is no summary: use `normalized`.

    Warns: `UnevenPromptsWarning` as `normalized`.

    Raises:
        ValueError: if `result` is not a result of patching, or the clean and corrupt scores of a
            prompt are equal.

    Source: Zhang & Nanda 2023, arXiv 2309.16042.
    """
    clean, corrupt = _scores(result)
    check_apart(clean, corrupt)
    _warn_if_uneven(clean, corrupt)
    return _on_scale(result, (result - corrupt) / (clean - corrupt))


def uneven_prompts(clean: xr.DataArray, corrupt: xr.DataArray) -> str:
    """Which prompts the metric hardly tells apart, or tells apart the other way; empty: none.

    >>> scores = (xr.DataArray(x, dims="prompt") for x in ([4.0, 3.0, 1.0], [0.0, 0.0, 1.5]))
    >>> uneven_prompts(*scores)
    'clean − corrupt of 1 of 3 prompts is small or reversed: -0.5 of prompt 2, on average 2.17.'
    """
    apart = clean - corrupt
    mean = float(apart.mean())
    forward = apart.values * np.sign(mean)
    (odd,) = np.nonzero(forward < _UNEVEN * abs(mean))
    if not len(odd):
        return ""
    worst = int(forward.argmin())
    name = apart["prompt"].values[worst] if "prompt" in apart.coords else worst
    return (
        f"clean − corrupt of {len(odd)} of {apart.size} prompts is small or reversed: "
        f"{float(apart[worst]):.3g} of prompt {name}, on average {mean:.3g}."
    )


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


def _warn_if_uneven(clean: xr.DataArray, corrupt: xr.DataArray) -> None:
    if found := uneven_prompts(clean, corrupt):
        caution(
            f"{found} Where the metric does not tell a prompt's two versions apart, a patch of it "
            f"shows nothing. Leave such prompts out, result.sel(prompt=[...]), or read `effect`.",
            UnevenPromptsWarning,
        )


def check_apart(clean: xr.DataArray, corrupt: xr.DataArray) -> None:
    """Check that clean and corrupt scores differ, so that there is a scale between them.

    Raises:
        ValueError: if two are equal.
    """
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
