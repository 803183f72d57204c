"""The scales: readable, symmetric, and mirrored where the negative values support."""

import re

import pytest

from mechinterp.report.render.colours import (
    colour_class,
    neutral_class,
    neutral_scale,
    scale_classes,
    scale_css,
)


@pytest.mark.parametrize("value", [-2.0, -0.7, 0.0, 0.01, 1.3, 5.0, float("nan")])
def test_a_negative_support_mirrors_the_scale(value):
    assert colour_class(value, 2.0, "negative") == colour_class(-value, 2.0, "positive")
    assert scale_classes("negative") == scale_classes("positive")[::-1]


def test_every_class_of_both_scales_has_a_rule_for_light_and_dark():
    css = scale_css()
    for name in {*scale_classes(), *neutral_scale()}:
        assert len(re.findall(rf"\.{name}\{{", css)) >= 2


def test_neutral_values_share_no_colour_with_support():
    assert not {*neutral_scale()} & {*scale_classes()} - {"z"}
    assert [neutral_class(v, 2.0) for v in (-2.0, 0.0, 1.0)] == ["down20", "z", "up10"]
