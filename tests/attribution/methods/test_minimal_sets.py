"""The search for minimal sets on set functions, beside a slow loop over all subsets."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.attribution.methods.hitting_sets import hitting_sets, linked, smallest
from mechinterp.attribution.methods.minimal_sets import MOST_SETS, MinimalSets, measure_for

UNITS = range(7)
ENOUGH = st.lists(st.sets(st.sampled_from(UNITS), min_size=1, max_size=3), min_size=1, max_size=4)


def searched(effect, n_units, n_chosen=None):
    """The search with singles and pairs known, its sets and what it took."""
    n_chosen = n_units if n_chosen is None else n_chosen

    def measured(sets):
        return {s: np.array([float(effect(set(s)))]) for s in sets}

    small = [*itertools.combinations(range(n_chosen), 2), *((n,) for n in range(n_units))]
    known = measured(small)
    search = MinimalSets(
        known,
        0,
        chosen=list(range(n_chosen)),
        spare=list(range(n_chosen, n_units)),
        total=float(effect(set(range(n_units)))),
        unit="nats",
    )
    n_sets, is_complete = measure_for([search.steps()], known, measured)
    return search, n_sets, is_complete


def groups(found):
    """The members of each group."""
    return sorted(
        sorted(hitting_sets(sets))
        for sets in linked([s for sets in found for s in sets if len(s) > 1])
    )


@settings(max_examples=60)
@given(ENOUGH, st.sampled_from([8.0, -8.0]))
def test_where_some_sets_are_each_enough_the_slow_loop_finds_the_same(enough, size):
    def effect(removed):
        return size * (not any(s.isdisjoint(removed) for s in enough))

    every = itertools.chain(*(itertools.combinations(UNITS, k) for k in range(1, len(UNITS) + 1)))
    wanted = smallest(s for s in every if effect(set(s)))
    search, n_sets, is_complete = searched(effect, len(UNITS))
    assert is_complete
    assert sorted(itertools.chain(*search.found)) == sorted(wanted)
    assert groups(search.found) == groups([wanted])
    assert n_sets < 2 ** len(UNITS)
    for group in groups(search.found):  # each member is enough where the others are removed
        for member in group:
            assert effect(set(itertools.chain(*group)) - set(member)) == 0


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.lists(st.floats(3, 5), min_size=3, max_size=3),
    st.floats(-0.3, 0.3),
    st.randoms(use_true_random=False),
)
def test_effects_that_add_up_are_taken_apart(sizes, effects, small, random):
    """Each planted set has an effect of its own once it is gone; one unit has a small one."""
    order = list(range(sum(sizes) + 1))
    random.shuffle(order)
    ends = np.cumsum(sizes).tolist()
    planted = [set(order[end - n : end]) for n, end in zip(sizes, ends, strict=True)]

    def effect(removed):
        whole = sum(e for s, e in zip(planted, effects, strict=False) if s <= removed)
        return whole + small * (order[-1] in removed)

    search, _, is_complete = searched(effect, len(order))
    assert is_complete
    wanted = sorted(sorted((n,) for n in s) for s in planted if len(s) > 1)
    assert groups(search.found) == wanted


def test_more_stand_ins_than_candidates_are_found():
    search, n_sets, _ = searched(lambda gone: 8.0 * (set(range(2, 13)) <= gone), 16, n_chosen=8)
    assert groups(search.found) == [[(n,) for n in range(2, 13)]]
    assert n_sets < 80


def test_what_is_enough_only_beside_a_unit_that_is_no_candidate():
    def effect(removed):
        return 8.0 * bool({0, 1} <= removed and {2, 9, 12} & removed)

    found = searched(effect, 14, n_chosen=4)[0].found
    assert groups(found) == [[(0,), (1,), (2, 9, 12)]]


@pytest.mark.parametrize("total", [0.4, -0.4, 0.0])
def test_where_nothing_is_to_be_explained_nothing_is_found(total):
    """Two units do more together than alone, and all of them little."""

    def effect(removed):
        return 0.45 * ({1, 2} <= removed) + (total - 0.45) * (0 in removed and 3 in removed)

    assert searched(effect, 4)[0].found == []


def test_a_search_that_would_take_too_many_sets_stops():
    """Any four of eight are enough, so that there are 56 minimal sets, of five each."""
    search, n_sets, is_complete = searched(lambda removed: 8.0 * (len(removed) >= 5), 8)
    assert n_sets <= MOST_SETS
    assert not is_complete
    assert search.found[0]
