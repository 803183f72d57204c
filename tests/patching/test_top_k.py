"""The cells that a screen finds, and the sweep of those alone."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mechinterp import (
    Site,
    log_prob,
    patch,
    patching,
    sweep,
)
from mechinterp.patching.attribution import (
    attribution_patching,
    top_k,
)

LAYERS = range(3)
METRIC = log_prob([3, 20, 7])
CLOSE = {"atol": 2e-5, "rtol": 1e-4}

CELLS = arrays(
    float,
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
    elements=st.one_of(st.just(np.nan), st.sampled_from([-2.0, 0.0, 1.0, 2.0]), st.floats(-9, 9)),
)


@given(values=CELLS, data=st.data())
def test_top_k_takes_the_largest_and_the_first_of_equals(values, data):
    screen = xr.DataArray(
        values,
        dims=("layer", "head", "prompt"),
        coords={"layer": [f"L{i}" for i in range(values.shape[0])]},
        attrs={"unit": "nats"},
    )
    size = np.abs(values.mean(-1)).ravel()
    known = [i for i, one in enumerate(size) if not np.isnan(one)]
    for k in (0, len(known) + 1):
        with pytest.raises(ValueError, match=f"k={k}, but there are {len(known)} cells"):
            top_k(screen, k)
    if not known:
        return
    k = data.draw(st.integers(1, len(known)))
    mask = top_k(screen, k)
    assert mask.dims == ("layer", "head")
    assert mask.dtype == bool
    assert list(mask["layer"].values) == list(screen["layer"].values)
    wanted = sorted(known, key=lambda i: (-size[i], i))[:k]
    assert sorted(np.flatnonzero(mask.values)) == sorted(wanted)
    np.testing.assert_array_equal(top_k(-screen, k), mask)


def test_a_sweep_of_the_cells_that_a_screen_found(absolute_model, ragged, source_of):
    acts, over = source_of(absolute_model), {"layer": LAYERS, "head": range(4)}

    def site(layer, head):
        return Site("z", layer, head)

    given = (absolute_model, ragged, acts, over, site, METRIC)
    chosen = top_k(attribution_patching(*given), 3)
    arm = lambda **p: patch(site(**p), acts)  # noqa: E731
    found = sweep(absolute_model, ragged, over, arm, METRIC, only=chosen)
    every = sweep(absolute_model, ragged, over, arm, METRIC)
    assert found.attrs["arms"] == 3
    np.testing.assert_allclose(found, every.where(chosen), **CLOSE)


def test_top_k_of_means():
    screen = xr.DataArray([[3.0, -3.0], [-1.0, -1.0], [0.0, 0.5]], dims=("head", "prompt"))
    assert top_k(screen, 1).values.tolist() == [False, True, False]
    assert top_k(screen.mean("prompt"), 2).values.tolist() == [False, True, True]


def test_the_largest_of_a_metrics_own_values_are_not_chosen(refuses):
    result = xr.DataArray(
        [[-3.0, -3.0], [-1.0, -1.0], [-3.1, -3.1]],
        dims=("head", "prompt"),
        coords={"clean_score": ("prompt", [0.0, 0.0]), "corrupt_score": ("prompt", [-3.0, -3.0])},
        attrs={"direction": "denoise"},
    )
    refuses(lambda: top_k(result, 1), "the metric's own values", "effect(result)")
    assert top_k(patching.effect(result), 1).values.tolist() == [False, True, False]
