"""The strongest links of one prompt, each with its strongest head.

A `Rule` says which links are strong. `mean_above(0.1)` is the classic recipe: the average over all
layers and heads is above 0.1. It hides what single heads do; the other rules look at heads.

>>> from mechinterp import load_model
>>> from mechinterp.attention import above_uniform, find_links, patterns, without_sink
>>> found = patterns(load_model("toy:induction"), "c k e c").isel(prompt=0)
>>> links = find_links(without_sink(found), above_uniform(2.0))
>>> [links[name].values.tolist() for name in ("query", "key", "layer", "head", "kind")]
[[4, 4, 3], [3, 2, 2], [0, 1, 0], [1, 2, 1], ['previous', 'other', 'previous']]
>>> links["mean"].values.round(2), links["largest"].values.round(2)
(array([0.33, 0.33, 0.44]), array([1., 1., 1.]))

A link says where a head looks, not what that does: `mechinterp.attention.confirm` cuts it.
"""

import itertools
from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from mechinterp.attention.pattern import LINK_DIMS, n_keys, seen_keys
from mechinterp.core.arguments import checks_arguments

Weights = Float[np.ndarray, "layer head pos src"]
Rule = Callable[[Weights, Int[np.ndarray, " pos"]], Float[np.ndarray, "pos src"]]
"""From the attention weights (0 for keys that are not seen) and each query's number of keys to the
strength of each link; NaN where the rule does not list the link."""

KINDS = ("sink", "self", "previous", "other")


@checks_arguments
def mean_above(weight: float = 0.1) -> Rule:
    """Links whose mean over all layers and heads is above a weight; strength: that mean."""

    def rule(weights: Weights, keys: np.ndarray) -> np.ndarray:
        mean = weights.mean((0, 1))
        return np.where(mean > weight, mean, np.nan)

    return rule


@checks_arguments
def head_above(weight: float = 0.5) -> Rule:
    """Links to which some head gives more than a weight; strength: the largest weight."""

    def rule(weights: Weights, keys: np.ndarray) -> np.ndarray:
        largest = weights.max((0, 1))
        return np.where(largest > weight, largest, np.nan)

    return rule


@checks_arguments
def above_uniform(times: float = 3.0) -> Rule:
    """Links to which some head gives more than `times` uniform attention; strength: that ratio.

    Uniform attention is one over the number of keys, 1/(q + 1) for the query at q: 0.3 is much
    among 40 keys and little among 3.
    """

    def rule(weights: Weights, keys: np.ndarray) -> np.ndarray:
        ratio = weights.max((0, 1)) * keys[:, None]
        return np.where(ratio > times, ratio, np.nan)

    return rule


@checks_arguments
def top_k(k: int = 1) -> Rule:
    """The `k` keys of each query with the largest weight in any head; strength: that weight."""

    def rule(weights: Weights, keys: np.ndarray) -> np.ndarray:
        largest = weights.max((0, 1))
        place = (-largest).argsort(1, kind="stable").argsort(1, kind="stable")
        return np.where(place < k, largest, np.nan)

    return rule


@checks_arguments
def find_links(found: xr.DataArray, rule: Rule | None = None) -> xr.Dataset:
    """The links that a rule lists (default `mean_above(0.1)`), strongest first: dim `link`.

    `found`: patterns of one prompt, or a mean over prompts. For each link: `strength`, by the rule;
    `mean` over layers and heads; `largest`, the largest weight of any head, and that head in the
    coordinates `layer` and `head`; `n_heads`, how many heads give at least half of that, because
    cutting the link in one head leaves it in the others; `uniform`, what uniform attention would
    give. Coordinates: `query`, `key`, their tokens, and `kind`: "sink" (to the first token),
    "self", "previous" (to the token before) or "other". Queries that see only one key have no
    choice, and are left out.

    Raises:
        ValueError: if there are several prompts, or other dims.
    """
    if "prompt" in found.dims or set(found.dims) != set(LINK_DIMS):
        raise ValueError(
            f"links are of one pattern, dims {LINK_DIMS}, not {found.dims}. "
            f"Select a prompt, .isel(prompt=0), or average with over_prompts."
        )
    found = found.transpose(*LINK_DIMS)
    seen, keys = seen_keys(found), n_keys(found)
    weights = np.where(seen, np.nan_to_num(found.values.astype(float)), 0.0)
    strength = np.where(seen & (keys > 1)[:, None], (rule or mean_above())(weights, keys), np.nan)
    order = np.argsort(-strength, axis=None, kind="stable")[: np.isfinite(strength).sum()]
    query, key = np.unravel_index(order, strength.shape)
    at = weights[:, :, query, key]
    layer, head = np.unravel_index(
        at.reshape(at.shape[0] * at.shape[1], -1).argmax(0), at.shape[:2]
    )
    columns = {
        "strength": strength[query, key],
        "mean": at.mean((0, 1)),
        "largest": at.max((0, 1)),
        "uniform": 1 / keys[query],
        "n_heads": (at >= at.max((0, 1)) / 2).sum((0, 1)),
    }
    places = {
        "query": found["pos"].values[query],
        "key": found["src"].values[key],
        "query_token": _tokens(found, "token", query),
        "key_token": _tokens(found, "source_token", key),
        "layer": found["layer"].values[layer],
        "head": found["head"].values[head],
    }
    places["kind"] = kinds(places["query"], places["key"])
    return xr.Dataset(
        {name: ("link", values) for name, values in columns.items()},
        {"link": range(len(order)), **{name: ("link", at) for name, at in places.items()}},
        found.attrs,
    )


