"""The rule that made a crossing is found; what no rule made is not explained."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.refusal.rules import FACTORS, RULES, fits, judge_crossing

N = 12


def crossing(refused):
    """Scores of +3 and -3; dims (harm, trigger, cue, family)."""
    return xr.DataArray(np.where(refused, 3.0, -3.0), dims=(*FACTORS, "family"))


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_found_by_what_it_foretells(rule):
    found = judge_crossing(crossing(np.repeat(RULES[rule][..., None], N, -1)))
    assert found.rule == rule
    assert found.fit == 1
    assert found.probability > 0.99


@given(st.sampled_from(sorted(RULES)), st.integers(0, 2**31))
def test_a_tenth_of_noise_changes_nothing(rule, seed):
    noise = np.random.default_rng(seed).random((2, 2, 2, 2 * N)) < 0.08
    found = judge_crossing(crossing(RULES[rule][..., None] ^ noise), seed=1)
    assert found.rule in (rule, None)


@given(st.integers(0, 2**31))
def test_chance_is_not_explained(seed):
    refused = np.random.default_rng(seed).random((2, 2, 2, N)) < 0.5
    found = judge_crossing(crossing(refused))
    assert found.rule is None
    assert "foretells" in found.abstains


def test_fits_are_the_slow_means():
    refused = np.random.default_rng(0).random((2, 2, 2, 5)) < 0.4
    scores = crossing(refused)
    scores[1, 0, 0, 2] = np.nan
    found = fits(scores)
    for rule, foretold in RULES.items():
        cells = []
        for cell in np.ndindex(2, 2, 2):
            values = scores.values[cell]
            values = values[~np.isnan(values)]
            cells.append(np.mean((values > 0) == foretold[cell]))
        assert float(found.sel(rule=rule)) == pytest.approx(np.mean(cells))


def test_two_rules_that_differ_where_families_disagree_are_not_decided():
    """In half of the families harm is enough, in the others it needs the cue."""
    refused = np.concatenate(
        [np.repeat(RULES[r][..., None], N // 2, -1) for r in ("content", "content and cue")], -1
    )
    found = judge_crossing(crossing(refused))
    assert found.rule is None
    assert '"content' in found.abstains


def test_a_crossing_has_its_dims_and_families(refuses):
    refuses(lambda: judge_crossing(xr.DataArray(np.zeros((2, 2)), dims=("harm", "cue"))), "dims")
    refuses(lambda: judge_crossing(crossing(np.ones((2, 2, 2, 3), bool))), "fewer than 4")
    empty = crossing(np.ones((2, 2, 2, 5), bool))
    empty[1, 1, 1] = np.nan
    refuses(lambda: fits(empty), "every cell needs one")
