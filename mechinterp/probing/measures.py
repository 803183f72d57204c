"""Measures of out-of-fold predictions: accuracy, balanced accuracy, AUROC, macro-F1, intervals.

>>> import numpy as np
>>> from mechinterp.probing.measures import Answers, figures
>>> y, scores = np.array([0, 0, 1, 1]), np.array([[[-2.0], [1.0], [0.5], [3.0]]])
>>> alone, one_fold = np.arange(4), np.zeros(4, int)
>>> found = figures(Answers(y, scores), groups=alone, folds=one_fold)
>>> found["mean"].sel(measure=["balanced_accuracy", "auroc"]).values.tolist()
[[0.75], [0.75]]

The sample is the groups, since prompts of one group are not independent. Accuracy is high where one
class is the majority; balanced accuracy is 1 / n_classes at chance, whatever the classes' sizes.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from mechinterp.core.arguments import checks_arguments
from mechinterp.probing.probes import predicted_class
from mechinterp.stats.intervals import interval

MEASURES = ("accuracy", "balanced_accuracy", "auroc", "macro_f1")
_MEANS = MEASURES[:2]
"""The measures that are means over prompts."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Labels, and by layer the scores of a probe for prompts that it was not fitted to."""

    y: Int[np.ndarray, " prompt"]
    scores: Float[np.ndarray, "layer prompt output"]

    @property
    def right(self) -> Float[np.ndarray, "layer prompt"]:
        """1 where the predicted class is the label, else 0."""
        return np.asarray(predicted_class(self.scores) == self.y).astype(float)

    @property
    def n_classes(self) -> int:
        """How many classes the probe separates."""
        return max(2, int(self.scores.shape[-1]))


@checks_arguments
def figures(
    answers: Answers,
    *,
    groups: Int[np.ndarray, " prompt"],
    folds: Int[np.ndarray, " prompt"],
    level: float = 0.95,
    n_resamples: int = 1999,
    seed: int = 0,
) -> xr.Dataset:
    """`mean`, `low`, `high` of each measure, from 0 to 1: dims (measure, layer).

    Accuracies: BCa bootstrap over groups (`stats.interval`); AUROC and macro-F1: percentile
    bootstrap over groups. If no group is wrong, a bootstrap sees no errors: the lower end is then
    Clopper and Pearson's for that many groups, all right. AUROC compares prompts within a fold,
    whose scores are from one probe; with several classes, each against the rest.

    Raises:
        ValueError: if there are fewer than two groups, or `level` is not between 0 and 1.

    Source: Field and Welsh 2007 for the bootstrap of clusters; Clopper and Pearson 1934.
    """
    n_groups = int(groups.max()) + 1
    scored = _by_group(answers, groups)
    means = interval(
        xr.DataArray(scored, dims=("measure", "layer", "group")),
        dim="group",
        level=level,
        n_resamples=n_resamples,
        seed=seed,
    )
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
    """Each prompt's contribution to balanced accuracy, which is their mean over prompts."""
    counts = np.bincount(answers.y, minlength=answers.n_classes)
    n_there = int((counts > 0).sum())
    weight = len(answers.y) / (n_there * counts[answers.y])
    given: Float[np.ndarray, "layer prompt"] = answers.right * weight
    return given


def by_group(
    values: Float[np.ndarray, "layer prompt"], groups: Int[np.ndarray, " prompt"]
) -> Float[np.ndarray, "layer group"]:
    """The sum over each group, so scaled that the mean over groups is the mean over prompts."""
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
    """AUROC and macro-F1, with each prompt counted `weights` times."""
    n_layers, draws = len(answers.scores), len(weights)
    found = np.empty((2, n_layers, draws))
    for layer, scores in enumerate(answers.scores):
        found[0, layer] = _auroc(scores, answers.y, folds, weights)
        found[1, layer] = _macro_f1(predicted_class(scores), answers.y, answers.n_classes, weights)
    return found


def _auroc(
    scores: Float[np.ndarray, "prompt output"],
    y: Int[np.ndarray, " prompt"],
    folds: Int[np.ndarray, " prompt"],
    weights: Float[np.ndarray, "draw prompt"],
) -> Float[np.ndarray, " draw"]:
    """The share of pairs from one fold, one of a class and one not, that are in the right order."""
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
    """The mean F1 over classes; a class that neither occurs nor is predicted counts as 0."""
    is_true, is_said = (np.eye(n_classes)[labels] for labels in (y, predicted))
    both = weights @ (is_true * is_said)
    f1: Float[np.ndarray, " draw"] = (
        2 * both / np.maximum(weights @ is_true + weights @ is_said, 1e-12)
    ).mean(1)
    return f1
