"""What supports the behaviour: which sign of a value says so, and the sentence for it.

A head that a behaviour needs has a positive attribution score and a negative effect of ablation.
The colours of all views follow the meaning, not the sign: warm supports, cold works against. A
result says which sign it is in `attrs["supports"]`.

>>> from mechinterp.report.render.support import side, supporting_sign
>>> sign = supporting_sign({"supports": "negative"})
>>> side(-0.7, sign), side(0.2, sign)
('supports', 'against')
"""

import math
from collections.abc import Mapping
from typing import Literal

Sign = Literal["positive", "negative"]
"""The sign of a value that means support."""

Side = Literal["supports", "against", "zero"]

TERMINAL = {"supports": "red", "against": "blue", "zero": ""}
"""The terminal's colour of each side."""


def supporting_sign(attrs: Mapping[str, object]) -> Sign:
    """Which sign means support, by the `attrs` of a result. Positive if they do not say."""
    return "negative" if attrs.get("supports") == "negative" else "positive"


def side(value: float, supports: Sign = "positive") -> Side:
    """Whether a value supports or works against; neither where it is zero or not a number."""
    if not math.isfinite(value) or value == 0:
        return "zero"
    return "supports" if (value > 0) == (supports == "positive") else "against"


def states_support(attrs: Mapping[str, object]) -> bool:
    """Whether the `attrs` tell which sign means support, so that a view may say it in words."""
    return attrs.get("supports") in ("positive", "negative")


def sign_sentence(supports: Sign, behaviour: str = "the behaviour", what: str = "it") -> str:
    """The convention in words: which sign supports, and which works against."""
    other = "positive" if supports == "negative" else "negative"
    return (
        f"{supports.capitalize()}: {what} supports {behaviour}. {other.capitalize()}: it works "
        f"against it."
    )


def legend_ends(supports: Sign, behaviour: str = "the behaviour") -> tuple[str, str]:
    """Words for the two ends of a colour scale, from the most negative to the most positive."""
    ends = f"works against {behaviour}", f"supports {behaviour}"
    return ends if supports == "positive" else (ends[1], ends[0])
