"""Bounds in closed form: many cells at once are each cell alone, at any size of the values."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.stats.bounds import mean_bounds, ratio_bounds


def test_cells_do_not_see_one_another():
    rng = np.random.default_rng(0)
    over, under = rng.normal(2, 1, (2, 4, 15))
    for function, samples in ((mean_bounds, (over,)), (ratio_bounds, (over, under))):
        low, high = function(*samples, 0.9)
        for cell in range(4):
            alone = function(*(sample[[cell]] for sample in samples), 0.9)
            np.testing.assert_allclose([low[cell], high[cell]], np.ravel(alone), rtol=1e-12)


@given(st.integers(0, 1000), st.sampled_from([1e-150, 1e-9, 1e9, 1e150]))
def test_bounds_follow_the_size_of_the_values(seed, size):
    rng = np.random.default_rng(seed)
    over, under = rng.exponential(size=(2, 3, 7)) + 0.2
    np.testing.assert_allclose(
        mean_bounds(over * size, 0.95), size * np.array(mean_bounds(over, 0.95)), rtol=1e-9
    )
    np.testing.assert_allclose(
        ratio_bounds(over * size, under, 0.95),
        size * np.array(ratio_bounds(over, under, 0.95)),
        rtol=1e-6,
    )


def test_bounds_of_the_opposite_are_opposite():
    values = np.random.default_rng(1).lognormal(size=(5, 9))
    low, high = mean_bounds(values, 0.95)
    np.testing.assert_allclose(mean_bounds(-values, 0.95), (-high, -low), rtol=1e-12)


def test_ratio_of_what_is_in_proportion_is_known():
    under = np.random.default_rng(2).normal(3, 1, (4, 8))
    low, high = ratio_bounds(under * np.array([[0.1], [0.7], [0], [1 / 3]]), under, 0.95)
    np.testing.assert_allclose(low, [0.1, 0.7, 0, 1 / 3], rtol=1e-14)
    np.testing.assert_allclose(high, low, rtol=1e-14)
