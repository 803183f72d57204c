"""Is harm in what is asked for there to be read, beyond the words and beyond chance?

Probes are fitted to few families and read the others, since with many families a bag of words
learns all the words: that would be a test of the requests, and not of the model.

>>> import numpy as np
>>> from mechinterp.refusal.detection import placements
>>> y, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.5, 0.9])
>>> placements(scores, y).tolist()
[1.0, 0.5, 0.5, 1.0]
"""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.prompts import Prompts
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.probing.by_layer import layer_of
from mechinterp.probing.controls import bag_of_tokens
from mechinterp.probing.folds import grouped_folds
from mechinterp.probing.probes import Probe, logistic
from mechinterp.refusal.readings import PLACES, Readings
from mechinterp.stats.intervals import interval
from mechinterp.stats.multiple_comparisons import correct_p_values
from mechinterp.stats.paired_differences import difference
from mechinterp.tasks.request_families import Request

LEAST_AUROC = 0.75
"""What a probe has to reach for harm to count as detected."""
MARGIN = 0.05
"""By how much it has to be better than each control, unless it has at most half of its errors."""
LEVEL = 0.05
"""The corrected p below which a probe is better than a control."""

Scores = Float[np.ndarray, " prompt"]
Reading = Callable[[Bool[np.ndarray, " prompt"]], Float[np.ndarray, " tested"]]
"""The scores of the tested prompts by what was fitted to the others."""


@checks_arguments
def placements(scores: Scores, y: Int[np.ndarray, " prompt"]) -> Scores:
    """Of each prompt, the share of the other class that is on the right side of it.

    The mean over either class is the AUROC; a tie is half.

    Source: DeLong et al. 1988, "Comparing the Areas under Two or More Correlated ROC Curves".
    """
    found = np.empty(len(y))
    for number, sign in ((1, 1), (0, -1)):
        gap = sign * (scores[y == number][:, None] - scores[y != number][None])
        found[y == number] = ((gap > 0) + 0.5 * (gap == 0)).mean(1)
    return found


@checks_arguments
def probe_harm(
    model: Model,
    requests: Sequence[Request],
    readings: Readings,
    at_random: Readings,
    *,
    n_folds: int = 4,
    seed: int = 0,
    probe: Probe | None = None,
) -> xr.Dataset:
    """How well harm is read off each layer, in families to which the probe was not fitted.

    `readings`, `at_random`: of the requests, by the model and by one with random weights. Over
    `layer`, at the place where it is read best (`read_at`): `auroc` with `low` and `high`,
    `random_weights`, `bag_of_words` (the better of token counts and the mean embedding), and `p`,
    corrected for all layers, places and controls. `auroc_by_place`: dims (place, layer). Each probe
    is fitted to one part of the families, and reads all others. `attrs["detected_at"]`: the first
    layer that is better than both controls and about as good as any (to .05, and with at most
    twice its errors); or None.

    Raises:
        ValueError: if there are fewer than two families of harmful or of benign requests.
    """
    y = np.array([int(request.harmful) for request in requests])
    names, groups = np.unique([request.family for request in requests], return_inverse=True)
    n_folds = min(n_folds, *(len(np.unique(groups[y == number])) for number in (0, 1)))
    folds = grouped_folds(y, groups, n_folds=n_folds, seed=seed, classes=("benign", "harmful"))
    test = _Test(y, groups, folds, probe or logistic())
    own, other = (test.by_family(each.acts) for each in (readings, at_random))
    counted = test.of_words(tokenize(model, cast(Text, list(readings.prompts))))
    embedded = own[PLACES.index("content"), 0]
    words = max((counted, embedded), key=lambda found: float(found.mean()))
    return _dataset(readings.acts, own, other, words, list(map(str, names)))


