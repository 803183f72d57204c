"""Attention rollout and maximum flow: what would reach a position if there were only attention.

Use them only as references: both average over heads, ignore values and MLPs, and assume that half
of each position stays where it is in every layer.

>>> from mechinterp import load_model
>>> from mechinterp.attention import max_flow, patterns, rollout
>>> found = patterns(load_model("toy:trigger"), "please bring the sesame").isel(prompt=0)
>>> rollout(found).isel(layer=-1, pos=-1).values.round(2)
array([0.17, 0.11, 0.1 , 0.09, 0.54])
>>> max_flow(found, 4).values.round(2)
array([0.34, 0.27, 0.2 , 0.13, 0.73])
"""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from mechinterp.attention.pattern import LINK_DIMS
from mechinterp.core.arguments import checks_arguments

_UNITS = 1_000_000
"""scipy takes integer capacities: a flow is off by at most a millionth per link."""


@checks_arguments
def rollout(found: xr.DataArray) -> xr.DataArray:
    """The share of each position after each layer that comes from each source; no dim head.

    `found`: patterns, with or without prompts. Rows sum to 1. Padded rows are NaN, as in `found`.

    Source: Abnar and Zuidema 2020, section 3, arXiv 2005.00928.
    """
    mixed = _mixed(found)
    shares, each = np.eye(mixed.sizes["pos"]), []
    for layer in range(mixed.sizes["layer"]):
        attended = mixed.isel(layer=layer).transpose(..., "pos", "src").values
        shares = np.nan_to_num(attended) @ shares
        each.append(np.where(np.isfinite(attended), shares, np.nan))
    dims = [dim for dim in mixed.dims if dim != "layer"]
    like = mixed.transpose("layer", *(d for d in dims if d not in ("pos", "src")), "pos", "src")
    return like.copy(data=np.stack(each)).transpose(*mixed.dims).rename("rollout")


@checks_arguments
def max_flow(found: xr.DataArray, query: int) -> xr.DataArray:
    """The maximum flow from each source at the bottom to a query at the top: dim src.

    The capacities of a layer are its mean pattern, with half of each position left where it is.
    Flows from different sources share capacities, and sum to more than 1.

    Raises:
        ValueError: if there are several prompts, or no such query.

    Source: Abnar and Zuidema 2020, section 3, arXiv 2005.00928.
    """
    if set(found.dims) != set(LINK_DIMS):
        raise ValueError(f"flow is of one pattern, dims {' '.join(LINK_DIMS)}: .isel(prompt=0).")
    if query not in found["pos"].values.tolist():
        raise ValueError(f"max_flow: the pattern has no query {query}. Give one of its positions.")
    mixed = _mixed(found).transpose("layer", "pos", "src")
    capacities = np.nan_to_num(mixed.values)
    at = found["pos"].values.tolist().index(query)
    flows = [_flow(capacities, at, src) for src in range(found.sizes["src"])]
    keep = [name for name, c in found.coords.items() if c.dims == ("src",)]
    return xr.DataArray(
        np.array(flows), {n: found[n] for n in keep}, ("src",), "maximum flow", {"query": query}
    )


def _mixed(found: xr.DataArray) -> xr.DataArray:
    """The mean over heads, averaged with the identity."""
    mean = found.mean("head", keep_attrs=True).astype(float)
    return 0.5 * mean + 0.5 * (mean["pos"] == mean["src"]).where(mean.notnull(), 0.0)


def _flow(capacities: Float[np.ndarray, "layer pos src"], query: int, source: int) -> float:
    n_layers, n = capacities.shape[:2]
    layer, pos, src = np.nonzero(capacities)
    units = np.rint(_UNITS * capacities[layer, pos, src]).astype(np.int32)
    n_nodes = (n_layers + 1) * n
    network = csr_array((units, ((layer + 1) * n + pos, layer * n + src)), (n_nodes, n_nodes))
    return float(maximum_flow(network, n_layers * n + query, source).flow_value) / _UNITS
