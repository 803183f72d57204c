import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.refusal.cue_evidence import p_by_sign_flips


@settings(max_examples=10)
@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.integers(2, 6))
def test_p_is_that_of_all_sign_flips(changes, n):
    """Against the plain loop over all flips, for changes in one kind alone."""
    values = (changes * 2)[:n]
    p = p_by_sign_flips({str(i): value for i, value in enumerate(values)}, {}, 0)
    observed, hits = abs(sum(values)), 0
    for flips in range(2**n):
        total = sum(v if flips >> i & 1 else -v for i, v in enumerate(values))
        hits += abs(total) >= observed - 1e-9 * math.hypot(*values)
    assert p == pytest.approx(hits / 2**n)


def test_with_many_families_p_is_from_random_flips():
    changes = {str(family): 1.0 + family for family in range(20)}
    assert p_by_sign_flips(changes, {}, 0) <= 2 / 10_000
    assert p_by_sign_flips(changes, {"other": 1.0}, 0) <= 2 / 10_000
    assert p_by_sign_flips({}, dict.fromkeys("abcd", 0.0), 0) == 1.0
