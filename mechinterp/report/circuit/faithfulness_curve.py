"""How faithful circuits of several sizes are: a curve over the share of the edges that they keep.

The chart has the share on a log axis, from the smallest circuit to the whole model; its numbers
stand in a table beside it. Not a search: the circuits were evaluated before.

    read = read_faithfulness_curves({"EAP": faithfulness(between, circuits)}, graph.n_edges)
    chart = faithfulness_chart(read)
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from markupsafe import Markup

from mechinterp.core.printable import escape
from mechinterp.report.render.chart import Curve, Frame, axes, line_classes, names_at_ends, svg
from mechinterp.report.render.numbers import NumberFormat

_NEEDED = ("edges", "faithfulness")
_DECADE = (1, 2, 5)
_RATIO = NumberFormat("+.2f")


@dataclass(frozen=True)
class FaithfulnessPoint:
    """One circuit: how many of the edges it keeps, and how faithful it is; NaN: no interval."""

    circuit: str
    requested: int
    edges: int
    share: float
    faithfulness: float
    low: float
    high: float

    @property
    def has_interval(self) -> bool:
        """Whether both ends are there."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def interval(self) -> str:
        """Both ends, or nothing."""
        return f"{_ratio(self.low)} to {_ratio(self.high)}" if self.has_interval else ""

    @property
    def value(self) -> str:
        """Its faithfulness, two digits after the point."""
        return _ratio(self.faithfulness)


@dataclass(frozen=True)
class FaithfulnessCurve:
    """Circuits of one kind, the smallest first."""

    name: str
    points: tuple[FaithfulnessPoint, ...]

    @property
    def drawn(self) -> list[FaithfulnessPoint]:
        """Those that have a place on a log axis."""
        return [p for p in self.points if p.edges > 0 and math.isfinite(p.faithfulness)]


def read_faithfulness_curves(
    curves: Mapping[str, xr.Dataset], n_edges: int
) -> tuple[FaithfulnessCurve, ...]:
    """Each result of `mechinterp.circuits.faithfulness`, by name; `n_edges`: of the whole graph.

    Raises:
        ValueError: if one is no such result.
    """
    return tuple(
        FaithfulnessCurve(escape(name), _points(name, f, n_edges)) for name, f in curves.items()
    )


def faithfulness_chart(curves: Sequence[FaithfulnessCurve]) -> Markup:
    """The curves with their intervals as bands; the lines at 0 and 1 are no edge and the model."""
    curves = [curve for curve in curves if curve.drawn]
    lines = [
        Curve(
            curve.name,
            tuple(math.log10(point.share) for point in curve.drawn),
            tuple(point.faithfulness for point in curve.drawn),
        )
        for curve in curves
    ]
    last = max((x for line in lines for x in line.xs), default=0.0)
    first = min([last - 1.0, *(x for line in lines for x in line.xs)])
    margin = max(0.04 * (last - first), 0.05)
    frame = Frame(
        620.0,
        330.0,
        52.0,
        min(190.0, max(60.0, 30 + 7.2 * max((len(line.name) for line in lines), default=0))),
        14.0,
        46.0,
        (first - margin, last + margin),
        _y_range(curves),
    )
    x_ticks = list(_log_ticks(first - margin, last + margin))
    parts = axes(frame, "edges kept, share of all (log scale)", "faithfulness", x_ticks)
    right = frame.width - frame.right
    parts.append(
        Markup('<line class="whole" x1="{0}" y1="{2}" x2="{1}" y2="{2}"/>').format(
            frame.left, right, frame.y(1.0)
        )
    )
    colours = line_classes(lines)
    for curve, colour in zip(curves, colours, strict=True):
        parts += _band(frame, curve, colour)
    for curve, line, colour in zip(curves, lines, colours, strict=True):
        points = " ".join(f"{frame.x(x)},{frame.y(y)}" for x, y in line.points)
        drawn = Markup('<polyline class="curve {}" points="{}"/>').format(colour, points)
        parts += [drawn, *_marks(frame, curve, colour)]
    parts += names_at_ends(frame, lines, colours)
    names = ", ".join(line.name for line in lines)
    return svg(frame, parts, f"faithfulness against the share of edges kept: {names}")


