import numpy as np
import pytest
import xarray as xr

from mechinterp.core.sites import Site
from mechinterp.tasks import Finding
from mechinterp.tasks.definition import heads
from mechinterp.tasks.findings import compare_findings

NAN = float("nan")


def effect(values, **coords):
    return xr.DataArray(values, dims=(*coords, "prompt")[: np.ndim(values)], coords=coords)


HEADS = effect(
    [[[0.1, 0.3], [-2.0, -1.0]], [[0.0, 0.0], [1.0, 0.0]], [[3.0, -3.0], [0.4, 0.4]]],
    layer=[0, 1, 5],
    head=[0, 1],
)
"""Means .2, -1.5 / 0, .5 / 0, .4, so that the ranks are 4, 1 / 5, 2 / 6, 3."""


def finding(*sites):
    return Finding("claim", "source", "model", sites, "role")


@pytest.mark.parametrize(
    ("sites", "ranks", "verdict", "places"),
    [
        (heads((0, 1), (5, 1)), (1, 3), "1 of 2 among the strongest 2", "L0H1.z #1, L5H1.z #3"),
        (heads((0, 1), (1, 1)), (1, 2), "2 of 2 among the strongest 2", "L0H1.z #1, L1H1.z #2"),
        (heads((2, 1)), (None,), "not in this grid", "L2H1.z"),
        (heads((1, 2), (0, 0)), (None, 4), "0 of 2 among the strongest 2", "L1H2.z, L0H0.z #4"),
        ((Site("mlp_out", 0),), (None,), "not in this grid", "L0.mlp_out"),
        ((Site("z", 0, 0, pos="end"),), (None,), "not in this grid", "L0H0.z@end"),
        ((), (), "names no site", ""),
    ],
)
def test_a_finding_beside_a_grid_of_heads(sites, ranks, verdict, places):
    (row,) = compare_findings(HEADS, "z", [finding(*sites)], strongest=2)
    assert (row.ranks, row.verdict, row.places) == (ranks, verdict, places)
    assert row.is_inside == any(ranks)


def test_a_site_without_a_position_has_its_best_one():
    grid = effect([[0.5, 0.1], [0.2, 0.9]], layer=[0, 1], pos=["S2", "end"])
    sites = Site("mlp_out", 0), Site("mlp_out", 1, pos="S2"), Site("mlp_out", 1)
    (row,) = compare_findings(grid, "mlp_out", [finding(*sites)], strongest=2)
    assert row.ranks == (2, 3, 1)


def test_a_cell_that_was_not_computed_has_no_rank():
    grid = effect([[NAN, 0.1], [0.2, NAN]], layer=[0, 1], head=[0, 1])
    rows = compare_findings(
        grid, "z", [finding(*heads((0, 0))), finding(*heads((1, 1), (1, 0)))], strongest=1
    )
    assert [row.ranks for row in rows] == [(None,), (None, 1)]
    assert [row.verdict for row in rows] == ["not computed", "1 of 2 among the strongest 1"]
