"""Paired differences: p by brute force over sign flips, beside a t test, and laws."""

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats as scipy_stats

from mechinterp.stats.paired_differences import difference

FEW = {"n_resamples": 499}
PROMPTS = arrays.arrays(np.int64, st.integers(2, 8), elements=st.integers(-40, 40))


def labelled(values, *dims, **attrs):
    values = np.asarray(values, dtype=float)
    coords = {name: [10 * i for i in range(n)] for name, n in zip(dims, values.shape, strict=True)}
    return xr.DataArray(values, dims=dims, coords=coords, attrs=attrs)


def drawn(kind, shape, seed=0):
    return getattr(np.random.default_rng(seed), kind)(size=shape)


@pytest.fixture
def effect():
    """3 layers, 2 heads, 23 prompts; skewed."""
    values = drawn("standard_exponential", (3, 2, 23))
    return labelled(values, "layer", "head", "prompt", unit="logits")


def test_p_is_the_share_of_all_sign_flips_at_least_as_far_from_zero():
    paired = np.array([[3.0, -1.0, 2.0, 5.0, 0.5, 0.5], [1.0, -1.0, 2.0, -2.0, 0.0, 0.0]])
    a = labelled(paired + 4, "head", "prompt")
    b = labelled(np.full_like(paired, 4), "head", "prompt")
    flips = list(itertools.product((-1, 1), repeat=6))
    for row, p in zip(paired, difference(a, b)["p"].values, strict=True):
        far = sum(abs(np.dot(row, signs)) >= abs(row.sum()) - 1e-9 for signs in flips)
        assert p == far / 64
    assert difference(a, b).attrs["p_from"] == "all 64 sign flips"


def test_p_of_many_prompts_is_near_that_of_a_t_test():
    values = drawn("standard_normal", (5, 80)) + 0.2
    found = difference(labelled(values, "head", "prompt"), labelled(0 * values, "head", "prompt"))
    expected = scipy_stats.ttest_1samp(values, 0, axis=1).pvalue
    np.testing.assert_allclose(found["p"], expected, atol=0.015)
    assert found.attrs["p_from"] == "9,999 random sign flips"
    assert int(found["n"]) == 80


def test_difference_is_labelled_and_signed(effect):
    found = difference(effect + 1, effect.transpose("prompt", "head", "layer"), **FEW)
    np.testing.assert_allclose(found["mean"], 1)
    assert found["mean"].dims == ("layer", "head")
    assert list(found["layer"].values) == [0, 10, 20]
    assert "prompt" not in found.coords


@given(PROMPTS)
def test_nothing_differs_from_itself(values):
    a = labelled(values, "prompt")
    found = difference(a, a, **FEW)
    assert [float(found[name]) for name in ("mean", "low", "high", "p")] == [0, 0, 0, 1]


@given(PROMPTS, st.randoms(use_true_random=False))
def test_order_of_prompts_does_not_matter_for_an_exact_p(values, random):
    order = random.sample(range(len(values)), len(values))
    one = difference(labelled(values / 10, "prompt"), labelled(0 * values, "prompt"), **FEW)
    two = difference(labelled(values[order] / 10, "prompt"), labelled(0 * values, "prompt"), **FEW)
    assert one.attrs["p_from"].startswith("all")
    assert float(one["p"]) == float(two["p"])


def test_seed_makes_p_identical_and_matters(effect):
    first, again = (difference(effect, 0 * effect, seed=4, **FEW) for _ in range(2))
    xr.testing.assert_identical(first, again)
    near = difference(effect, effect.roll(prompt=1))
    assert not near["p"].equals(difference(effect, effect.roll(prompt=1), seed=4)["p"])
