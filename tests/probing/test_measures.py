"""Measures beside scikit-learn's, and intervals that treat groups as the sample."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from mechinterp.probing import Answers, figures
from mechinterp.probing.probes import predicted_class


def answers(n_classes, n=90, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    y = rng.choice(n_classes, n, p=[0.6, 0.4] if n_classes == 2 else [0.5, 0.3, 0.2])
    scores = rng.normal(size=(4, n, 1 if n_classes == 2 else n_classes))
    scores[..., -1] += (y == n_classes - 1) - 0.5
    return Answers(y, scores.round(1) if ties else scores)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_scikit_learn_says_the_same(n_classes, ties):
    given = answers(n_classes, ties=ties)
    one, alone = np.zeros(90, int), np.arange(90)
    found = figures(given, groups=alone, folds=one)["mean"]
    for layer, scores in enumerate(given.scores):
        y, said = given.y, predicted_class(scores)
        ranked = scores[:, 0] if n_classes == 2 else None
        auroc = (
            roc_auc_score(y, ranked)
            if n_classes == 2
            else np.mean([roc_auc_score(y == k, scores[:, k]) for k in range(3)])
        )
        wanted = {
            "accuracy": accuracy_score(y, said),
            "balanced_accuracy": balanced_accuracy_score(y, said),
            "auroc": auroc,
            "macro_f1": f1_score(y, said, average="macro"),
        }
        for measure, value in wanted.items():
            assert float(found.sel(measure=measure)[layer]) == pytest.approx(value, abs=1e-12)


def test_auroc_compares_prompts_of_one_fold_alone():
    given, folds = answers(2), np.arange(90) % 3
    moved = Answers(given.y, given.scores + 100.0 * folds[:, None])
    alone = np.arange(90)
    found = [figures(a, groups=alone, folds=folds) for a in (given, moved)]
    auroc = [each["mean"].sel(measure="auroc").values for each in found]
    np.testing.assert_allclose(auroc[0], auroc[1])
    pairs = [[np.sum(given.y[folds == f] == k) for k in (0, 1)] for f in range(3)]
    inside = [roc_auc_score(given.y[folds == f], given.scores[0, folds == f, 0]) for f in range(3)]
    weights = [a * b for a, b in pairs]
    assert auroc[0][0] == pytest.approx(np.average(inside, weights=weights))


def test_copies_in_a_group_do_not_narrow_the_interval():
    given, folds = answers(2), np.zeros(90, int)
    alone = figures(given, groups=np.arange(90), folds=folds)
    copied = Answers(np.tile(given.y, 4), np.tile(given.scores, (1, 4, 1)))
    four = np.zeros(360, int)
    grouped = figures(copied, groups=np.tile(np.arange(90), 4), folds=four)
    careless = figures(copied, groups=np.arange(360), folds=four)
    for measure in ("accuracy", "balanced_accuracy", "auroc", "macro_f1"):
        width = [float((f["high"] - f["low"]).sel(measure=measure)[0]) for f in (alone, grouped)]
        assert width[0] == pytest.approx(width[1], rel=0.02)
        assert float((careless["high"] - careless["low"]).sel(measure=measure)[0]) < 0.6 * width[0]


def test_no_error_seen_is_no_proof_that_there_is_none():
    y = np.arange(40) % 2
    perfect = Answers(y, np.where(y, 3.0, -3.0)[None, :, None])
    found = figures(perfect, groups=np.arange(40), folds=np.zeros(40, int))
    assert (found["mean"] == 1).all()
    assert np.allclose(found["low"], 0.025 ** (1 / 40))  # 40 of 40: Clopper and Pearson
    assert (found["high"] == 1).all()
