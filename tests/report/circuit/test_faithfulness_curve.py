"""Faithfulness over the share of edges: points stand where the numbers are, text is text."""

import itertools
import re

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.report.circuit.faithfulness_curve import (
    faithfulness_chart,
    read_faithfulness_curves,
    share_text,
)


def curve(edges, values, **more) -> xr.Dataset:
    data = {"edges": ("circuit", list(edges)), "faithfulness": ("circuit", list(values))}
    labels = {"circuit": [f"top {n}" for n in edges]}
    return xr.Dataset(data | {k: ("circuit", list(v)) for k, v in more.items()}, coords=labels)


def marks(svg):
    return [(float(x), float(y)) for x, y in re.findall(r'"mark.*?cx="(.*?)" cy="(.*?)"', svg)]


def test_points_worked_out_by_hand():
    found = curve([100, 10], [0.75, -0.5], requested=[120, 10], low=[0.5, np.nan], high=[1.0, 2.0])
    ((first, second),) = (read.points for read in read_faithfulness_curves({"a": found}, 1000))
    assert (first.circuit, first.share, first.value, first.interval) == (
        "top 10",
        0.01,
        "−0.50",
        "",
    )
    assert (second.requested, second.edges, second.interval) == (120, 100, "0.50 to 1.00")
    assert [share_text(share) for share in (1.0, 0.00123456, 5e-9, 0.0)] == [
        "100%", "0.123%", "5.0e-07%", "0%",
    ]  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(-3, 3)), min_size=1, max_size=9),
    st.booleans(),
)
def test_chart_keeps_the_order_of_the_numbers(points, with_intervals):
    edges, values = zip(*points, strict=True)
    ends = {"low": [v - 9 for v in values], "high": [v + 0.1 for v in values]}
    read = read_faithfulness_curves(
        {"a": curve(edges, values, **(ends if with_intervals else {}))}, 10**6
    )
    svg = str(faithfulness_chart(read))
    drawn = read[0].drawn
    assert len(drawn) == sum(n > 0 for n in edges)
    assert len(marks(svg)) == len(drawn)
    assert "nan" not in svg
    for (one, p), (other, q) in itertools.combinations(zip(drawn, marks(svg), strict=True), 2):
        assert (one.share - other.share) * (p[0] - q[0]) >= 0
        assert (one.faithfulness - other.faithfulness) * (p[1] - q[1]) <= 0  # y goes down
    corners = " ".join(re.findall(r'points="(.*?)"', svg)).split()
    places = [tuple(map(float, corner.split(","))) for corner in corners]
    assert all(0 <= x <= 620 and 0 <= y <= 330 for x, y in places)
    assert ('class="band' in svg) == (with_intervals and len(drawn) > 1)


def test_distance_on_the_axis_is_the_ratio_of_the_shares():
    svg = str(
        faithfulness_chart(
            read_faithfulness_curves({"a": curve([1, 10, 100], [0.0, 0.5, 1.0])}, 1000)
        )
    )
    first, second, third = (x for x, _ in marks(svg))
    assert third - second == pytest.approx(second - first, abs=0.2)
    assert re.findall(r"<text[^>]*>([\d.]+%)", svg) == ["0.1%", "1%", "10%"]


def test_another_dataset_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"'a' has no faithfulness .*circuits\.faithfulness"):
        read_faithfulness_curves({"a": curve([1], [1.0]).drop_vars("faithfulness")}, 10)
    with pytest.raises(ValueError, match="no edges"):
        read_faithfulness_curves({"a": curve([1], [1.0]).drop_vars("edges")}, 10)


@pytest.mark.parametrize("hostile", ["</svg><script>x</script>", '"><img src=x>', "{0} {{ 7 }}"])
def test_names_are_text(hostile):
    found = curve([1, 2], [0.0, 1.0]).assign_coords(circuit=[hostile, hostile])
    svg = str(faithfulness_chart(read_faithfulness_curves({hostile: found}, 10)))
    assert "<script" not in svg
    assert "<img" not in svg
    assert svg.count("</svg>") == 1
