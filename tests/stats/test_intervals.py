"""Intervals over prompts: against scipy cell by cell, numbers worked by hand, and laws."""

import itertools
import re

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats as scipy_stats
from scipy.optimize import brentq

from mechinterp.stats.intervals import WHAT_INTERVALS_HOLD, interval, ratio_interval
from mechinterp.stats.paired_differences import difference

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


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_is_the_outer_one_of_students_and_halls_for_every_cell(effect, level):
    found = interval(effect, level=level)
    assert set(found.data_vars) == {"mean", "low", "high", "n"}
    assert found["mean"].dims == ("layer", "head")
    for layer, head in itertools.product(range(3), range(2)):
        cell = found.isel(layer=layer, head=head)
        expected = outer_bounds(effect.values[layer, head], level)
        np.testing.assert_allclose([cell["low"], cell["high"]], expected, rtol=1e-9)


def outer_bounds(values, level):
    """Student's interval by scipy, and Hall's by a search for the roots of his cubic."""
    n, mean, skewness = len(values), values.mean(), scipy_stats.skew(values)
    deviation = values.std(ddof=1)
    low, high = scipy_stats.t.interval(level, n - 1, mean, deviation / n**0.5)
    reach = scipy_stats.t.ppf((1 + level) / 2, n - 1) / n**0.5

    def cubic(truth):
        far = (mean - truth) / deviation
        bent = far + skewness * far**2 / 3 + skewness**2 * far**3 / 27
        return bent + skewness / (6 * n)

    far = 50 * deviation
    ends = [
        brentq(lambda truth, side=side: cubic(truth) - side * reach, mean - far, mean + far)
        for side in (1, -1)
    ]
    return min(low, ends[0]), max(high, ends[1])


def test_ratio_is_the_outer_one_of_fiellers_and_that_of_what_each_prompt_adds(effect):
    under = labelled(2 + drawn("standard_exponential", (3, 2, 23), 1), "layer", "head", "prompt")
    found = ratio_interval(effect, under)
    ratio = effect.mean("prompt") / under.mean("prompt")
    np.testing.assert_allclose(found["ratio"], ratio)
    adds = interval((effect - ratio * under) / under.mean("prompt"))
    for layer, head in itertools.product(range(3), range(2)):
        x, y = effect.values[layer, head], under.values[layer, head]
        at = float(ratio[layer, head])

        def t(ratio, x=x, y=y):
            return scipy_stats.ttest_1samp(x - ratio * y, 0).statistic

        reach = float(scipy_stats.t.ppf(0.975, 22))
        ends = [
            brentq(lambda r, t=t, end=end: t(r) - end, at - 5, at + 5) for end in (reach, -reach)
        ]
        cell, linear = (each.isel(layer=layer, head=head) for each in (found, adds))
        assert float(cell["low"]) == pytest.approx(min(ends[0], at + float(linear["low"])))
        assert float(cell["high"]) == pytest.approx(max(ends[1], at + float(linear["high"])))


def test_ratio_over_what_does_not_vary_is_the_interval_of_a_mean(effect):
    found, mean = ratio_interval(effect, effect * 0 + 4), interval(effect)
    for name in ("low", "high"):
        np.testing.assert_allclose(found[name], mean[name] / 4, rtol=1e-9)


def lognormal(rng, shape):
    return rng.lognormal(size=shape) - np.exp(0.5)


def one_in_five(rng, shape):
    return rng.normal(size=shape) + 4 * (rng.random(shape) < 0.2) - 0.8


DRAWN = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t3": lambda rng, shape: rng.standard_t(3, shape),
    "lognormal": lognormal,
    "one in five": one_in_five,
}


@pytest.mark.parametrize("n", [6, 8, 16])
@pytest.mark.parametrize("kind", DRAWN)
def test_a12_intervals_hold_the_truth_as_often_as_they_say(kind, n):
    """All of it: scripts/bench/intervals.py."""
    rng = np.random.default_rng(n)
    values = DRAWN[kind](rng, (4000, n))
    under = labelled(3 + rng.normal(size=(4000, n)), "head", "prompt")
    found = interval(labelled(values, "head", "prompt"))
    ratio = ratio_interval(0.7 * under + labelled(values, "head", "prompt"), under)
    held = (found["low"] <= 0) & (found["high"] >= 0)
    ratio_held = (ratio["low"] <= 0.7) & (ratio["high"] >= 0.7)
    least = 0.93 if kind in ("normal", "t3") else 0.88
    assert float(held.mean()) >= least
    assert float(ratio_held.mean()) >= least


def test_bounds_of_skewed_data_reach_further_to_the_long_tail(effect):
    found = interval(effect)
    assert ((found["high"] - found["mean"]) > (found["mean"] - found["low"])).all()


