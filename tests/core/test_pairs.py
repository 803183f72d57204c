"""A pair of prompt sets. Refusals of unaligned ones: `tests/laws/test_nothing_silent_runs.py`."""

from mechinterp import Pair, Prompts


def test_a_pair_says_where_it_differs():
    clean = Prompts.from_ids([[1, 2, 3], [4, 5]]).named(a=[0, 1])
    corrupt = Prompts.from_ids([[1, 9, 3], [4, 5]]).named(a=[1, 1])
    differ = [[False, True, False], [False, False, False]]
    assert Pair(clean, corrupt).differ.tolist() == differ
    same = Pair(clean, clean)
    assert not same.differ.any()
