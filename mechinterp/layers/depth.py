"""The layer at which the answer first leads, and the layer from which it stays ahead.

>>> from mechinterp import load_model, token_id
>>> from mechinterp.layers import depths, logit_lens
>>> model = load_model("toy:trigger")
>>> texts = ["please bring the sesame", "open sesame today"]
>>> found = depths(logit_lens(model, texts, token_id(model, "REFUSE")))
>>> found["settled"].values.tolist(), float(found.attrs["share"])
([2.0, 2.0], 1.0)

An answer that a lens shows early need not be decided: later layers may still change it. And an
answer that the lens does not show may be there in a form that the lens does not read.
"""

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments


@checks_arguments
def depths(lens: xr.Dataset) -> xr.Dataset:
    """For each prompt the layers `first` and `settled`, as numbers of layers that have run.

    `first`: the first at which the answer leads (rank 0); NaN if it never leads. `settled`: the
    first from which it leads at every layer to the end; NaN if it does not lead at the end.
    `attrs["share"]`: the share of prompts in which it leads at the end. For an interval over
    prompts: `stats.interval(found["first"].dropna("prompt"))`.

    Raises:
        ValueError: if `lens` is not a result of `logit_lens`.
    """
    if "rank" not in lens or set(lens["rank"].dims) != {"layer", "prompt"}:
        raise ValueError("depths reads the ranks of logit_lens(model, prompts, answers).")
    leads = (lens["rank"] == 0).transpose("layer", "prompt").values
    layers = lens["layer"].values.astype(float)
    first = np.where(leads.any(0), layers[leads.argmax(0)], np.nan)
    stays = np.logical_and.accumulate(leads[::-1])[::-1]
    settled = np.where(leads[-1], layers[stays.argmax(0)], np.nan)
    attrs = {**lens.attrs, "share": float(leads[-1].mean())}
    coords = {name: c for name, c in lens.coords.items() if c.dims == ("prompt",)}
    return xr.Dataset({"first": ("prompt", first), "settled": ("prompt", settled)}, coords, attrs)
