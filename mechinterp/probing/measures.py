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

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from mechinterp.core.arguments import checks_arguments
from mechinterp.probing.probes import predicted_class
from mechinterp.stats.shares import share_bounds

MEASURES = ("accuracy", "balanced_accuracy", "auroc", "macro_f1")


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
) -> xr.Dataset:
    """`mean`, `low`, `high` of each measure, from 0 to 1: dims (measure, layer).

    The intervals are those of shares over groups (`stats.share_interval`). Where classes are rare,
    they count as many groups as the rarest class allows. They are not empty even if no prompt was
    wrong. AUROC compares prompts within a fold, whose scores are from one probe; with several
    classes, each against the rest.

    Raises:
        ValueError: if there are fewer than two groups, or `level` is not between 0 and 1.

    Source: Korn and Graubard 1998; for AUROC over groups Obuchowski 1997, "Nonparametric Analysis
    of Clustered ROC Curve Data".
    """
    n_groups = int(groups.max()) + 1
    if n_groups < 2:
        raise ValueError("all prompts are of one group: there is no interval. Give two or more.")
    each = [
        _accuracy(answers),
        _balanced_accuracy(answers),
        _by_layer(answers, lambda scores: _auroc(scores, answers.y, folds)),
        _by_layer(answers, lambda scores: _macro_f1(scores, answers.y, answers.n_classes)),
    ]
    member = np.zeros((len(groups), n_groups))
    member[np.arange(len(groups)), groups] = 1
    n_alike = _n_of_rarest(answers.y, groups, n_groups)
    ends = [
        share_bounds(value, influence @ member, len(groups), n_groups=counted, level=level)
        for (value, influence), counted in zip(each, [n_groups, *[n_alike] * 3], strict=True)
    ]
    named = {
        "mean": [value for value, _ in each],
        "low": [low for low, _ in ends],
        "high": [high for _, high in ends],
    }
    return xr.Dataset(
        {name: (("measure", "layer"), np.stack(value)) for name, value in named.items()},
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


def _n_of_rarest(
    y: Int[np.ndarray, " prompt"], groups: Int[np.ndarray, " prompt"], n_groups: int
) -> int:
    """How many groups would be balanced, with as many of each class as the rarest has."""
    classes = np.unique(y)
    return min(n_groups, len(classes) * min(len(np.unique(groups[y == k])) for k in classes))


# Each measure comes with its influence: by how much it would be higher, to first order, if a prompt
# counted more. Influences sum to 0.

Measured = tuple[Float[np.ndarray, " layer"], Float[np.ndarray, "layer prompt"]]
MeasuredOnce = tuple[float, Float[np.ndarray, " prompt"]]


def _accuracy(answers: Answers) -> Measured:
    right = answers.right
    share = right.mean(1)
    return share, (right - share[:, None]) / right.shape[1]


def _balanced_accuracy(answers: Answers) -> Measured:
    right, y = answers.right, answers.y
    classes = np.unique(y)
    influence = np.zeros_like(right)
    shares = []
    for k in classes:
        own = right[:, y == k]
        shares.append(own.mean(1))
        influence[:, y == k] = (own - shares[-1][:, None]) / own.shape[1] / len(classes)
    return np.mean(shares, axis=0), influence


def _by_layer(
    answers: Answers, measure: Callable[[Float[np.ndarray, "prompt output"]], MeasuredOnce]
) -> Measured:
    found = [measure(scores) for scores in answers.scores]
    return np.array([value for value, _ in found]), np.stack([each for _, each in found])


def _auroc(
    scores: Float[np.ndarray, "prompt output"],
    y: Int[np.ndarray, " prompt"],
    folds: Int[np.ndarray, " prompt"],
) -> MeasuredOnce:
    """The share of pairs from one fold, one of a class and one not, that are in the right order."""
    columns = [(1, 0)] if scores.shape[1] == 1 else [(k, k) for k in np.unique(y)]
    values, influences = [], []
    for number, column in columns:
        won, pairs = np.zeros((2, len(y)))
        for fold in np.unique(folds):
            inside = folds == fold
            own, other = inside & (y == number), inside & (y != number)
            won[own] = _beaten(scores[own, column], scores[other, column])
            won[other] = _beaten(-scores[other, column], -scores[own, column])
            pairs[own], pairs[other] = other.sum(), own.sum()
        n_pairs = pairs.sum() / 2  # each pair was counted from both sides
        with np.errstate(invalid="ignore", divide="ignore"):
            values.append(won.sum() / 2 / n_pairs)
            influences.append((won - values[-1] * pairs) / n_pairs)
    return float(np.mean(values)), np.asarray(np.mean(influences, axis=0))


def _beaten(
    own: Float[np.ndarray, " own"], other: Float[np.ndarray, " other"]
) -> Float[np.ndarray, " own"]:
    """How many of the others each one is above; a tie is half a win."""
    ordered = np.sort(other)
    ends = [np.searchsorted(ordered, own, side) for side in ("left", "right")]
    return np.asarray((ends[0] + ends[1]) / 2)


def _macro_f1(
    scores: Float[np.ndarray, "prompt output"], y: Int[np.ndarray, " prompt"], n_classes: int
) -> MeasuredOnce:
    """The mean F1 over classes; a class that neither occurs nor is predicted counts as 0."""
    is_true, is_said = (np.eye(n_classes)[labels] for labels in (y, predicted_class(scores)))
    both, either = is_true * is_said, is_true + is_said
    n_either = np.maximum(either.sum(0), 1e-12)
    f1 = 2 * both.sum(0) / n_either
    return float(f1.mean()), np.asarray(((2 * both - f1 * either) / n_either).mean(1))
