"""Which sign supports: as a result says, or by what it is."""

import math

import pytest

from mechinterp.report.render.support import (
    legend_ends,
    side,
    sign_sentence,
    states_support,
    supporting_sign,
)


@pytest.mark.parametrize(
    ("attrs", "sign", "is_stated"),
    [
        ({}, "positive", False),
        ({"supports": "positive"}, "positive", True),
        ({"supports": "negative"}, "negative", True),
        ({"supports": "none"}, "positive", False),
    ],
)
def test_the_sign_is_what_the_result_says_or_is(attrs, sign, is_stated):
    assert supporting_sign(attrs) == sign
    assert states_support(attrs) == is_stated


def test_sides_are_mirrored():
    for value in (3.0, -0.5):
        sides = {side(value, "positive"), side(value, "negative")}
        assert sides == {"supports", "against"}
    assert side(3.0, "positive") == side(-3.0, "negative") == "supports"
    assert {side(v, s) for v in (0.0, math.nan) for s in ("positive", "negative")} == {"zero"}


def test_words_follow_the_sign():
    assert sign_sentence("negative", "the output", "the input") == (
        "Negative: the input supports the output. Positive: it works against it."
    )
    assert legend_ends("positive") == legend_ends("negative")[::-1]
