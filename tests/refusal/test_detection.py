"""Placements against the AUROC, and probes of few families."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mechinterp.refusal.detection import placements


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=2, max_size=12))
def test_the_mean_placement_of_either_class_is_the_auroc(rows: list[tuple[int, int]]) -> None:
    y, scores = np.array([row[0] for row in rows]), np.array([float(row[1]) for row in rows])
    if len(set(y.tolist())) < 2:
        return
    found = placements(scores, y)
    for number in (0, 1):
        assert found[y == number].mean() == pytest.approx(roc_auc_score(y, scores))
