"""Two results side by side: Spearman is scipy's, and the places say where they differ."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechinterp.report.attribution.agreement import agreements, read_beside, spearman
from mechinterp.report.attribution.levels import read_levels
from mechinterp.report.attribution.read import read_scores

PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=12)


@given(PAIRS)
def test_spearman_is_scipys(pairs):
    one, other = np.array(pairs, dtype=float).T
    ours = spearman(one, other)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        assert math.isnan(ours)
    else:
        assert ours == pytest.approx(stats.spearmanr(one, other).statistic)


def test_places_worked_out_by_hand(unit_scores):
    other = unit_scores.copy(data=np.array([[np.nan, 1.0, 2.0, 1.0, 5.0], [0, 0, 0, 0, 0]]))
    first, second, mean = agreements(read_scores(unit_scores), read_scores(other))
    # ours: 4, 2, 0.5, -0.5 are at places 1 to 4; theirs 1, 2, 1, 5 at 3.5, 2, 3.5, 1
    assert [(p.shown.label, p.place_in_one, p.place_in_other) for p in first.places] == [
        (" left.", 4, 1), ("her", 1, 3.5), (" Then", 3, 3.5), (" met John.\n", 2, 2),
    ]  # fmt: skip
    assert (first.places[0].one, first.places[0].other, first.places[0].apart) == (-0.5, 5.0, -3)
    assert first.spearman == pytest.approx(stats.spearmanr([4, 2, 0.5, -0.5], [1, 2, 1, 5])[0])
    assert math.isnan(second.spearman)
    assert mean.output is None


def test_what_tells_the_results_apart_is_their_name(unit_scores):
    levels = read_levels(unit_scores)
    other = unit_scores.assign_attrs(removal="resample", method="leave-one-out")
    found = read_beside(levels, other)
    assert (found.name, found.others[0].name) == (
        "the token is deleted",
        "leave-one-out, resample",
    )
    same = read_beside(levels, unit_scores)
    assert (same.name, same.others[0].name) == ("result 1", "result 2")
    named = read_beside(levels, {"mine": other, "theirs": unit_scores})
    assert [o.name for o in named.others] == ["mine", "theirs"]


def test_it_stands_beside_the_level_that_has_its_units(unit_scores, token_scores):
    levels = read_levels({"token": token_scores, "spans": unit_scores})
    assert read_beside(levels, unit_scores).level.name == "spans"
    assert read_beside(levels, token_scores).level.name == "tokens"


def test_other_units_and_outputs_are_refused(unit_scores, token_scores):
    levels = read_levels(unit_scores)
    with pytest.raises(ValueError, match=r"beside has the units.*Then.*the scores have.*her"):
        read_beside(levels, token_scores)
    with pytest.raises(ValueError, match=r"'b': its units are"):
        read_beside(levels, {"a": unit_scores, "b": token_scores})
    with pytest.raises(ValueError, match="of the outputs"):
        read_beside(levels, unit_scores.isel(output=[0]))
    with pytest.raises(ValueError, match="beside is empty"):
        read_beside(levels, {})
