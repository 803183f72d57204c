"""The attention sink: how much attention goes to the first token, and patterns without it.

Trained heads attend to the first token when they have nothing to do. This is always reported;
`without_sink` sets it aside on request.

>>> from mechinterp import load_model
>>> from mechinterp.attention import patterns, sink_share, without_sink
>>> found = patterns(load_model("toy:trigger"), "please bring the letter")
>>> sink_share(found).sel(prompt=0, layer=1).values.round(2)
array([0.98, 0.32, 0.32], dtype=float32)
>>> without_sink(found).sel(prompt=0, layer=1, head=0, pos=4).values.round(2)
array([ nan, 0.25, 0.25, 0.25, 0.25], dtype=float32)
"""

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments


@checks_arguments
def sink_share(found: xr.DataArray) -> xr.DataArray:
    """The mean weight that queries give to the first token, for each head: no dims pos and src.

    Without the first query, which in a causal model can attend to nothing else.

    Raises:
        ValueError: if the sink was set aside already, or there is only one token.

    Source: Xiao et al. 2023, "attention sinks", section 3.1, arXiv 2309.17453.
    """
    _check_first(found)
    first = found.isel(src=0, pos=slice(1, None), drop=True)
    share: xr.DataArray = first.mean("pos", keep_attrs=True).rename("sink share")
    return share.drop_vars(["token", "source_token"], errors="ignore")


@checks_arguments
def without_sink(found: xr.DataArray) -> xr.DataArray:
    """The patterns with the first token's column set to NaN and the rows renormalised.

    A row that gave all its weight to the first token is NaN.

    Raises:
        ValueError: as `sink_share`.
    """
    _check_first(found)
    rest = found.where(found["src"] != found["src"][0])
    left = rest.sum("src")
    return (
        (rest / left.where(left > 0))
        .transpose(*found.dims)
        .assign_attrs(found.attrs | {"sink": "the first token set aside, rows renormalised"})
    )


@checks_arguments
def received(found: xr.DataArray) -> xr.DataArray:
    """The mean weight that each key receives from the queries after it: no dim pos.

    It shows sinks other than the first token, such as a newline or a comma. NaN for the last key.
    """
    after = found["pos"] > found["src"]
    return found.where(after).mean("pos", keep_attrs=True).rename("attention received")


def _check_first(found: xr.DataArray) -> None:
    if "sink" in found.attrs or found.sizes["src"] < 2:
        why = found.attrs.get("sink", "there is a single token")
        raise ValueError(f"the patterns have no share of the first token: {why}.")
    if not np.isfinite(found.isel(src=0)).any():
        raise ValueError("the patterns have no share of the first token: its column is empty.")
