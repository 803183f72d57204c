import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mechinterp.refusal.flip_search import FlipSearch

N = 12


def full_cost(n):
    return sum(math.comb(n, size) * (1 + n - size) for size in (1, 2, 3))


def search_of(score, n=N, **options):
    """The search, done; the sets measured; their cost in words."""
    measured = []

    def measure(sets):
        measured.extend(sets)
        return [score(words) for words in sets]

    search = FlipSearch(measure, n, **options)
    search.run()
    assert len(set(measured)) == len(measured) == search.n_measured + 1
    return search, sum(1 + n - len(words) for words in measured)


@st.composite
def truth_tables(draw, most=4):
    """A score that depends on a few words by any table, and a little on the others."""
    words = draw(st.lists(st.integers(0, N - 1), min_size=1, max_size=most, unique=True))
    size = 2 ** len(words)
    table = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    noise = draw(st.lists(st.floats(-0.05, 0.05), min_size=N, max_size=N))

    def score(gone):
        at = sum((word not in gone) << i for i, word in enumerate(words))
        return (8.0 if table[at] else -8.0) + sum(noise[word] for word in gone)

    return score


@given(truth_tables())
def test_without_tolerance_it_equals_the_search_over_all_sets(smallest_flips, score):
    search, _ = search_of(score, tolerance=0.0)
    whole = score(frozenset()) > 0
    assert search.found == smallest_flips(lambda words: (score(words) > 0) != whole, N)
    assert search.complete
    assert search.n_measured <= search.n_in_all == 298


@given(truth_tables())
def test_none_is_false_and_each_is_a_smallest_one(smallest_flips, score):
    whole = score(frozenset()) > 0
    truth = smallest_flips(lambda words: (score(words) > 0) != whole, N)
    assert set(search_of(score)[0].found) <= set(truth)


GATES = {
    "and": all,
    "or": any,
    "xor": lambda here: sum(here) % 2 == 1,
    "none or all": lambda here: sum(here) in (0, len(here)),
}


@given(
    st.sampled_from(list(GATES)),
    st.lists(st.integers(0, 15), min_size=2, max_size=3, unique=True),
    st.integers(12, 16),
)
def test_gates_of_words_are_found_in_a_tenth(smallest_flips, gate, words, n):
    words = [word % n for word in words]
    score = lambda gone: 8.0 if GATES[gate]([word not in gone for word in words]) else -8.0  # noqa: E731
    search, cost = search_of(score, n)
    whole = score(frozenset()) > 0
    assert search.found == smallest_flips(lambda gone: (score(gone) > 0) != whole, n)
    assert cost <= full_cost(n) / 10


def test_any_two_of_four_words_hide_from_single_removals(smallest_flips):
    def score(gone):
        return 8.0 if {0, 3} - gone and {5, 9} - gone else -8.0

    search, _ = search_of(score, 16)
    assert search.found == [frozenset({0, 3}), frozenset({5, 9})]


def test_small_effects_that_add_up_are_not_idle():
    search, _ = search_of(lambda gone: 1.0 - 0.2 * len(gone & {1, 4}) - 0.9 * (7 in gone))
    assert search.found == [frozenset({1, 7}), frozenset({4, 7})]


def test_cut_short_it_says_so_and_keeps_the_largest_effects():
    weights = [0.0, 0.4, 0.0, 0.0, 0.45, 0.0, 0.3, 0.1]
    score = lambda gone: 1.0 - sum(weights[word] for word in gone)  # noqa: E731
    search, _ = search_of(score, 8, most=20, tolerance=0.0)
    assert not search.complete
    assert search.n_measured <= 20
    whole, _ = search_of(score, 8, tolerance=0.0)
    assert whole.complete
    assert whole.found == [frozenset({1, 4, 6})]


def test_what_cannot_be_removed_is_left_out():
    search, _ = search_of(
        lambda gone: 1.0 - len(gone), 3, tolerance=0.0, allowed=lambda words: len(words) < 3
    )
    assert len(search.found) == 3  # each word alone reaches the threshold
    assert search.n_measured == 3


@pytest.mark.parametrize("n", [1, 2])
def test_few_words(n):
    search, _ = search_of(lambda gone: 1.0 if len(gone) < n else -1.0, n)
    assert search.found == [frozenset(range(n))]
    assert not search.idle
