"""Description length: the bits that the labels take, given the activations, by an online code.

>>> import numpy as np, xarray as xr
>>> from mechinterp.probing import Labelled, description_length
>>> rng = np.random.default_rng(0)
>>> given = Labelled.of([f"text {i}" for i in range(200)], ["no", "yes"] * 100)
>>> x = rng.normal(size=(2, 200, 12))
>>> x[1, :, 0] += 6 * given.y
>>> found = description_length(xr.DataArray(x, dims=("layer", "prompt", "feature")), given)
>>> found["compression"].values.round(1).tolist()
[0.9, 2.1]

Accuracy says how good the final probe is; the code also counts how many labels it needed to get
there. Compression is higher if fewer labels are enough. Below 1, the code is longer than the plain
labels.
"""

import itertools

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from sklearn.preprocessing import StandardScaler

from mechinterp.core.arguments import checks_arguments
from mechinterp.probing.by_layer import grouped_by_tokens, layer_name, layer_of
from mechinterp.probing.labelled import Labelled
from mechinterp.probing.probes import ProbeError, regression

SHARES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Where the blocks end, as shares of all prompts; as in the source."""


@checks_arguments
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
    """`bits` of the labels by an online code, and `compression`, plain bits over `bits`: (layer).

    Prompts come in random order, group by group. In the first block each label costs log2 of the
    number of classes; in each further block it costs -log2 of the probability by a probe fitted to
    all earlier prompts. Blocks end between groups; the first block extends until all classes have
    occurred. `labels`: other labels, such as those of a control task. The probes are `logistic`,
    with its `C` and `max_iter`. All activations are standardised together, since the decoder has
    them all and lacks only labels, and three prompts alone would give no scale.

    Raises:
        ProbeError: if a probe does not converge, naming the layer.

    Source: Voita and Titov 2020, section 2.3, arXiv 2003.12298.
    """
    labelled = grouped_by_tokens(labelled, acts)
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
    """The order of the prompts, and where each block ends."""
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
