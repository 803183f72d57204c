"""What a run cost and how it was made, as labelled lines, from the `attrs` of its result.

costs({"arms": 14, "passes": 2}) == (Cost("Arms", "14"), Cost("Passes", "2"))
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import SupportsFloat

from mechinterp.core.printable import escape
from mechinterp.report.render.numbers import MINUS, count, n_bytes, seconds

_QUANTITIES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("arms", "Arms", count),
    ("passes", "Forward passes", count),
    ("backward_passes", "Backward passes, each as two", count),
    ("token_layers", "Token-layers computed", count),
    ("token_layers_naive", "Token-layers, naive", count),
    ("seconds", "Time", seconds),
    ("peak_bytes_planned", "Peak memory planned", n_bytes),
    ("n_draws", "Draws of the removal", count),
)
_WORDS = (("model", "Model"), ("metric", "Metric"), ("unit", "Unit"), ("removal", "Removal"))
_SHOWN_ELSEWHERE = {"sign", "supports", "prompt", "interaction_sign", "removal_note"}


@dataclass(frozen=True)
class Cost:
    """One labelled line; `note` puts its value into proportion."""

    label: str
    value: str
    note: str = ""


def costs(attrs: Mapping[str, object]) -> tuple[Cost, ...]:
    """The quantities that the result holds, then how it was made, then any further attribute."""
    quantities = [
        Cost(label, form(_number(attrs[key])), _saving(attrs) if key == "token_layers" else "")
        for key, label, form in _QUANTITIES
        if math.isfinite(_number(attrs.get(key)))
    ]
    words = [Cost(label, escape(str(attrs[key]))) for key, label in _WORDS if attrs.get(key)]
    known = {key for key, *_ in (*_QUANTITIES, *_WORDS)} | _SHOWN_ELSEWHERE
    others = [
        Cost(escape(key.replace("_", " ").capitalize()), _printed(value))
        for key, value in attrs.items()
        if key not in known and isinstance(value, str | int | float) and value != ""
    ]
    return (*quantities, *words, *others)


def _printed(value: object) -> str:
    """A value as text; a float with four digits."""
    return f"{value:.4g}".replace("-", MINUS) if isinstance(value, float) else escape(str(value))


def _saving(attrs: Mapping[str, object]) -> str:
    computed, naive = (_number(attrs.get(key)) for key in ("token_layers", "token_layers_naive"))
    if not (math.isfinite(computed) and math.isfinite(naive)) or computed == 0:
        return ""
    return (
        f"{naive / computed:.1f}× fewer" if naive >= computed else f"{computed / naive:.1f}× more"
    )


def _number(value: object) -> float:
    """The value as a number; NaN if it is none, or true or false."""
    if isinstance(value, bool) or not isinstance(value, SupportsFloat):
        return math.nan
    try:
        return float(value)
    except TypeError:  # an array of several
        return math.nan
