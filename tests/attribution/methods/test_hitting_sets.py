"""Hitting sets beside a slow loop over all subsets, and shares by hand."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.attribution.methods.hitting_sets import (
    hitting_sets,
    linked,
    pivotal_shares,
    smallest,
)

SETS = st.lists(st.sets(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=5)


def by_hand(sets):
    """All sets of units that meet each of these, less those that contain another."""
    units = sorted(set().union(*sets))
    hit = [
        set(chosen)
        for size in range(len(units) + 1)
        for chosen in itertools.combinations(units, size)
        if all(set(chosen) & set(s) for s in sets)
    ]
    return {tuple(sorted(s)) for s in hit if not any(other < s for other in hit)}


@given(SETS)
def test_hitting_sets_equal_the_slow_loop_and_theirs_are_the_sets(sets):
    sets = [tuple(sorted(s)) for s in sets]
    found = hitting_sets(sets)
    assert set(found) == by_hand(sets)
    assert set(hitting_sets(found)) == set(smallest(sets))


@given(SETS)
def test_linked_sets_share_units_and_others_do_not(sets):
    sets = [tuple(sorted(s)) for s in sets]
    found = linked(sets)
    assert sorted(itertools.chain(*found)) == sorted(sets)
    units = [set(itertools.chain(*group)) for group in found]
    assert sum(map(len, units)) == len(set().union(*units))


@given(SETS)
def test_shares_are_how_often_a_random_order_ends_the_effect(sets):
    enough = smallest(tuple(sorted(s)) for s in sets)
    units = sorted(set(itertools.chain(*enough)))
    ends = dict.fromkeys(units, 0)
    n_orders = 0
    for order in itertools.permutations(units):
        n_orders += 1
        kept = set(units)
        for unit in order:
            kept.remove(unit)
            if not any(set(s) <= kept for s in enough):
                ends[unit] += 1
                break
    shares = pivotal_shares(enough)
    assert shares == pytest.approx({unit: n / n_orders for unit, n in ends.items()})
    assert sum(shares.values()) == pytest.approx(1)


def test_many_units_have_equal_shares():
    assert pivotal_shares([(n,) for n in range(20)]) == dict.fromkeys(range(20), 0.05)
