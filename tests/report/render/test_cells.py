"""A result as a reader goes through it: ranks, shares, intervals, axes."""

import numpy as np
import pytest
import xarray as xr

from mechinterp import stats
from mechinterp.report.render.cells import headline, read_grid, sentences
from mechinterp.report.render.phrases import plain

TOKENS = ["<|endoftext|>", "When", " Mary", "\n", " went"]


@pytest.fixture
def by_hand():
    """Means 2, -1, 1 and nothing, of two prompts."""
    values = [[[1.0, 3.0], [-1.0, -1.0]], [[0.5, 1.5], [np.nan, 1.0]]]
    return xr.DataArray(values, dims=("layer", "head", "prompt"), attrs={"unit": "nats"})


def test_cells_worked_out_by_hand(by_hand):
    grid = read_grid(by_hand)
    assert [cell.value for cell in grid.cells[:3]] == [2.0, -1.0, 1.0]
    assert [cell.rank for cell in grid.cells] == [1, 2, 3, None]
    assert [cell.share for cell in grid.cells[:3]] == [0.5, 0.25, 0.25]
    assert [cell.at for cell in grid.ranked] == [(0, 0), (0, 1), (1, 0)]
    assert (grid.largest, grid.reach, grid.n_prompts) == (2.0, 2.0, 2)
    assert plain(headline(grid)) == (
        "The largest value: layer 0, head 0, +2.00 nats, 50.0% of the total |value|."
    )
    assert [plain(sentence) for sentence in sentences(grid)] == [
        "Each cell is the mean over 2 prompts: too few for an interval.",
        "1 of 4 cells were not computed.",
    ]


def test_intervals_are_those_of_the_statistics(effect):
    grid = read_grid(effect)
    found = stats.interval(effect)
    for name, values in (("mean", "value"), ("low", "low"), ("high", "high")):
        shown = [getattr(cell, values) for cell in grid.cells]
        np.testing.assert_array_equal(shown, found[name].values.ravel())
    n_clear = int(((found["low"] > 0) | (found["high"] < 0)).sum())
    assert f"{n_clear} of 20 intervals exclude zero" in plain(sentences(grid)[1])
    assert plain(sentences(grid)[1]).endswith("about 1 would.")


def test_statistics_can_be_shown_as_they_came(effect):
    found = stats.difference(effect, 0 * effect)
    grid = read_grid(found.set_coords(["low", "high", "n"])["mean"])
    direct = read_grid(effect)
    assert [cell.low for cell in grid.cells] == [cell.low for cell in direct.cells]
    assert (grid.n_prompts, grid.level) == (8, 0.95)


@pytest.mark.parametrize(
    ("dims", "first"),
    [
        (("layer", "head", "pos"), "pos"),
        (("layer", "head", "ablation"), "ablation"),
        (("head", "pos", "src"), "head"),
        (("layer", "head", "neuron"), "layer"),
    ],
)
def test_maps_are_repeated_along_what_is_least_a_place(dims, first, swept):
    grid = read_grid(swept(2, 3, 4, dims=dims))
    assert [axis.name for axis in grid.axes] == [first, *(d for d in dims if d != first)]
    shape = [len(axis.labels) for axis in grid.axes]
    values = np.reshape([cell.value for cell in grid.cells], shape)
    expected = swept(2, 3, 4, dims=dims).mean("prompt").transpose(first, ...)
    np.testing.assert_allclose(values, expected)


def test_labels_are_the_coordinates(effect):
    layer, pos = read_grid(effect.assign_coords(layer=[2, 4, 6, 8])).axes
    assert layer.labels == ("2", "4", "6", "8")
    assert (pos.labels, pos.tokens) == (("0", "1", "2", "3", "4"), tuple(TOKENS))
    grid = read_grid(effect.drop_vars(["layer", "token"]))
    assert [axis.labels[-1] for axis in grid.axes] == ["3", "4"]
    assert grid.axes[1].tokens == ()
