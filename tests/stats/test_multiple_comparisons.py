"""Corrected p values: worked by hand, and laws."""

import numpy as np
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mechinterp.stats.multiple_comparisons import correct_p_values


def labelled(values, *dims, **attrs):
    values = np.asarray(values, dtype=float)
    coords = {name: [10 * i for i in range(n)] for name, n in zip(dims, values.shape, strict=True)}
    return xr.DataArray(values, dims=dims, coords=coords, attrs=attrs)


def test_holm_and_benjamini_hochberg_worked_by_hand():
    p = labelled([[0.005, 0.04], [0.011, 0.02]], "layer", "head")
    np.testing.assert_allclose(correct_p_values(p), [[0.02, 0.04], [0.033, 0.04]])
    np.testing.assert_allclose(correct_p_values(p, "bh"), [[0.02, 0.04], [0.022, 0.08 / 3]])


def test_correction_leaves_out_cells_without_p():
    found = correct_p_values(labelled([0.5, np.nan, 0.02], "head"))
    np.testing.assert_allclose(found, [0.5, np.nan, 0.04])
    assert found.attrs["corrected"] == "holm, 2 cells"


@given(arrays.arrays(float, st.integers(1, 6), elements=st.floats(0, 1)))
def test_correction_keeps_the_order_and_makes_no_p_smaller(p):
    for method in ("holm", "bh"):
        found = correct_p_values(labelled(p, "head"), method).values
        assert (found >= p - 1e-12).all()
        assert (found <= 1).all()
        assert (np.diff(found[np.argsort(p)]) >= 0).all()


def test_wrong_input_is_refused_with_what_to_do(refuses):
    refuses(lambda: correct_p_values(labelled([1.2], "head")), "outside 0 to 1")
    refuses(lambda: correct_p_values(labelled([0.2], "head"), "tukey"), "'tukey'", "holm")
