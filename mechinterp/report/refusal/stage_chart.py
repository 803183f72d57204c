"""The stages as a strip by layer: where harm is detected, what routes it, where it is expressed.

stage_chart(study.stages)
"""

import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from mechinterp.refusal.findings import Stages
from mechinterp.report.refusal.sentences import routes
from mechinterp.report.render.chart import Frame, short, svg
from mechinterp.report.render.colours import neutral_class

_WIDTH, _LEFT, _ROW, _TOP, _BOX = 460.0, 4.0, 62.0, 6.0, 26.0
_MOST_NAMES = 12


def stage_chart(found: Stages) -> Markup:
    """Three rows of boxes, one a layer; a broken line where the route is cut."""
    routed = _by_layer([part for parts in routes(found).values() for part in parts])
    tested = {test.layer for test in found.directions}
    detected = [int(layer) for layer in found.detection["layer"].values.tolist()]
    parts_there = {layer_of(str(part)) for part in found.routing["part"].values.tolist()}
    layers = sorted({*detected, *routed, *tested, *(n for n in parts_there if n is not None)}) or [
        0
    ]
    step = (_WIDTH - 2 * _LEFT) / len(layers)
    at = {layer: _LEFT + step * n for n, layer in enumerate(layers)}
    parts = []
    for row, (heading, boxes) in enumerate(
        (
            (_detection(found), _detected(found)),
            (
                _routing(found),
                {n: ("up14", ", ".join(dict.fromkeys(names))) for n, names in routed.items()},
            ),
            (_expression(found), _expressed(found)),
        )
    ):
        top = _TOP + _ROW * row
        parts.append(
            Markup('<text class="name" x="{}" y="{}">{}</text>').format(_LEFT, top + 14, heading)
        )
        for layer in layers:
            colour, said = boxes.get(layer, ("", "nothing"))
            box = (
                '<rect class="box {}" x="{}" y="{}" width="{}" height="{}" rx="3"><title>{}</title>'
            )
            parts.append(
                Markup(box + "</rect>").format(
                    colour,
                    round(at[layer] + 1, 1),
                    top + 21,
                    round(step - 2, 1),
                    _BOX,
                    f"layer {layer}: {said}",
                )
            )
    if found.cut:
        parts += _cut(found.cut)
    bottom = _TOP + 3 * _ROW
    every = max(1, -(-len(layers) // _MOST_NAMES))
    for layer in layers[::every]:
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                round(at[layer] + step / 2, 1), bottom + 4, layer
            )
        )
    parts.append(
        Markup('<text class="axis-name" x="{}" y="{}" text-anchor="middle">layer</text>').format(
            _WIDTH / 2, bottom + 22
        )
    )
    whole = (0.0, 1.0)
    name = "; ".join((_detection(found), _routing(found), _expression(found)))
    name += f"; cut between {found.cut}" if found.cut else ""
    return svg(Frame(_WIDTH, bottom + 28, 0.0, 0.0, 0.0, 0.0, whole, whole), parts, name)


def layer_of(part: str) -> int | None:
    """The layer of a part such as "L3H2"; None if its name has none.

    >>> layer_of("L3.mlp")
    3
    """
    found = re.match(r"L(\d{1,6})(?!\d)", part)
    return int(found[1]) if found else None


def _by_layer(parts: Sequence[str]) -> Mapping[int, list[str]]:
    found: dict[int, list[str]] = {}
    for part in parts:
        if (layer := layer_of(part)) is not None:
            found.setdefault(layer, []).append(part)
    return found


def _detection(found: Stages) -> str:
    if found.detected_at is None:
        return "1 Detection: at no layer"
    return f"1 Detection: from layer {found.detected_at} on"


def _routing(found: Stages) -> str:
    n = len({part for parts in routes(found).values() for part in parts})
    return f"2 Routing: {n or 'no'} {'part' if n == 1 else 'parts'}"


def _expression(found: Stages) -> str:
    if found.expressed_at is None:
        return "3 Expression: no direction"
    return f"3 Expression: a direction at layer {found.expressed_at}"


def _detected(found: Stages) -> dict[int, tuple[str, str]]:
    """The AUROC of each layer from where harm is detected, as a colour from 0.5 to 1."""
    boxes = {}
    for layer in map(int, found.detection["layer"].values.tolist()):
        auroc = float(found.detection["auroc"].sel(layer=layer))
        is_on = found.detected_at is not None and layer >= found.detected_at
        colour = neutral_class(max(0.0, auroc - 0.5), 0.5) if is_on else "below"
        boxes[layer] = (colour, f"AUROC {short(auroc)}")
    return boxes


def _expressed(found: Stages) -> dict[int, tuple[str, str]]:
    boxes: dict[int, tuple[str, str]] = {}
    for test in sorted(found.directions, key=lambda one: one.works):
        said = f"{test.driver}, {test.contrast} contrast, "
        said += "works" if test.works else "does not work"
        boxes[test.layer] = ("up14" if test.works else "tested", said)
    return boxes


def _cut(between: str) -> list[Markup]:
    row = 2 if "expression" in between and "detection" not in between else 1
    y = _TOP + _ROW * row - 5
    line = Markup('<line class="cut" x1="0" y1="{0}" x2="{1}" y2="{0}"/>').format(y, _WIDTH)
    text = Markup('<text class="cut-name" x="{}" y="{}" text-anchor="end">cut here</text>')
    return [line, text.format(_WIDTH - 4, y + 15)]
