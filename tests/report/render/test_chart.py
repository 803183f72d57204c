"""Charts: marks stand where the numbers are, names do not cover each other, text is text."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.report.render.chart import Curve, Dot, curves, scatter, ticks

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@given(FINITE, st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low, span):
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 7
    slack = 1e-6 * span + 1e-9 * abs(low)
    assert found[0] >= low - slack
    assert found[-1] <= low + span + slack


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=8))
def test_dots_keep_the_order_of_their_numbers(points):
    svg = str(scatter([Dot(x, y, "a", True) for x, y in points], x="x", y="y"))
    drawn = [(float(x), float(y)) for x, y in re.findall(r'<circle[^>]*cx="(.*?)" cy="(.*?)"', svg)]
    assert len(drawn) == len(points)
    for (one, p), (other, q) in itertools.combinations(zip(points, drawn, strict=True), 2):
        assert (one[0] - other[0]) * (p[0] - q[0]) >= 0
        assert (one[1] - other[1]) * (p[1] - q[1]) <= 0  # y goes down
    assert all(0 <= x <= 360 and 0 <= y <= 310 for x, y in drawn)


@given(st.lists(st.lists(FINITE, min_size=3, max_size=3), min_size=1, max_size=12))
def test_names_of_curves_do_not_cover_each_other(values):
    lines = [Curve(f"m{i}", (0.0, 0.5, 1.0), tuple(ys)) for i, ys in enumerate(values)]
    svg = str(curves(lines, x="x", y="y"))
    places = sorted(float(y) for y in re.findall(r'class="name" x="\S+" y="(.*?)"', svg))
    assert len(places) == len(lines)
    assert all(b - a >= 14 for a, b in itertools.pairwise(places))
    assert places[-1] <= 300


def test_a_curve_skips_what_is_not_known():
    nan = math.nan
    lines = [Curve("a", (0.0, 0.5, 1.0), (0.0, nan, 2.0)), Curve("b", (0.0,), (nan,))]
    svg = str(curves(lines, x="x", y="y"))
    (points,) = re.findall(r'points="(.*?)"', svg)
    assert len(points.split()) == 2
    assert "nan" not in svg
    assert "nan" not in str(curves([], x="x", y="y"))


def test_chance_is_drawn_first_and_grey():
    lines = [Curve(n, (0.0, 1.0), (0.0, 1.0), n == "random") for n in ("a", "random", "b")]
    svg = str(curves(lines, x="x", y="y"))
    assert re.findall(r'<polyline class="(.*?)"', svg) == ["curve chance", "curve c0", "curve c1"]


@pytest.mark.parametrize("hostile", ["</svg><script>x</script>", '"><img src=x>', "{0} {{ 7 }}"])
def test_names_are_text(hostile):
    both = str(scatter([Dot(1.0, 1.0, hostile, True)], x=hostile, y=hostile))
    both += str(curves([Curve(hostile, (0.0, 1.0), (0.0, 1.0))], x=hostile, y="y"))
    assert "<script" not in both
    assert "<img" not in both
    assert both.count("</svg>") == 2
