"""Two layers compared: the paired test, its correction, and when none may be called the best."""

import numpy as np
import pytest
import xarray as xr

from mechinterp.probing import balanced_by_group, best_layers, compare_layers, probe_layers
from mechinterp.stats.multiple_comparisons import correct_p_values
from mechinterp.stats.paired_differences import difference


def test_two_layers_are_compared_by_groups(plant):
    acts, given = plant()
    found = probe_layers(acts, given, n_shuffles=0)
    scores = balanced_by_group(found)
    balanced = found["mean"].sel(of="task", measure="balanced_accuracy")
    np.testing.assert_allclose(scores.mean("group"), balanced)
    one = compare_layers(found, 4, 1)
    assert float(one["mean"]) == pytest.approx(float(balanced[4] - balanced[1]))
    assert float(one["p"]) < 0.001
    assert int(one["n"]) == 60  # pairs, not prompts


def test_all_pairs_are_tested_as_one_by_one_and_corrected(plant):
    acts, given = plant(n_layers=4, at=2, strength=2.0)
    found = probe_layers(acts, given, n_shuffles=0)
    best = best_layers(found)
    scores = balanced_by_group(found)
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    p = [
        float(
            difference(scores.sel(layer=a, drop=True), scores.sel(layer=b, drop=True), dim="group")[
                "p"
            ]
        )
        for a, b in pairs
    ]
    fixed = correct_p_values(xr.DataArray(p, dims="pair")).values
    for layer in range(4):
        if layer != best.attrs["best"]:
            at = pairs.index(tuple(sorted((layer, best.attrs["best"]))))
            assert float(best["p_corrected"][layer]) == pytest.approx(fixed[at], abs=0.03)
    assert best.attrs["n_comparisons"] == 6


@pytest.mark.slow
def test_without_a_difference_no_layer_is_the_best(plant):
    """Every layer has the same signal and its own noise: the highest is so by chance."""
    found_one = 0
    for seed in range(10):
        acts, given = plant(n_layers=8, at=0, strength=1.5, seed=seed)
        best = best_layers(probe_layers(acts, given, n_shuffles=0))
        found_one += len(best.attrs["as_good"]) < 8
        assert float(best["p_corrected"].min()) >= float(best["p"].min())
        assert best.attrs["as_good"] != [best.attrs["best"]]
    assert found_one <= 2


def test_one_layer_alone(plant):
    acts, given = plant(n_layers=1, at=0)
    assert best_layers(probe_layers(acts, given, n_shuffles=0)).attrs["as_good"] == [0]


def test_what_is_refused(plant, refuses):
    acts, given = plant()
    found = probe_layers(acts, given)
    refuses(lambda: compare_layers(found, 1, 9), "layer 9 was not probed")
    refuses(lambda: balanced_by_group(found, "shuffled"), "has other labels")
