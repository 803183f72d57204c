"""Curves over a model's layers as SVG, each with the band of its interval.

    accuracy = LayerLine("accuracy", (0, 1, 2), (0.5, 0.9, 1.0), low=(0.4, 0.8, 0.9), high=(...))
    chart = layer_chart([accuracy], y="balanced accuracy")

Layer by layer as in the other charts; the numbers stand in a table beside it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mechinterp.report.render.chart import (
    Curve,
    Frame,
    axes,
    line_classes,
    names_at_ends,
    short,
    svg,
)

_MOST_TICKS = 13


@dataclass(frozen=True)
class LayerLine:
    """Values by layer, with the interval of each if there is one; NaN: no value.

    `labels`: names of the layers where they are not their numbers. `is_chance`: a baseline
    to beat, drawn in grey.
    """

    name: str
    layers: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    is_chance: bool = False
    labels: tuple[str, ...] = ()

    @property
    def curve(self) -> Curve:
        """The line without its band."""
        return Curve(self.name, tuple(map(float, self.layers)), self.values, self.is_chance)

    def band(self) -> list[tuple[float, float, float]]:
        """Layer, lower and upper end, where there is an interval."""
        every = zip(map(float, self.layers), self.low, self.high, strict=False)
        return [each for each in every if all(map(math.isfinite, each))]


def layer_chart(
    lines: Sequence[LayerLine],
    *,
    y: str,
    x: str = "layer",
    y_range: tuple[float, float] | None = None,
) -> Markup:
    """All lines in one frame, each with its name at its end; `y` says what is measured, in what.

    `y_range`: the ends of the axis, such as 0 and 1 for a share; by default what the lines need,
    with zero.
    """
    lines = sorted((line for line in lines if line.curve.points), key=lambda one: not one.is_chance)
    curves = [line.curve for line in lines]
    seen = sorted({float(layer) for line in lines for layer in line.layers}) or [0.0]
    longest = max((len(line.name) for line in lines), default=0)
    room = min(230.0, max(142.0, 20 + 7.2 * longest))
    ends = [v for line in lines for v in (*line.values, *line.low, *line.high) if math.isfinite(v)]
    frame = Frame(
        430.0 + room, 320.0, 52.0, room, 14.0, 46.0, _around(seen), y_range or _with_zero(ends)
    )
    names = {
        float(at): label
        for line in lines
        for at, label in zip(line.layers, line.labels, strict=False)
    }
    every = max(1, math.ceil(len(seen) / _MOST_TICKS))
    shown = [(layer, names.get(layer, f"{layer:g}")) for layer in seen[::every]]
    parts = axes(frame, x, y, shown)
    colours = line_classes(curves)
    for line, colour in zip(lines, colours, strict=True):
        parts += _band(frame, line, colour)
    for line, colour in zip(lines, colours, strict=True):
        parts += _line(frame, line, colour, names)
    parts += names_at_ends(frame, curves, colours)
    return svg(frame, parts, f"{y} by {x}: {', '.join(line.name for line in lines)}")


def _band(frame: Frame, line: LayerLine, colour: str) -> list[Markup]:
    band = line.band()
    if not band:
        return []
    above = [f"{frame.x(layer)},{frame.y(high)}" for layer, _, high in band]
    below = [f"{frame.x(layer)},{frame.y(low)}" for layer, low, _ in reversed(band)]
    made = Markup('<polygon class="band {}" points="{}"><title>{}</title></polygon>')
    return [made.format(colour, " ".join(above + below), f"{line.name}: its interval")]


def _line(frame: Frame, line: LayerLine, colour: str, names: dict[float, str]) -> list[Markup]:
    points = line.curve.points
    drawn = Markup('<polyline class="curve {}" points="{}"><title>{}</title></polyline>')
    path = " ".join(f"{frame.x(layer)},{frame.y(value)}" for layer, value in points)
    mark = Markup('<circle class="mark {}" cx="{}" cy="{}" r="3"><title>{}</title></circle>')
    at = {layer: (low, high) for layer, low, high in line.band()}
    parts = [drawn.format(colour, path, line.name)]
    for layer, value in points:
        said = f"{line.name}, {names.get(layer, f'layer {layer:g}')}: {short(value)}"
        if layer in at:
            said += f" [{short(at[layer][0])}, {short(at[layer][1])}]"
        parts.append(mark.format(colour, frame.x(layer), frame.y(value), said))
    return parts


def _around(layers: Sequence[float]) -> tuple[float, float]:
    low, high = layers[0], layers[-1]
    return (low - 0.5, high + 0.5) if low == high else (low, high)


def _with_zero(values: Sequence[float]) -> tuple[float, float]:
    low, high = min([0.0, *values]), max([0.0, *values])
    margin = (high - low) / 20 or 1.0
    return (low - margin * (low < 0), high + margin)
