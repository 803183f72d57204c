"""Random sets of units to remove."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.attribution.methods.subsets import (
    random_sets,
)


@given(n=st.integers(1, 12), keep=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_random_sets_are_sorted_places_neither_none_nor_all(n, keep, seed):
    sets = random_sets(n, 20, keep, seed)
    assert len(sets) == 20
    assert sets == random_sets(n, 20, keep, seed)
    for one in sets:
        assert isinstance(one, tuple)
        assert list(one) == sorted(set(one))
        assert set(one) <= set(range(n))
        assert 0 < len(one) < n or n == 1


def test_random_sets_keep_each_unit_as_often_as_asked():
    sets = random_sets(20, 4000, 0.7, seed=1)
    removed = np.array([[j in one for j in range(20)] for one in sets], dtype=float)
    np.testing.assert_allclose(removed.mean(0), 0.3, atol=0.04)
    apart = np.corrcoef(removed.T)[~np.eye(20, dtype=bool)]
    assert np.abs(apart).max() < 0.1


@pytest.mark.parametrize("asked", [(0, 3), (3, 0)])
def test_random_sets_want_some_of_both(refuses, asked):
    refuses(lambda: random_sets(*asked), "at least 1 of both")
