"""The colour scales: warm supports the behaviour, cold works against it, the surface is zero.

Symmetric about zero and linear in the value. `supports` says which sign is warm, so that a head
has the same colour on all pages. Values that do neither, such as a share of attention, have a scale
of their own, green and purple.

A scale is a fixed number of CSS classes and no inline colours: a strict Content-Security-Policy
stays possible, and the scale follows a dark theme without a script. Each class sets `--cell` and
`--ink`: black or white, whichever reads better.

    colour_class(-0.5, largest=1.0) == "con10"
    colour_class(-0.5, largest=1.0, supports="negative") == "pro10"
    neutral_class(0.5, largest=1.0) == "up10"

Source: the light scales are ColorBrewer's RdBu and PRGn, safe for the common kinds of colour
blindness.
"""

import math

from mechinterp.report.render.support import Sign

STEPS = 20
NOT_ATTRIBUTED = "na"

_FAINT = 0.1

Rgb = tuple[int, int, int]

_LIGHT = ("2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b")
_DARK = ("8cc8ff", "4b96dc", "2f6498", "263d56", "24272d", "553228", "99472e", "dd6a42", "ff9d78")
_NEUTRAL_LIGHT = (
    *("1b7837", "5aae61", "a6dba0", "d9f0d3", "f7f7f7", "e7d4e8", "c2a5cf", "9970ab", "762a83"),
)
_NEUTRAL_DARK = (
    *("8fe39a", "4fae63", "2f7340", "24402e", "24272d", "3a2b47", "5f4182", "9268c4", "c9a2ff"),
)


def colour_class(value: float, largest: float, supports: Sign = "positive") -> str:
    """The class of a value: `con20` for the most against, ..., `z`, ..., `pro20`; `na` for NaN."""
    if not math.isfinite(value):
        return NOT_ATTRIBUTED
    step = _step(value, largest)
    return _name(step if supports == "positive" else -step)


def neutral_class(value: float, largest: float) -> str:
    """The class of a value that neither supports nor opposes: `down20`, ..., `z`, ..., `up20`."""
    if not math.isfinite(value):
        return NOT_ATTRIBUTED
    return _name(_step(value, largest), "down", "up")


def terminal_style(value: float, largest: float, supports: Sign = "positive") -> str:
    """Ink on a cell of the light scale, for rich; none near zero, where sign and size are read."""
    if not math.isfinite(value) or largest <= 0 or abs(value) < _FAINT * largest:
        return "dim"
    share = max(-1.0, min(1.0, value / largest))
    cell = _between(_LIGHT, ((share if supports == "positive" else -share) + 1) / 2)
    return f"{_ink(cell)} on {_hex(cell)}"


def scale_classes(supports: Sign = "positive") -> tuple[str, ...]:
    """The classes from the most negative value to the most positive one."""
    names = tuple(_name(step) for step in range(-STEPS, STEPS + 1))
    return names if supports == "positive" else names[::-1]


def neutral_scale() -> tuple[str, ...]:
    """The classes of the neutral scale, from the most negative value to the most positive one."""
    return tuple(_name(step, "down", "up") for step in range(-STEPS, STEPS + 1))


def scale_css() -> str:
    """The rules of all classes, for light and dark."""
    light = f"{_rules(_LIGHT)}\n{_rules(_NEUTRAL_LIGHT, 'down', 'up')}"
    dark = f"{_rules(_DARK)}\n{_rules(_NEUTRAL_DARK, 'down', 'up')}"
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}"


def contrast(one: Rgb, other: Rgb) -> float:
    """Contrast ratio of two colours, from 1 to 21. Source: WCAG 2.2, section 1.4.3."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _step(value: float, largest: float) -> int:
    return round(STEPS * max(-1.0, min(1.0, value / largest))) if largest > 0 else 0


def _name(step: int, below: str = "con", above: str = "pro") -> str:
    return "z" if step == 0 else f"{above}{step}" if step > 0 else f"{below}{-step}"


def _rules(stops: tuple[str, ...], below: str = "con", above: str = "pro") -> str:
    lines = []
    for step in range(-STEPS, STEPS + 1):
        colour = _between(stops, (step + STEPS) / (2 * STEPS))
        name = _name(step, below, above)
        lines.append(f".{name}{{--cell:{_hex(colour)};--ink:{_ink(colour)}}}")
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
