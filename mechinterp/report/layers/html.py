"""Figures layer by layer as one HTML file: charts with bands, and the numbers in tables.

    chart = Chart("Logit lens", "logits", (LayerLine("logit lens", ...),), "What each layer says.")
    Path("layers.html").write_text(layers_page([chart], title="Layers"), encoding="utf-8")

Charts are drawn here, so that the page needs no script to be read; hover a point for its numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.report.layers.chart import LayerLine, layer_chart
from mechinterp.report.render.page_shell import page
from mechinterp.report.render.tables import Rows, captioned


@dataclass(frozen=True)
class Chart:
    """Curves in one frame. `measure`: what the values are, in what unit; `note`: how to read it.

    `y_range`: the ends of the axis; by default what the values need.
    """

    heading: str
    measure: str
    lines: tuple[LayerLine, ...]
    note: str = ""
    y_range: tuple[float, float] | None = None
    x: str = "layer"


@checks_arguments
def layers_page(
    charts: Sequence[Chart],
    *,
    title: str,
    eyebrow: Sequence[str] = (),
    sentences: Sequence[str] = (),
    notes: Sequence[str] = (),
    tables: Mapping[str, Rows] | None = None,
    reading: str = "",
) -> str:
    """The whole page: what was found in `sentences`, charts, tables, notes; `reading` at the end.

    `eyebrow`: the model, the prompts and so on, in a line above the title.
    """
    drawn = [
        {
            "heading": escape(chart.heading),
            "note": escape(chart.note),
            "svg": layer_chart(chart.lines, y=chart.measure, x=chart.x, y_range=chart.y_range),
        }
        for chart in charts
    ]
    return page(
        "layers.html",
        ["page.css", "layers.css"],
        [],
        title=title,
        payload={},
        eyebrow=[escape(each) for each in eyebrow],
        sentences=[escape(each) for each in sentences],
        charts=drawn,
        tables=captioned(tables),
        notes=[escape(note) for note in notes],
        reading=escape(reading),
    )
