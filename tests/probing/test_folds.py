"""Folds never split a group, hold every class, and are refused where they cannot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.probing import grouped_folds


@given(st.integers(0, 1000), st.integers(2, 4), st.integers(2, 3), st.integers(1, 5))
def test_groups_stay_whole_and_classes_are_everywhere(seed, n_folds, n_classes, largest):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, largest + 1, 10 * n_folds * n_classes)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    y = np.repeat(np.arange(len(sizes)) % n_classes, sizes)  # paraphrases: one label a group
    folds = grouped_folds(y, groups, n_folds=n_folds, seed=seed)
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    for fold in range(n_folds):
        assert set(y[folds == fold]) == set(y[folds != fold]) == set(range(n_classes))


def test_pairs_stay_together_and_the_seed_decides():
    y, groups = np.array([0, 1] * 20), np.repeat(np.arange(20), 2)
    folds = grouped_folds(y, groups, seed=3)
    assert (folds[::2] == folds[1::2]).all()
    assert np.bincount(folds).tolist() == [8] * 5
    assert (folds == grouped_folds(y, groups, seed=3)).all()
    assert (folds != grouped_folds(y, groups, seed=4)).any()


@pytest.mark.parametrize(
    ("y", "groups", "n_folds", "said"),
    [
        ([0, 1] * 4, [0, 0, 1, 1, 2, 2, 3, 3], 1, "at least two"),
        ([0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 3, 4], 3, "class 'yes' has 2 groups, fewer than 3"),
    ],
)
def test_what_is_refused(y, groups, n_folds, said, refuses):
    def call():
        grouped_folds(np.array(y), np.array(groups), n_folds=n_folds, classes=["no", "yes"])

    refuses(call, said, kind=ValueError)
