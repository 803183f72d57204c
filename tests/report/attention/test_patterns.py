"""Patterns on a page: what is kept says what the model said, to a thousandth."""

import numpy as np
import pytest
import xarray as xr

from mechinterp.report.attention import patterns as attention
from mechinterp.report.attention.patterns import read_patterns

TOKENS = ["<s>", " a", "\n", "b"]


@pytest.fixture
def patterns():
    """2 layers, 3 heads, 4 tokens: causal, every row sums to 1."""
    draw = np.tril(np.random.default_rng(0).random((2, 3, 4, 4)))
    dims = ("layer", "head", "pos", "src")
    return xr.DataArray(draw / draw.sum(-1, keepdims=True), dims=dims)


def test_rows_are_the_pattern(patterns):
    found = read_patterns(patterns.transpose("src", "pos", ...), TOKENS, [(1, 2), (0, 1), (7, 0)])
    assert found.tokens == ("<s>", "␣a", "↵", "b")
    assert list(found.heads) == [(1, 2), (0, 1)]
    for (layer, head), rows in found.heads.items():
        full = [row + [0] * (4 - len(row)) for row in rows]
        np.testing.assert_allclose(np.array(full) / 1000, patterns[layer, head], atol=5.1e-4)
        assert [len(row) for row in rows] == [1, 2, 3, 4]


def test_labels_name_the_layer_and_the_tokens(patterns):
    labelled = patterns.assign_coords(layer=[4, 9], token=("pos", TOKENS))
    found = read_patterns(labelled, None, [(9, 0), (1, 0)])
    assert list(found.heads) == [(9, 0)]
    assert found.tokens[1] == "␣a"
    assert read_patterns(patterns, None, []).tokens == ("0", "1", "2", "3")


def test_too_many_are_left_out(patterns, monkeypatch):
    monkeypatch.setattr(attention, "_MOST_WEIGHTS", 35)
    found = read_patterns(patterns, TOKENS, [(0, 0), (0, 1), (0, 2)])
    assert (list(found.heads), found.n_left_out) == ([(0, 0), (0, 1)], 1)


def test_what_is_no_pattern_of_the_prompt_is_refused(patterns):
    with pytest.raises(ValueError, match="Select one prompt"):
        read_patterns(patterns.expand_dims(prompt=2), TOKENS, [])
    with pytest.raises(ValueError, match="3 tokens, and a pattern of 4 by 4"):
        read_patterns(patterns, TOKENS[:3], [])
