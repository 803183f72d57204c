"""How few bits the labels take, given the activations: online codes, beside control labels.

>>> import numpy as np, xarray as xr
>>> from mechinterp.probing import Labelled, description_length
>>> rng = np.random.default_rng(0)
>>> given = Labelled.of([f"text {i}" for i in range(200)], ["no", "yes"] * 100)
>>> x = rng.normal(size=(2, 200, 12))
>>> x[1, :, 0] += 6 * given.y
>>> found = description_length(xr.DataArray(x, dims=("layer", "prompt", "feature")), given)
>>> found["compression"].values.round(1).tolist()
[0.9, 2.1]

A probe's accuracy says what it ends with; the code also pays for how many labels it needed. More
is compressed where fewer are enough. Below 1, the probe does worse than telling the labels plainly.
"""

import itertools

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from sklearn.preprocessing import StandardScaler

from mechinterp.probing.by_layer import layer_name, layer_of
from mechinterp.probing.labelled import Labelled
from mechinterp.probing.probes import ProbeError, regression

SHARES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""The ends of the blocks, as parts of all prompts, of the source."""


def description_length(
    acts: xr.DataArray,
    labelled: Labelled,
    labels: Int[np.ndarray, " prompt"] | None = None,
    *,
    C: float = 0.1,  # noqa: N803 - as in scikit-learn
    max_iter: int = 1000,
    shares: tuple[float, ...] = SHARES,
    seed: int = 0,
) -> xr.Dataset:
    """`bits` of the labels by an online code, and `compression`, plain bits over these: (layer).

    The prompts come in random order, groups whole. The labels of the first block cost log2 of the
    number of classes each; those of every further block what a probe of all prompts before gives
    them. A block ends where a group does; while a class has not come yet, blocks are joined to the
    first. `labels`: others in place of the prompts' own, such as those of a control task. The
    probes are logistic, `C` and `max_iter` as there. Who decodes has all activations,
    only no labels, so that they are standardised together: three prompts have no scale.

    Raises:
        ProbeError: if a probe does not converge, naming the layer.

    Source: Voita and Titov 2020, section 2.3, arXiv 2003.12298.
    """
    y = labelled.y if labels is None else labels
    order, ends = _blocks(y, labelled.group_numbers, shares, seed)
    n_classes = int(y.max()) + 1
    first = ends[0] * np.log2(n_classes)
    bits = np.full(acts.sizes["layer"], first)
    for place in range(len(bits)):
        x = StandardScaler().fit_transform(layer_of(acts, place))[order]
        for begin, end in itertools.pairwise(ends):
            try:
                weights, bias = regression(x[:begin], y[order[:begin]], C=C, max_iter=max_iter)
            except ProbeError as error:
                raise ProbeError(f"{layer_name(acts, place)}, {begin} prompts: {error}") from error
            scores = x[begin:end] @ weights.T + bias
            bits[place] += _code(scores, y[order[begin:end]]).sum()
    plain = len(y) * np.log2(n_classes)
    coords = {name: c for name, c in acts.coords.items() if c.dims == ("layer",)}
    return xr.Dataset(
        {"bits": ("layer", bits, {"unit": "bits"}), "compression": ("layer", plain / bits)},
        coords,
        {"plain_bits": plain, "blocks": ends, "C": C, "seed": seed},
    )


def _blocks(
    y: Int[np.ndarray, " prompt"],
    groups: Int[np.ndarray, " prompt"],
    shares: tuple[float, ...],
    seed: int,
) -> tuple[Int[np.ndarray, " prompt"], list[int]]:
    """The prompts in their order, and where each block ends."""
    place = np.random.default_rng([seed, 2]).permutation(int(groups.max()) + 1)
    order = np.argsort(place[groups], kind="stable")
    whole = np.flatnonzero(np.diff(place[groups][order])) + 1  # ends of groups
    wanted = [share * len(y) for share in shares[:-1]]
    cuts = {int(whole[np.abs(whole - at).argmin()]) for at in wanted if len(whole)}
    n_classes = len(np.unique(y))
    ends = [end for end in sorted(cuts) if len(np.unique(y[order[:end]])) == n_classes]
    return order, [*ends, len(y)]


def _code(
    scores: Float[np.ndarray, "prompt output"], y: Int[np.ndarray, " prompt"]
) -> Float[np.ndarray, " prompt"]:
    """-log2 of the probability of each label, in bits."""
    if scores.shape[1] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], 1)
    largest = scores.max(1, keepdims=True)
    total = np.log(np.exp(scores - largest).sum(1)) + largest[:, 0]
    bits: Float[np.ndarray, " prompt"] = (total - scores[np.arange(len(y)), y]) / np.log(2)
    return bits
