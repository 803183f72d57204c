"""The diverging colour scale: blue is negative, the surface is zero, red is positive.

Symmetric about zero and linear in the score. It comes as a fixed number of CSS classes and not as
inline colours: a strict Content-Security-Policy stays possible, and the scale follows a dark theme
without a script. Each class sets `--cell` and `--ink`: black or white, whichever reads better.

    colour_class(-0.5, largest=1.0) == "n10"

Source: the light scale is ColorBrewer's RdBu, safe for the common kinds of colour blindness.
"""

import math

STEPS = 20
NOT_ATTRIBUTED = "na"

_FAINT = 0.1

Rgb = tuple[int, int, int]

_LIGHT = ("2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b")
_DARK = ("8cc8ff", "4b96dc", "2f6498", "263d56", "24272d", "553228", "99472e", "dd6a42", "ff9d78")


def colour_class(score: float, largest: float) -> str:
    """The class of a score: `n20` for minus the largest, ..., `z`, ..., `p20`; `na` for NaN."""
    if not math.isfinite(score):
        return NOT_ATTRIBUTED
    step = round(STEPS * max(-1.0, min(1.0, score / largest))) if largest > 0 else 0
    return _name(step)


def terminal_style(score: float, largest: float) -> str:
    """Ink on a cell of the light scale, for rich; none near zero, where sign and size are read."""
    if not math.isfinite(score) or largest <= 0 or abs(score) < _FAINT * largest:
        return "dim"
    cell = _between(_LIGHT, (max(-1.0, min(1.0, score / largest)) + 1) / 2)
    return f"{_ink(cell)} on {_hex(cell)}"


def scale_classes() -> tuple[str, ...]:
    """All classes of the scale, from the most negative to the most positive."""
    return tuple(_name(step) for step in range(-STEPS, STEPS + 1))


def scale_css() -> str:
    """The rules of all classes, for light and dark."""
    return (
        f"{_rules(_LIGHT)}\n@media screen and (prefers-color-scheme: dark) {{\n{_rules(_DARK)}\n}}"
    )


def contrast(one: Rgb, other: Rgb) -> float:
    """Contrast ratio of two colours, from 1 to 21. Source: WCAG 2.2, section 1.4.3."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _name(step: int) -> str:
    return "z" if step == 0 else f"p{step}" if step > 0 else f"n{-step}"


def _rules(stops: tuple[str, ...]) -> str:
    lines = []
    for step in range(-STEPS, STEPS + 1):
        colour = _between(stops, (step + STEPS) / (2 * STEPS))
        lines.append(f".{_name(step)}{{--cell:{_hex(colour)};--ink:{_ink(colour)}}}")
    return "\n".join(lines)


def _between(stops: tuple[str, ...], fraction: float) -> Rgb:
    place = fraction * (len(stops) - 1)
    left = min(int(place), len(stops) - 2)
    weight = place - left
    pairs = zip(bytes.fromhex(stops[left]), bytes.fromhex(stops[left + 1]), strict=True)
    red, green, blue = (round(a + weight * (b - a)) for a, b in pairs)
    return red, green, blue


def _ink(background: Rgb) -> str:
    black, white = (0, 0, 0), (255, 255, 255)
    return _hex(max((black, white), key=lambda ink: contrast(ink, background)))


def _hex(colour: Rgb) -> str:
    return "#" + bytes(colour).hex()


def _luminance(colour: Rgb) -> float:
    red, green, blue = (_linear(channel / 255) for channel in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
