"""Curves by layer: points where the numbers are, bands around them, what has no number left out."""

import re

from hypothesis import given
from hypothesis import strategies as st

from mechinterp.report.layers.chart import LayerLine, layer_chart

SHARES = st.floats(0, 1, allow_nan=False)


@given(st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=2, max_size=40))
def test_bands_hold_their_points(triples):
    low, value, high = zip(*(sorted(each) for each in triples), strict=True)
    line = LayerLine("one", tuple(range(len(value))), value, low, high)
    svg = str(layer_chart([line], y="share", y_range=(0.0, 1.0)))
    marks = [(float(x), float(y)) for x, y in re.findall(r'<circle[^>]*cx="(.*?)" cy="(.*?)"', svg)]
    (band,) = re.findall(r'<polygon[^>]*points="(.*?)"', svg)
    ends = [tuple(map(float, each.split(","))) for each in band.split()]
    above, below = ends[: len(value)], ends[len(value) :][::-1]
    for (x, y), (x_high, y_high), (x_low, y_low) in zip(marks, above, below, strict=True):
        assert x == x_high == x_low
        assert y_high <= y <= y_low  # y goes down


def test_no_number_no_point_and_no_interval_no_band():
    nan = float("nan")
    svg = str(layer_chart([LayerLine("gap", (0, 1, 2), (0.5, nan, 1.0))], y="share"))
    assert svg.count("<circle") == 2
    assert "<polygon" not in svg
    assert "nan" not in svg


def test_layers_may_have_names_and_text_is_text():
    line = LayerLine("<b>", (0, 1), (0.0, 2.0), labels=("embed", "L0"))
    svg = str(layer_chart([line, LayerLine("chance", (0, 1), (1.0, 1.0), is_chance=True)], y="x<y"))
    assert ">embed</text>" in svg
    assert "<b>" not in svg
    assert 'class="curve chance"' in svg


def test_one_layer_and_none():
    assert "<circle" in str(layer_chart([LayerLine("one", (3,), (0.2,))], y="share"))
    assert "<svg" in str(layer_chart([], y="share"))