def _points(name: str, found: xr.Dataset, n_edges: int) -> tuple[FaithfulnessPoint, ...]:
    missing = [key for key in _NEEDED if key not in found or found[key].dims != ("circuit",)]
    if missing:
        raise ValueError(
            f"the curve {name!r} has no {' and no '.join(missing)} along the dim 'circuit', only "
            f"{', '.join(map(str, found.variables))}. Pass what "
            "mechinterp.circuits.faithfulness gives."
        )
    nothing = np.full(found.sizes["circuit"], math.nan)
    low, high = (found[end].values if end in found else nothing for end in ("low", "high"))
    asked = found["requested" if "requested" in found else "edges"].values
    labels = found["circuit"].values if "circuit" in found.coords else range(len(nothing))
    columns = (labels, asked, found["edges"].values, found["faithfulness"].values, low, high)
    points = [
        FaithfulnessPoint(
            escape(str(label)), int(n), int(edges), int(edges) / n_edges, *map(float, numbers)
        )
        for label, n, edges, *numbers in zip(*columns, strict=True)
    ]
    return tuple(sorted(points, key=lambda point: (point.edges, point.requested)))


def _y_range(curves: Sequence[FaithfulnessCurve]) -> tuple[float, float]:
    """From the least to the most, 0 and 1 too; wide intervals reach out of it by half."""
    values = [0.0, 1.0, *(point.faithfulness for curve in curves for point in curve.drawn)]
    low, high = min(values), max(values)
    room = (high - low) / 2
    ends = [e for c in curves for p in c.drawn if p.has_interval for e in (p.low, p.high)]
    low = max(low - room, min([low, *ends]))
    high = min(high + room, max([high, *ends]))
    margin = (high - low) / 20
    return low - margin, high + margin


def _log_ticks(low: float, high: float) -> Iterator[tuple[float, str]]:
    """Each power of ten, and 2 and 5 times it where these are few."""
    several = _DECADE if high - low < 2 else _DECADE[:1]
    for power in range(math.floor(low), math.ceil(high) + 1):
        for times in several:
            place = power + math.log10(times)
            if low <= place <= high:
                yield place, f"{100 * 10.0**place:.3g}%"


def _band(frame: Frame, curve: FaithfulnessCurve, colour: str) -> Iterator[Markup]:
    """From low to high, where there are intervals, cut off at the frame."""
    points = [point for point in curve.drawn if point.has_interval]
    if len(points) < 2:
        return
    low, high = frame.y_range
    inside = [
        (frame.x(math.log10(p.share)), *(frame.y(min(high, max(low, e))) for e in (p.low, p.high)))
        for p in points
    ]
    outline = [(x, y) for x, y, _ in inside] + [(x, y) for x, _, y in reversed(inside)]
    corners = " ".join(f"{x},{y}" for x, y in outline)
    yield Markup('<polygon class="band {}" points="{}"/>').format(colour, corners)


def _marks(frame: Frame, curve: FaithfulnessCurve, colour: str) -> Iterator[Markup]:
    """A dot for each circuit, with a wide target for the pointer."""
    for point in curve.drawn:
        at = frame.x(math.log10(point.share)), frame.y(point.faithfulness)
        said = f" ({point.interval})" if point.has_interval else ""
        asked = "" if point.requested == point.edges else f", {point.requested:,} requested"
        yield Markup(
            '<g class="point"><circle class="mark {0}" cx="{1}" cy="{2}" r="3.2"/>'
            '<circle class="target" cx="{1}" cy="{2}" r="9"><title>{3}</title></circle></g>'
        ).format(
            colour,
            *at,
            f"{curve.name}, {point.circuit}: {point.value}{said} with "
            f"{point.edges:,} edges, {share_text(point.share)}{asked}",
        )


def _ratio(value: float) -> str:
    return _RATIO(value).lstrip("+")


def share_text(share: float) -> str:
    """A share in per cent with three digits, however small."""
    return f"{100 * share:.3g}%" if share >= 1e-6 or share == 0 else f"{100 * share:.1e}%"
