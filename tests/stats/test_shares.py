"""Shares over prompts and groups: beside scipy's exact interval, and how often they hold."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binomtest

from mechinterp.stats.shares import share_interval


def counts(values, dim="prompt"):
    return xr.DataArray(np.asarray(values), dims=("cell", dim), attrs={"metric": "right"})


@pytest.mark.parametrize("n_right", [0, 12])
def test_share_without_any_variation_is_clopper_and_pearsons(n_right):
    right = counts([[1] * n_right + [0] * (12 - n_right)])
    found = share_interval(right, level=0.9)
    expected = binomtest(n_right, 12).proportion_ci(0.9)
    np.testing.assert_allclose([found["low"][0], found["high"][0]], expected)
    assert (found.attrs["unit"], found.attrs["metric"], int(found["n"])) == ("share", "right", 12)


def test_share_of_independent_prompts_is_nearly_clopper_and_pearsons():
    found = share_interval(counts([[1] * 15 + [0] * 25]))
    expected = binomtest(15, 40).proportion_ci(0.95)
    np.testing.assert_allclose([found["low"][0], found["high"][0]], expected, atol=0.005)


def test_groups_that_agree_count_as_one_prompt_each():
    hits = counts([[4, 4, 4, 0, 4, 0, 4, 4]], "group")
    tries = xr.DataArray([4] * 8, dims="group")
    grouped = share_interval(hits, tries, dim="group")
    alone = share_interval(counts([[1, 1, 1, 0, 1, 0, 1, 1]]))
    assert grouped["share"].item() == 0.75
    assert grouped["low"].item() <= alone["low"].item() <= grouped["low"].item() + 0.15
    assert alone["high"].item() <= grouped["high"].item() <= 1


@pytest.mark.parametrize("n_right", [0, 4])
def test_where_nothing_varies_there_are_as_many_as_groups(n_right):
    tries = xr.DataArray([4] * 8, dims="group")
    found = share_interval(counts([[n_right] * 8], "group"), tries, dim="group")
    expected = binomtest(2 * n_right, 8).proportion_ci(0.95)
    np.testing.assert_allclose([found["low"][0], found["high"][0]], expected)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("n_groups", [6, 16])
def test_a12_shares_hold_the_truth_as_often_as_they_say(share, n_groups):
    rng = np.random.default_rng(n_groups)
    tries = rng.choice([1, 2, 3, 6], (4000, n_groups))
    each = rng.beta(share * 1.5, (1 - share) * 1.5, (4000, n_groups))
    hits = rng.binomial(tries, each)
    found = share_interval(counts(hits, "group"), counts(tries, "group"), dim="group")
    assert float(((found["low"] <= share) & (share <= found["high"])).mean()) >= 0.94


def test_wrong_input_is_refused_with_what_to_do(refuses):
    refuses(lambda: share_interval(counts([[1, 2, 0]])), "0 or 1", "tries")
    refuses(lambda: share_interval(counts([[1, 1]]), level=95.0), "level is 95")
    refuses(lambda: share_interval(counts([[1]])), "at least two")