@checks_arguments
def links_by_head(found: xr.DataArray, rule: Rule | None = None) -> xr.Dataset:
    """The rule applied to each head alone (default `above_uniform(3)`): one link per head.

    Two heads with the same link give two rows here, and one in `find_links`.

    Raises:
        ValueError: as `find_links`.
    """
    rule = rule or above_uniform()
    places = itertools.product(range(found.sizes["layer"]), range(found.sizes["head"]))
    each = [find_links(found.isel(layer=[n], head=[h]), rule) for n, h in places]
    joined = xr.concat(each, "link", combine_attrs="override")
    joined = joined.isel(link=np.argsort(-joined["strength"].values, kind="stable"))
    return joined.assign_coords(link=range(joined.sizes["link"]))


@checks_arguments
def random_links(found: xr.DataArray, links: xr.Dataset, seed: int = 0) -> xr.Dataset:
    """A random control for each link: the same query and head, but another key.

    The key is not the first token, and not the key of a listed link of that query. Links whose
    query has no such key are left out. `strength` is NaN.
    """
    draw, seen = np.random.default_rng(seed), seen_keys(found)
    found = found.transpose(*LINK_DIMS)
    listed = set(zip(links["query"].values.tolist(), links["key"].values.tolist(), strict=True))
    positions, sources = found["pos"].values.tolist(), found["src"].values.tolist()
    rows, keys = [], []
    for row, query in enumerate(links["query"].values.tolist()):
        at = positions.index(query)
        free = [
            k for k in np.flatnonzero(seen[at]).tolist() if k and (query, sources[k]) not in listed
        ]
        if free:
            rows.append(row)
            keys.append(int(draw.choice(free)))
    drawn = links.isel(link=rows)
    key = found["src"].values[keys] if keys else np.zeros(0, dtype=int)
    each = zip(drawn["layer"].values, drawn["head"].values, drawn["query"].values, key, strict=True)
    own = [float(found.sel(layer=n, head=h, pos=q, src=k)) for n, h, q, k in each]
    means = found.mean(["layer", "head"])
    both = zip(drawn["query"].values, key, strict=True)
    return drawn.assign(
        strength=("link", np.full(len(keys), np.nan)),
        largest=("link", np.array(own)),
        mean=("link", np.array([float(means.sel(pos=q, src=k)) for q, k in both])),
    ).assign_coords(
        link=range(len(keys)),
        key=("link", key),
        key_token=("link", _tokens(found, "source_token", np.array(keys, dtype=int))),
        kind=("link", kinds(drawn["query"].values, key)),
    )


def kinds(query: Int[np.ndarray, " link"], key: Int[np.ndarray, " link"]) -> np.ndarray:
    """The kind of each link: the first that applies of "sink", "self", "previous", else "other"."""
    is_kind = [(key == 0) & (query != 0), key == query, key == query - 1]
    return np.select(is_kind, KINDS[:3], KINDS[3]).astype(object)


def _tokens(found: xr.DataArray, name: str, places: np.ndarray) -> np.ndarray:
    if name not in found.coords:
        return np.full(len(places), "", dtype=object)
    return np.asarray(found[name].values[places], dtype=object)
