"""Where each head looks on a prompt, in four numbers.

>>> from mechinterp import load_model
>>> from mechinterp.attention import patterns, where_heads_look
>>> found = patterns(load_model("toy:induction"), "c k e c").isel(prompt=0)
>>> where_heads_look(found)["to the token before"].sel(layer=0).values.round(2)
array([0.32, 1.  , 0.32], dtype=float32)
"""

import xarray as xr

from mechinterp.attention.sinks import sink_share
from mechinterp.core.arguments import checks_arguments


@checks_arguments
def where_heads_look(found: xr.DataArray) -> xr.Dataset:
    """For each head "to the first token", "to the token before", "to itself", "largest elsewhere".

    The first three are mean weights over all queries except the first, from 0 to 1 (for the second
    query, the first token is also the token before). The last is the largest weight of any other
    link. Dims: those of the patterns without pos and src.

    Raises:
        ValueError: as `sink_share`.
    """
    rest = found.isel(pos=slice(1, None)).drop_vars(["token", "source_token"], errors="ignore")
    behind = rest["pos"] - rest["src"]
    there = rest.notnull().any("src")
    before = rest.where(behind == 1).sum("src").where(there).mean("pos")
    own = rest.where(behind == 0).sum("src").where(there).mean("pos")
    elsewhere = rest.where((rest["src"] > 0) & (behind > 1)).max(["pos", "src"])
    return xr.Dataset(
        {
            "to the first token": sink_share(found),
            "to the token before": before,
            "to itself": own,
            "largest elsewhere": elsewhere,
        }
    )
