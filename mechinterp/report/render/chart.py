"""Charts as SVG, drawn here: points in a plane, and curves with their names at their ends.

Colours are classes (`c0`, `c1`, ...) that the style sheet fills, for light and for dark; every text
is escaped. Numbers are in a table beside a chart: it is for the eye.

    chart = scatter([Dot(0.5, 1.5, "␣Mary", True)], x="delete, nats", y="replace, nats")
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mechinterp.core.printable import printable
from mechinterp.report.render.numbers import MINUS

N_COLOURS = 8

_CHARACTER = 7.2  # width of a character of a label
_LINE = 14.5


@dataclass(frozen=True)
class Dot:
    """A point. Its name shows on hover, and beside it if `is_named` and there is room."""

    x: float
    y: float
    name: str
    is_named: bool


@dataclass(frozen=True)
class Curve:
    """Points in order of x; NaN: no point. `is_chance`: a baseline to beat, drawn in grey."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    is_chance: bool = False

    @property
    def points(self) -> list[tuple[float, float]]:
        """The points that have a value."""
        return [(x, y) for x, y in zip(self.xs, self.ys, strict=True) if math.isfinite(y)]


@dataclass(frozen=True)
class Frame:
    """A plane with its scales, data to pixels, and the room on its four sides."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        room = self.width - self.left - self.right
        return round(self.left + room * (value - low) / (high - low), 1)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y_range
        room = self.height - self.top - self.bottom
        return round(self.height - self.bottom - room * (value - low) / (high - low), 1)


def scatter(dots: Sequence[Dot], *, x: str, y: str) -> Markup:
    """Points in a plane with both axes through zero; `x` and `y` say what the axes are."""
    frame = Frame(
        360.0,
        310.0,
        50.0,
        16.0,
        14.0,
        46.0,
        _range([d.x for d in dots]),
        _range([d.y for d in dots]),
    )
    parts = [*axes(frame, x, y)]
    taken: list[tuple[float, float, float]] = []
    for dot in dots:
        place = (frame.x(dot.x), frame.y(dot.y))
        parts.append(
            Markup('<circle class="dot{}" cx="{}" cy="{}" r="4"><title>{}</title></circle>').format(
                " named" if dot.is_named else "",
                *place,
                f"{dot.name}: {short(dot.x)}, {short(dot.y)}",
            )
        )
    for dot in dots:
        if dot.is_named and (label := _label(frame, dot, taken)):
            parts.append(label)
    return svg(frame, parts, f"{y} against {x}")


def curves(lines: Sequence[Curve], *, x: str, y: str) -> Markup:
    """Curves over a share from 0 to 1, each with its name at its end."""
    lines = sorted((line for line in lines if line.points), key=lambda line: not line.is_chance)
    longest = max((len(line.name) for line in lines), default=0)
    room = min(230.0, max(142.0, 20 + _CHARACTER * longest))
    frame = Frame(
        278.0 + room,
        300.0,
        48.0,
        room,
        14.0,
        46.0,
        (0.0, 1.0),
        _range([y for line in lines for y in line.ys]),
    )
    parts = [*axes(frame, x, y)]
    colours = line_classes(lines)
    for line, colour in zip(lines, colours, strict=True):
        parts.append(
            Markup('<polyline class="curve {}" points="{}"><title>{}</title></polyline>').format(
                colour, " ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in line.points), line.name
            )
        )
        parts += [
            Markup(
                '<circle class="mark {}" cx="{}" cy="{}" r="3"><title>{}</title></circle>'
            ).format(colour, frame.x(x), frame.y(y), f"{line.name}: {short(y)} at {short(x)}")
            for x, y in line.points
        ]
    parts += names_at_ends(frame, lines, colours)
    return svg(frame, parts, f"{y} against {x}: {', '.join(line.name for line in lines)}")


def line_classes(lines: Sequence[Curve]) -> list[str]:
    """A class for each curve: its colour, dashed where the colours start again; grey by chance."""
    names: list[str] = []
    for line in lines:
        n = sum(not name.startswith("chance") for name in names)
        n_chance = len(names) - n
        if line.is_chance:
            names.append("chance dashed" if n_chance % 2 else "chance")
        else:
            names.append(f"c{n % N_COLOURS}" + (" dashed" if n // N_COLOURS % 2 else ""))
    return names


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Round numbers at equal steps, three to seven of them, within a range."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(number * step for number in range(first, last + 1))


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values and zero, with a margin on both sides."""
    finite = [0.0, *(value for value in values if math.isfinite(value))]
    low, high = min(finite), max(finite)
    if low == high:
        return (0.0, 1.0)
    margin = (high - low) / 20
    return low - margin, high + margin


