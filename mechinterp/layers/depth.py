"""Where in depth the answer first leads, and from where on it stays ahead.

>>> from mechinterp import load_model, token_id
>>> from mechinterp.layers import depths, logit_lens
>>> model = load_model("toy:trigger")
>>> texts = ["please bring the sesame", "open sesame today"]
>>> found = depths(logit_lens(model, texts, token_id(model, "REFUSE")))
>>> found["settled"].values.tolist(), float(found.attrs["share"])
([2.0, 2.0], 1.0)

That a lens shows an answer early does not say that the model has decided: later layers may need
what else the stream holds, and it may be there in a form that the lens does not read.
"""

import numpy as np
import xarray as xr


def depths(lens: xr.Dataset) -> xr.Dataset:
    """By prompt: `first`, the least number of layers after which the answer leads, and `settled`.

    `settled`: after which it leads at every layer to the end. NaN where it never leads, or not at
    the end; `attrs["share"]`: of prompts in which it does at the end. Intervals over prompts:
    `stats.interval(found["first"].dropna("prompt"))`.

    Raises:
        ValueError: if it is no result of `logit_lens`.
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
