"""Is one layer better than another? Paired differences, corrected for all comparisons.

>>> import numpy as np, xarray as xr
>>> from mechinterp.probing import Labelled, best_layers, compare_layers, probe_layers
>>> rng = np.random.default_rng(0)
>>> given = Labelled.of([f"text {i}" for i in range(80)], ["no", "yes"] * 40)
>>> x = rng.normal(size=(3, 80, 12))
>>> x[1:, :, 0] += 4 * given.y                           # planted in layers 1 and 2
>>> found = probe_layers(xr.DataArray(x, dims=("layer", "prompt", "feature")), given)
>>> float(compare_layers(found, 1, 0)["p"]) < 0.01
True
>>> best = best_layers(found)
>>> best.attrs["best"], best.attrs["as_good"]
(1, [1, 2])

Some layer is always the highest, even if all are equally good.
"""

import itertools

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.probing.by_layer import balanced_by_group
from mechinterp.stats.multiple_comparisons import correct_p_values
from mechinterp.stats.paired_differences import difference

_SURE = 0.05


@checks_arguments
def compare_layers(
    found: xr.Dataset,
    a: int,
    b: int,
    *,
    level: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """Balanced accuracy at layer a minus that at layer b: `mean`, `low`, `high`, two-sided `p`.

    On the same prompts, out of fold, paired by group (`stats.difference`). Choose the two layers
    beforehand: for layers chosen by their accuracy p is too small, use `best_layers`.

    Raises:
        ValueError: if a layer was not probed.
    """
    scores = balanced_by_group(found)
    for layer in (a, b):
        if layer not in scores["layer"].values:
            raise ValueError(f"layer {layer} was not probed: {scores['layer'].values.tolist()}.")
    one, other = (scores.sel(layer=layer, drop=True) for layer in (a, b))
    return difference(one, other, dim="group", level=level, n_resamples=n_resamples, seed=seed)


@checks_arguments
def best_layers(found: xr.Dataset, *, n_resamples: int = 9999, seed: int = 0) -> xr.Dataset:
    """The layer with the highest balanced accuracy minus every layer: dims (layer).

    `mean`, `low`, `high`, `p`, and `p_corrected` by Holm over all pairs of layers, because the best
    one was chosen after looking at all. `attrs`: `best`, and `as_good`, the layers from which the
    best does not differ significantly. Call it the best layer only if it is alone there.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    scores = balanced_by_group(found)
    layers = scores["layer"].values.tolist()
    best = layers[int(scores.mean("group").values.argmax())]
    pairs = list(itertools.combinations(layers, 2))
    own = scores.sel(layer=best, drop=True)
    against = difference(
        own.expand_dims(layer=layers),
        scores.transpose("layer", "group"),
        dim="group",
        n_resamples=n_resamples,
        seed=seed,
    )
    if not pairs:
        return against.assign(p_corrected=against["p"]).assign_attrs(best=best, as_good=[best])
    p = _all_pairs(scores, pairs, n_resamples, seed)
    at = [None if n == best else pairs.index((min(n, best), max(n, best))) for n in layers]
    fixed = correct_p_values(xr.DataArray(p, dims="pair")).values
    one = [1.0 if place is None else float(fixed[place]) for place in at]
    as_good = [n for n, value in zip(layers, one, strict=True) if value >= _SURE]
    return against.assign(p_corrected=("layer", one)).assign_attrs(
        best=best, as_good=as_good, n_comparisons=len(pairs)
    )


def _all_pairs(
    scores: xr.DataArray, pairs: list[tuple[int, int]], n_resamples: int, seed: int
) -> np.ndarray:
    """p of each pair of layers, by the test of `difference`, with the same signs for every pair.

    A sum of signed differences is a difference of signed sums, so one product serves all pairs.
    """
    values = scores.transpose("layer", "group").values
    order = {layer: i for i, layer in enumerate(scores["layer"].values.tolist())}
    at = np.array([[order[a], order[b]] for a, b in pairs])
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (n_resamples, values.shape[1]))
    signed = signs @ values.T
    observed = abs(values.sum(1)[at[:, 0]] - values.sum(1)[at[:, 1]])
    reached = np.zeros(len(pairs))
    for begin in range(0, len(pairs), 64):  # so that not all pairs are held at once
        some = at[begin : begin + 64]
        drawn = abs(signed[:, some[:, 0]] - signed[:, some[:, 1]])
        reached[begin : begin + 64] = (drawn >= observed[begin : begin + 64] - 1e-9).sum(0)
    p: np.ndarray = (reached + 1) / (n_resamples + 1)
    return p
