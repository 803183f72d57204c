"""How well out-of-fold predictions do: accuracy, balanced accuracy, AUROC, macro-F1, intervals.

>>> import numpy as np
>>> from mechinterp.probing.measures import Answers, figures
>>> y, scores = np.array([0, 0, 1, 1]), np.array([[[-2.0], [1.0], [0.5], [3.0]]])
>>> alone, one_fold = np.arange(4), np.zeros(4, int)
>>> found = figures(Answers(y, scores), groups=alone, folds=one_fold)
>>> found["mean"].sel(measure=["balanced_accuracy", "auroc"]).values.tolist()
[[0.75], [0.75]]

The sample is the groups: prompts of one group are no independent evidence. Beside accuracy, which
a majority class flatters, balanced accuracy has 1 / n_classes as chance, whatever their sizes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from mechinterp.probing.probes import chosen
from mechinterp.stats.intervals import interval

MEASURES = ("accuracy", "balanced_accuracy", "auroc", "macro_f1")
_MEANS = MEASURES[:2]
"""Those that are a mean over prompts."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Labels, and a probe's scores for prompts that it was not fitted to, layer by layer."""

    y: Int[np.ndarray, " prompt"]
    scores: Float[np.ndarray, "layer prompt output"]

    @property
    def right(self) -> Float[np.ndarray, "layer prompt"]:
        """1 where the predicted class is the label, else 0."""
        return np.asarray(chosen(self.scores) == self.y).astype(float)

    @property
    def n_classes(self) -> int:
        """As many as the probe tells apart."""
        return max(2, int(self.scores.shape[-1]))


def figures(
    answers: Answers,
    *,
    groups: Int[np.ndarray, " prompt"],
    folds: Int[np.ndarray, " prompt"],
    level: float = 0.95,
    n_resamples: int = 1999,
    seed: int = 0,
) -> xr.Dataset:
    """`mean`, `low`, `high` of each measure, shares from 0 to 1: dims (measure, layer).

    Accuracies have the BCa bootstrap over groups of `stats.interval`, AUROC and macro-F1 the
    percentile bootstrap over the same. Where no group is wrong a bootstrap knows of no error: the
    lower end is then that of Clopper and Pearson, for as many groups, all right. AUROC compares
    prompts of one fold, whose scores are of one probe; of several classes, each against the rest.

    Raises:
        ValueError: if there are fewer than two groups, or `level` is not between 0 and 1.

    Source: Field and Welsh 2007 for the bootstrap of clusters; Clopper and Pearson 1934.
    """
    n_groups = int(groups.max()) + 1
    how: dict[str, Any] = {"level": level, "n_resamples": n_resamples, "seed": seed}
    scored = _by_group(answers, groups)
    means = interval(xr.DataArray(scored, dims=("measure", "layer", "group")), dim="group", **how)
    drawn = np.random.default_rng(seed).integers(0, n_groups, (n_resamples, n_groups))
    times = np.stack([np.bincount(row, minlength=n_groups) for row in drawn])
    weights = np.concatenate([np.ones((1, len(groups))), times[:, groups]])
    others = _others(answers, folds, weights)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.nanquantile(others[..., 1:], tails, axis=-1)
    least = tails[0] ** (1 / n_groups)
    named = {
        name: np.concatenate([means[name].values, value])
        for name, value in (("mean", others[..., 0]), ("low", low), ("high", high))
    }
    named["low"] = np.where(named["mean"] >= 1 - 1e-12, least, named["low"])
    return xr.Dataset(
        {name: (("measure", "layer"), value) for name, value in named.items()},
        {"measure": list(MEASURES)},
        {"level": level, "n_groups": n_groups},
    )


def balanced(answers: Answers) -> Float[np.ndarray, "layer prompt"]:
    """What each prompt gives to balanced accuracy, which is the mean of these over the prompts."""
    counts = np.bincount(answers.y, minlength=answers.n_classes)
    n_there = int((counts > 0).sum())
    weight = len(answers.y) / (n_there * counts[answers.y])
    given: Float[np.ndarray, "layer prompt"] = answers.right * weight
    return given


def by_group(
    values: Float[np.ndarray, "layer prompt"], groups: Int[np.ndarray, " prompt"]
) -> Float[np.ndarray, "layer group"]:
    """Sums of each group, so scaled that their mean is that over prompts."""
    n_groups = int(groups.max()) + 1
    member = np.zeros((len(groups), n_groups))
    member[np.arange(len(groups)), groups] = n_groups / len(groups)
    summed: Float[np.ndarray, "layer group"] = values @ member
    return summed


def _by_group(
    answers: Answers, groups: Int[np.ndarray, " prompt"]
) -> Float[np.ndarray, "measure layer group"]:
    return np.stack([by_group(each, groups) for each in (answers.right, balanced(answers))])


def _others(
    answers: Answers,
    folds: Int[np.ndarray, " prompt"],
    weights: Float[np.ndarray, "draw prompt"],
) -> Float[np.ndarray, "measure layer draw"]:
    """AUROC and macro-F1 with each prompt counted as often as its weight says."""
    n_layers, draws = len(answers.scores), len(weights)
    found = np.empty((2, n_layers, draws))
    for layer, scores in enumerate(answers.scores):
        found[0, layer] = _auroc(scores, answers.y, folds, weights)
        found[1, layer] = _macro_f1(chosen(scores), answers.y, answers.n_classes, weights)
    return found


def _auroc(
    scores: Float[np.ndarray, "prompt output"],
    y: Int[np.ndarray, " prompt"],
    folds: Int[np.ndarray, " prompt"],
    weights: Float[np.ndarray, "draw prompt"],
) -> Float[np.ndarray, " draw"]:
    """Share of pairs of one fold, of a class and another one, that stand in the right order."""
    columns = [(1, 0)] if scores.shape[1] == 1 else [(k, k) for k in np.unique(y)]
    each = []
    for number, column in columns:
        ordered, pairs = np.zeros((2, len(weights)))
        for fold in np.unique(folds):
            inside = folds == fold
            own, other = inside & (y == number), inside & (y != number)
            order = np.argsort(scores[other, column])
            below = np.pad(weights[:, other][:, order].cumsum(1), ((0, 0), (1, 0)))
            sorted_scores = scores[other, column][order]
            ends = [
                np.searchsorted(sorted_scores, scores[own, column], s) for s in ("left", "right")
            ]
            beaten = (below[:, ends[0]] + below[:, ends[1]]) / 2  # a tie is half a win
            ordered += (weights[:, own] * beaten).sum(1)
            pairs += weights[:, own].sum(1) * below[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            each.append(ordered / pairs)
    return np.asarray(np.mean(each, axis=0))


def _macro_f1(
    predicted: Int[np.ndarray, " prompt"],
    y: Int[np.ndarray, " prompt"],
    n_classes: int,
    weights: Float[np.ndarray, "draw prompt"],
) -> Float[np.ndarray, " draw"]:
    """The mean over classes of F1; a class neither there nor predicted counts as 0."""
    is_true, is_said = (np.eye(n_classes)[labels] for labels in (y, predicted))
    both = weights @ (is_true * is_said)
    f1: Float[np.ndarray, " draw"] = (
        2 * both / np.maximum(weights @ is_true + weights @ is_said, 1e-12)
    ).mean(1)
    return f1
