import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from mechinterp.refusal.candidates import enough, one_of_each_family
from mechinterp.tasks.request_families import Request

TERMS = st.sets(
    st.frozensets(st.sampled_from("abcde"), min_size=1, max_size=3), min_size=1, max_size=3
)


@pytest.mark.parametrize(
    ("flips", "sets"),
    [
        ([], []),
        ([("a", "b", "c")], [("a",), ("b",), ("c",)]),
        ([("a",), ("b",), ("c",)], [("a", "b", "c")]),
        ([("s", "c", "v"), ("s", "c", "a")], [("s",), ("c",), ("v", "a")]),
    ],
)
def test_enough(flips, sets):
    assert enough(flips) == sets


@given(TERMS)
def test_what_is_enough_is_told_by_what_ends_the_refusal(terms):
    """For any refusal on any of some sets of words: removals found by trying all of them."""
    terms = {t for t in terms if not any(other < t for other in terms)}
    words = sorted(set().union(*terms))
    flips: list[tuple[str, ...]] = []
    for n in range(1, len(words) + 1):
        for gone in itertools.combinations(words, n):
            smallest = not any(set(flip) <= set(gone) for flip in flips)
            if smallest and all(term & set(gone) for term in terms):
                flips.append(gone)
    assert {frozenset(one) for one in enough(flips)} == terms


def test_each_family_comes_before_any_comes_twice():
    requests = [Request(str(at), True, f"family {at % 4}") for at in range(12)]
    order = one_of_each_family(requests, 10, np.random.default_rng(3))
    assert len({request.family for request in order[:4]}) == 4
    assert len({request.family for request in order[4:8]}) == 4
    assert len(set(map(id, order))) == 10