class _Test:
    """Probes of each part of the families, tested on the others; results by family."""

    def __init__(
        self,
        y: Int[np.ndarray, " prompt"],
        groups: Int[np.ndarray, " prompt"],
        folds: Int[np.ndarray, " prompt"],
        probe: Probe,
    ) -> None:
        self._y, self._groups, self._folds, self._probe = y, groups, folds, probe

    def by_family(self, acts: xr.DataArray) -> Float[np.ndarray, "place layer family"]:
        """The AUROC as a mean over families, at each place and layer."""
        found = []
        for place in PLACES:
            layers = acts.sel(place=place)
            for number in range(acts.sizes["layer"]):
                found.append(self._mean_of(self._reading(layer_of(layers, number))))
        shaped: Float[np.ndarray, "place layer family"] = np.stack(found).reshape(
            len(PLACES), acts.sizes["layer"], -1
        )
        return shaped

    def of_words(self, prompts: Prompts) -> Float[np.ndarray, " family"]:
        """The same of a bag of words."""

        def scores(tested: Bool[np.ndarray, " prompt"]) -> Float[np.ndarray, " tested"]:
            found = bag_of_tokens(prompts, self._y, tested.astype(int))
            return np.asarray(found.scores[0, tested, 0])

        return self._mean_of(scores)

    def _reading(self, x: Float[np.ndarray, "prompt feature"]) -> Reading:
        def scores(tested: Bool[np.ndarray, " prompt"]) -> Float[np.ndarray, " tested"]:
            fitted = self._probe.fit(x[~tested], self._y[~tested])
            return np.asarray(fitted.scores(x[tested])[:, 0])

        return scores

    def _mean_of(self, scores_of: Reading) -> Float[np.ndarray, " family"]:
        """What each family adds to the AUROC: the mean over its prompts, both classes alike."""
        total, tests = np.zeros((2, len(self._y)))
        for fold in np.unique(self._folds):
            tested = self._folds != fold
            total[tested] += placements(scores_of(tested), self._y[tested])
            tests += tested
        each, n_families = total / tests, int(self._groups.max()) + 1
        found = np.zeros(n_families)
        for number in (0, 1):
            own = self._y == number
            added = np.bincount(self._groups[own], each[own], n_families)
            found += added * n_families / (2 * own.sum())
        return found


def _dataset(
    acts: xr.DataArray,
    own: Float[np.ndarray, "place layer family"],
    other: Float[np.ndarray, "place layer family"],
    words: Float[np.ndarray, " family"],
    names: Sequence[str],
) -> xr.Dataset:
    dims = ("place", "layer", "family")
    coords = {"place": list(PLACES), "layer": acts["layer"].values, "family": list(names)}
    task = xr.DataArray(own, coords, dims)
    controls = {
        "bag_of_words": xr.DataArray(np.broadcast_to(words, own.shape), coords, dims),
        "random_weights": xr.DataArray(other, coords, dims),
    }
    p = [difference(task, control, dim="family")["p"] for control in controls.values()]
    worst = correct_p_values(xr.concat(p, dim="control")).max("control")
    best = xr.concat([each.mean("family") for each in controls.values()], dim="control").max(
        "control"
    )
    mean = task.mean("family")
    is_better = (mean >= best + MARGIN) | (1 - mean <= (1 - best) / 2)
    passes = (mean >= LEAST_AUROC) & is_better & (worst <= LEVEL) & (mean > best)
    top = mean.where(passes).max()
    passes &= (mean >= top - MARGIN) & (1 - mean <= 2 * (1 - top) + 0.01)
    at = (mean + 2 * passes).argmax("place")
    bounds = interval(task, dim="family")
    by_place = {
        "auroc": mean,
        "low": bounds["low"].clip(0, 1),
        "high": bounds["high"].clip(0, 1),
        "p": worst,
        **{name: each.mean("family") for name, each in controls.items()},
    }
    found = xr.Dataset(
        {name: each.isel(place=at).drop_vars("place") for name, each in by_place.items()}
    ).assign(auroc_by_place=mean, read_at=("layer", np.array(PLACES)[at.values]))
    passing = np.nonzero(passes.any("place").values)[0]
    layers = acts["layer"].values
    first = int(layers[passing[0]]) if len(passing) else None
    return found.assign_attrs(
        detected_at=first, n_families=len(names), n_prompts=int(acts.sizes["prompt"])
    )
