"""Several results of one question: their names, and what does not belong together."""

import pytest
import xarray as xr

from mechinterp.report.attribution.levels import read_levels, where_at


def names(scores):
    return [level.name for level in read_levels(scores)]


def test_names_of_a_mapping_and_of_a_sequence(unit_scores, token_scores):
    assert names({"word": unit_scores, "mine": token_scores}) == ["words", "mine"]
    assert names((unit_scores, token_scores)) == ["4 inputs", "tokens"]
    assert names([unit_scores, unit_scores.assign_attrs(units="word")]) == ["4 inputs", "words"]
    assert names([token_scores, token_scores]) == ["8 inputs", "8 inputs (2)"]
    assert names(token_scores) == [""]


def test_of_a_dataset_the_score_is_shown(pairs):
    (level,) = read_levels(pairs)
    assert level.reading.rows[0].scores == tuple(pairs["score"].values[0])
    with pytest.raises(ValueError, match="no 'score' to show, only single"):
        read_levels(pairs[["single"]])


def test_what_is_of_other_outputs_is_refused(unit_scores, token_scores):
    other = token_scores.assign_coords(output_token=("output", [" her", " the"]))
    with pytest.raises(ValueError, match=r"'b' is of the outputs .*' the'.* not .*' a'"):
        read_levels({"a": unit_scores, "b": other})
    with pytest.raises(ValueError, match="at least one result"):
        read_levels({})


def test_a_position_is_found_at_the_level_that_has_it(unit_scores, token_scores):
    levels = read_levels([unit_scores, token_scores])
    assert where_at(levels, 2, " met John.\n") == "2–4"
    assert where_at(levels, 2, " met") == "2"
    assert where_at(levels, 7, "elsewhere") == "7"


def test_levels_are_read_from_data_alone(unit_scores):
    before = unit_scores.copy(deep=True)
    read_levels([unit_scores])
    xr.testing.assert_identical(unit_scores, before)
