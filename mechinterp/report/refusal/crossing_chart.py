"""The crossing as a picture: four squares, each a kind of request, with the scores of its families.

chart = crossing_chart(cells, over=0.0, does="refuses")

One picture without the cue and one with it. A square is the warmer, the more families are refused;
each dot is a family, to the right of the line where it is. The numbers stand in a table beside it.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

from mechinterp.report.refusal.crossing import Cell
from mechinterp.report.refusal.sentences import share
from mechinterp.report.render.chart import Frame, short, svg
from mechinterp.report.render.colours import colour_class

_WIDTH, _HEIGHT = 174.0, 118.0
_LEFT, _TOP, _GAP = 62.0, 30.0, 6.0
_ROWS = 4
"""Dots stand in so many rows, one after the other, so that few cover another."""


def crossing_chart(cells: Sequence[Cell], *, over: float, does: str, name: str) -> Markup:
    """Four cells, which differ in harm and trigger; `name` says what they have in common."""
    parts = []
    scores = [score for cell in cells for score in cell.scores]
    low, high = min([over, *scores]), max([over, *scores])
    margin = (high - low) / 20 or 1.0
    for cell in cells:
        left = _LEFT + (_WIDTH + _GAP) * cell.trigger
        top = _TOP + (_HEIGHT + _GAP) * (not cell.harm)
        parts.append(_square(cell, left, top, (low - margin, high + margin), over, does))
    text = Markup('<text class="name" x="{}" y="{}" text-anchor="{}">{}</text>')
    for place, label in enumerate(("without trigger", "with trigger")):
        middle = _LEFT + (_WIDTH + _GAP) * place + _WIDTH / 2
        parts.append(text.format(middle, _TOP - 10, "middle", label))
    for place, label in enumerate(("harmful", "benign")):
        middle = _TOP + (_HEIGHT + _GAP) * place + _HEIGHT / 2
        parts.append(text.format(_LEFT - 8, middle + 4, "end", label))
    width, height = _LEFT + 2 * _WIDTH + _GAP + 2, _TOP + 2 * _HEIGHT + _GAP + 2
    said = "; ".join(f"{cell.name}: {_of(cell)}" for cell in cells)
    whole = (0.0, 1.0)
    return svg(Frame(width, height, 0.0, 0.0, 0.0, 0.0, whole, whole), parts, f"{name}: {said}")


def _square(
    cell: Cell, left: float, top: float, ends: tuple[float, float], over: float, does: str
) -> Markup:
    """One cell: its share, what the rule foretells, and a dot for each family along the score."""
    frame = Frame(_WIDTH, _HEIGHT, 10.0, 10.0, 66.0, 12.0, ends, (0.0, _ROWS - 1.0))
    wrong = cell.scores and cell.foretold is not None and cell.foretold != (cell.share > 0.5)
    made = [
        Markup('<rect class="square{}" width="{}" height="{}" rx="6"/>').format(
            " wrong" if wrong else "", _WIDTH, _HEIGHT
        ),
        _text("share", 32.0, share(cell.share) if cell.scores else "no such request"),
    ]
    if cell.scores:
        n = len(cell.scores)
        n_over = sum(score > over for score in cell.scores)
        made.append(_text("count", 50.0, f"{n_over} of {n} families"))
        at = frame.x(over)
        made.append(
            Markup('<line class="over" x1="{0}" y1="58" x2="{0}" y2="{1}"/>').format(
                at, _HEIGHT - 6
            )
        )
    if cell.foretold is not None:
        made.append(
            Markup('<text class="said" x="{}" y="18" text-anchor="end">{}</text>').format(
                _WIDTH - 10, f"rule: {does if cell.foretold else 'does not'}"
            )
        )
    for place, (family, score) in enumerate(zip(cell.families, cell.scores, strict=True)):
        made.append(
            Markup(
                '<circle class="family" cx="{}" cy="{}" r="3.2"><title>{}</title></circle>'
            ).format(frame.x(score), frame.y(float(place % _ROWS)), f"{family}: {short(score)}")
        )
    colour = colour_class(cell.share if math.isfinite(cell.share) else 0.0, 1.0)
    return Markup('<g class="cell {}" transform="translate({} {})">{}</g>').format(
        colour, left, top, Markup("").join(made)
    )


def _text(kind: str, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="10" y="{}">{}</text>').format(kind, y, text)


def _of(cell: Cell) -> str:
    return f"{share(cell.share)} of {len(cell.scores)}" if cell.scores else "no such request"