def test_cell_that_was_not_computed_stays_nan_and_changes_no_other(effect):
    hole = effect.copy()
    hole[1, 1, 4] = np.nan
    for function in (interval, lambda x: difference(x, 0 * x), both_ways):
        whole, holed = function(effect), function(hole)
        for name in set(whole.data_vars) - {"n"}:
            assert np.isnan(holed[name][1, 1]), name
            kept = whole[name].where(~np.isnan(holed[name]))
            np.testing.assert_allclose(holed[name], kept, rtol=1e-12)
            assert int(np.isnan(holed[name]).sum()) == 1


def both_ways(x):
    return ratio_interval(x, x.isel(layer=0, head=0))


def test_equal_values_have_an_interval_without_width():
    found = interval(labelled(np.full((2, 7), 0.1), "head", "prompt"))
    np.testing.assert_array_equal(found["low"], found["mean"])
    np.testing.assert_array_equal(found["high"], found["mean"])


def test_ratio_over_a_mean_that_may_be_zero_is_unbounded():
    over = labelled([1.0, 2.0, 3.0, 4.0], "prompt")
    found = ratio_interval(over, labelled([-1.0, 1.0, 0.5, -0.4], "prompt"))
    assert (float(found["low"]), float(found["high"])) == (-np.inf, np.inf)


def test_coordinates_beside_the_cells_stay_and_those_of_one_prompt_go(effect):
    rich = effect.assign_coords(
        kind=("head", ["mover", "inhibitor"]),
        clean_score=("prompt", range(23)),
        token=(("prompt", "head"), np.full((23, 2), "a")),
        metric="logit_diff",
    )
    other = rich.assign_coords(metric="prob")
    assert set(interval(rich).coords) == {"layer", "head", "kind", "metric"}
    assert set(difference(rich, other).coords) == {"layer", "head", "kind"}
    assert interval(rich).attrs["unit"] == "logits"


def test_argument_is_not_changed(effect):
    before = effect.copy(deep=True)
    difference(effect, effect)
    xr.testing.assert_identical(effect, before)


def test_wrong_input_is_refused_with_what_to_do(effect, refuses):
    refuses(lambda: interval(effect.isel(prompt=[0])), "'prompt' has 1 value(s)", "at least two")
    refuses(lambda: interval(effect.mean("prompt")), "no 'prompt'")
    refuses(lambda: interval(effect, level=95.0), "level is 95.0")
    refuses(lambda: difference(effect, effect.isel(head=0)), "dims differ", "Select or average")
    refuses(lambda: difference(effect, effect.isel(head=[1, 0])), "'head'", "[0, 10] and [10, 0]")
    refuses(lambda: difference(effect, effect.isel(prompt=slice(9))), "'prompt' differ")
    refuses(lambda: difference(effect, effect.drop_vars("layer")), "'layer'", "3 without any")
    refuses(lambda: difference(effect, effect.assign_attrs(unit="nats")), "logits and nats")
    refuses(lambda: ratio_interval(effect, effect.mean("head")), "dims differ")


@given(PROMPTS, st.integers(-50, 50), st.sampled_from([0.25, 2.0, 64.0]))
def test_interval_shifts_and_scales_with_its_data(values, shift, scale):
    plain = interval(labelled(values, "prompt"))
    moved = interval(labelled(scale * values + shift, "prompt"))
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(moved[name], scale * plain[name] + shift, atol=1e-9)
    assert plain["low"] <= plain["mean"] <= plain["high"]


def test_a_resample_whose_denominator_is_nothing_does_not_spoil_the_interval():
    under = xr.DataArray([16.0, 16.0, 0.0] * 3, dims="prompt")
    over = xr.DataArray([[8.0, 8.0, 0.0] * 3, [4.0, 8.0, 0.0] * 3], dims=("layer", "prompt"))
    found = ratio_interval(over, under)
    assert np.isfinite(found["low"]).all()
    assert np.isfinite(found["high"]).all()
    assert float(found["low"][0]) == float(found["high"][0]) == 0.5
    assert float(found["low"][1]) < 0.375 < float(found["high"][1])


def test_what_pages_say_of_intervals_is_so():
    """All of it: scripts/bench/intervals.py."""
    rng = np.random.default_rng(0)
    said = [int(word) / 100 for word in re.findall(r"about (\d+)", WHAT_INTERVALS_HOLD)]
    for n, (kind, share) in itertools.product(
        (6, 8), zip(("normal", "lognormal"), said, strict=True)
    ):
        found = interval(labelled(DRAWN[kind](rng, (5000, n)), "head", "prompt"))
        held = (found["low"] <= 0) & (found["high"] >= 0)
        assert float(held.mean()) == pytest.approx(share, abs=0.02)
