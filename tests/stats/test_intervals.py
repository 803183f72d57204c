"""Intervals over prompts: against scipy cell by cell, numbers worked by hand, and laws."""

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats as scipy_stats

from mechinterp.stats.intervals import interval, ratio_interval
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


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_is_scipys_for_every_cell(effect, level):
    found = interval(effect, level=level, n_resamples=999, seed=7)
    assert set(found.data_vars) == {"mean", "low", "high", "n"}
    assert found["mean"].dims == ("layer", "head")
    for layer, head in itertools.product(range(3), range(2)):
        expected = scipy_stats.bootstrap(
            (effect.values[layer, head],),
            np.mean,
            confidence_level=level,
            n_resamples=999,
            rng=np.random.default_rng(7),
        ).confidence_interval
        cell = found.isel(layer=layer, head=head)
        np.testing.assert_allclose([cell["low"], cell["high"]], expected, rtol=1e-9)


def test_ratio_interval_is_scipys_for_every_cell(effect):
    under = labelled(2 + drawn("standard_exponential", (3, 2, 23), 1), "layer", "head", "prompt")
    found = ratio_interval(effect, under, n_resamples=999, seed=3)
    np.testing.assert_allclose(found["ratio"], effect.mean("prompt") / under.mean("prompt"))
    for layer, head in itertools.product(range(3), range(2)):
        expected = scipy_stats.bootstrap(
            (effect.values[layer, head], under.values[layer, head]),
            lambda x, y, axis: x.mean(axis) / y.mean(axis),
            paired=True,
            n_resamples=999,
            rng=np.random.default_rng(3),
        ).confidence_interval
        cell = found.isel(layer=layer, head=head)
        np.testing.assert_allclose([cell["low"], cell["high"]], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "mean", "least", "most"),
    [("standard_normal", 0.0, 0.92, 0.96), ("standard_exponential", 1.0, 0.92, 0.96)],
)
def test_interval_covers_the_truth_as_often_as_it_says(kind, mean, least, most):
    samples = labelled(drawn(kind, (2000, 50)), "head", "prompt")
    found = interval(samples, n_resamples=1999)
    covered = (found["low"] <= mean) & (mean <= found["high"])
    assert least < float(covered.mean()) < most


def test_bounds_of_skewed_data_reach_further_to_the_long_tail(effect):
    found = interval(effect)
    assert ((found["high"] - found["mean"]) > (found["mean"] - found["low"])).all()


def test_cell_that_was_not_computed_stays_nan_and_changes_no_other(effect):
    hole = effect.copy()
    hole[1, 1, 4] = np.nan
    for function in (interval, lambda x, **o: difference(x, 0 * x, **o), both_ways):
        whole, holed = function(effect, **FEW), function(hole, **FEW)
        for name in set(whole.data_vars) - {"n"}:
            assert np.isnan(holed[name][1, 1]), name
            kept = whole[name].where(~np.isnan(holed[name]))
            np.testing.assert_allclose(holed[name], kept, rtol=1e-12)
            assert int(np.isnan(holed[name]).sum()) == 1


def both_ways(x, **options):
    return ratio_interval(x, x.isel(layer=0, head=0), **options)


def test_equal_values_have_an_interval_without_width():
    found = interval(labelled(np.full((2, 7), 0.1), "head", "prompt"), **FEW)
    np.testing.assert_array_equal(found["low"], found["mean"])
    np.testing.assert_array_equal(found["high"], found["mean"])


def test_ratio_over_a_mean_that_may_be_zero_is_unbounded():
    over = labelled([1.0, 2.0, 3.0, 4.0], "prompt")
    found = ratio_interval(over, labelled([-1.0, 1.0, 0.5, -0.4], "prompt"), **FEW)
    assert (float(found["low"]), float(found["high"])) == (-np.inf, np.inf)


def test_coordinates_beside_the_cells_stay_and_those_of_one_prompt_go(effect):
    rich = effect.assign_coords(
        kind=("head", ["mover", "inhibitor"]),
        clean_score=("prompt", range(23)),
        token=(("prompt", "head"), np.full((23, 2), "a")),
        metric="logit_diff",
    )
    other = rich.assign_coords(metric="prob")
    assert set(interval(rich, **FEW).coords) == {"layer", "head", "kind", "metric"}
    assert set(difference(rich, other, **FEW).coords) == {"layer", "head", "kind"}
    assert interval(rich, **FEW).attrs["unit"] == "logits"


def test_seed_makes_results_identical_and_matters(effect):
    for function in (interval, lambda x, **o: difference(x, 0 * x, **o), both_ways):
        xr.testing.assert_identical(
            function(effect, seed=4, **FEW), function(effect, seed=4, **FEW)
        )
        assert not function(effect, seed=4, **FEW)["low"].equals(function(effect, **FEW)["low"])


def test_argument_is_not_changed(effect):
    before = effect.copy(deep=True)
    difference(effect, effect, **FEW)
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
    plain = interval(labelled(values, "prompt"), **FEW)
    moved = interval(labelled(scale * values + shift, "prompt"), **FEW)
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(moved[name], scale * plain[name] + shift, atol=1e-9)
    assert values.min() <= plain["low"] <= plain["high"] <= values.max()


def test_a_resample_whose_denominator_is_nothing_does_not_spoil_the_interval():
    under = xr.DataArray([16.0, 16.0, 0.0] * 3, dims="prompt")
    over = xr.DataArray([[8.0, 8.0, 0.0] * 3, [4.0, 8.0, 0.0] * 3], dims=("layer", "prompt"))
    found = ratio_interval(over, under)
    assert np.isfinite(found["low"]).all()
    assert np.isfinite(found["high"]).all()
    assert float(found["low"][0]) == float(found["high"][0]) == 0.5
    assert float(found["low"][1]) < 0.375 < float(found["high"][1])