def axes(
    frame: Frame, x: str, y: str, x_ticks: Sequence[tuple[float, str]] | None = None
) -> list[Markup]:
    """Rules, ticks and names of both axes; `x_ticks`: places and texts, if not round numbers."""
    parts = []
    bottom, left = frame.height - frame.bottom, frame.left
    right = frame.width - frame.right
    line = Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    text = Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>')
    if x_ticks is None:
        x_ticks = [(tick, short(tick)) for tick in ticks(*frame.x_range)]
    for tick, name in x_ticks:
        at = frame.x(tick)
        parts.append(line.format("zero" if name == "0" else "rule", at, frame.top, at, bottom))
        parts.append(text.format(at, bottom + 16, "middle", name))
    for tick in ticks(*frame.y_range):
        at = frame.y(tick)
        parts.append(line.format("zero" if tick == 0 else "rule", left, at, right, at))
        parts.append(text.format(left - 6, at + 4, "end", short(tick)))
    middle, half = (left + right) / 2, (frame.top + bottom) / 2
    title = Markup('<text class="axis-name" x="{}" y="{}" text-anchor="middle"{}>{}</text>')
    turned = Markup(' transform="rotate(-90 12 {})"').format(half)
    parts.append(title.format(middle, frame.height - 8, "", _fitted(x, right - left)))
    parts.append(title.format(12, half, turned, _fitted(y, bottom - frame.top)))
    return parts


def _label(frame: Frame, dot: Dot, taken: list[tuple[float, float, float]]) -> Markup | None:
    """The name of a dot, on the side with room; none if it would cover another name."""
    x, y = frame.x(dot.x), frame.y(dot.y)
    width = _CHARACTER * len(dot.name)
    for anchor, start in (("start", x + 7), ("end", x - 7 - width)):
        inside = frame.left <= start and start + width <= frame.width - 2
        covers = any(
            abs(y - y2) < _LINE and start < end2 and start2 < start + width
            for start2, end2, y2 in taken
        )
        if inside and not covers:
            taken.append((start, start + width, y))
            at = x + 7 if anchor == "start" else x - 7
            return Markup('<text class="name" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                round(at, 1), y + 4, anchor, dot.name
            )
    return None


def names_at_ends(frame: Frame, lines: Sequence[Curve], colours: Sequence[str]) -> list[Markup]:
    """The name of each curve at its end, moved down or up so that none covers another."""
    ends = sorted((frame.y(line.points[-1][1]), i) for i, line in enumerate(lines))
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y, places[-1] + _LINE) if places else max(y, frame.top))
    for n in reversed(range(len(places))):
        bottom = frame.height - frame.bottom
        places[n] = min(places[n], places[n + 1] - _LINE if n + 1 < len(places) else bottom)
    edge = frame.width - frame.right
    parts = []
    for place, (y, i) in zip(places, ends, strict=True):
        parts.append(
            Markup(
                '<path class="to-name {0}" d="M{1} {2}L{3} {4}"/>'
                '<path class="curve {0}" d="M{3} {4}h12"/>'
            ).format(
                colours[i],
                *(round(frame.x(lines[i].points[-1][0]) + 5, 1), y),
                *(edge, round(place, 1)),
            )
        )
        parts.append(
            Markup('<text class="name" x="{}" y="{}">{}</text>').format(
                edge + 17, round(place + 4, 1), _fitted(lines[i].name, frame.right - 17)
            )
        )
    return parts


def _fitted(name: str, width: float) -> str:
    most = int(width / _CHARACTER)
    return name if len(name) <= most else name[: most - 1] + "…"


def short(value: float) -> str:
    """Three digits, or the whole part of a large number; a proper minus sign."""
    digits = ".0f" if 1e3 <= abs(value) < 1e6 else ".3g"
    return f"{value:{digits}}".replace("-", MINUS) if value else "0"


def svg(frame: Frame, parts: Sequence[Markup], name: str) -> Markup:
    """The drawing, with a label for screen readers."""
    drawn = Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(int(frame.width), int(frame.height), name, Markup("").join(parts))
    return Markup(printable(drawn))
