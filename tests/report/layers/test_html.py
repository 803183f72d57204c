"""The page of what was read by layer: text is text, and the charts and tables are all there."""

from mechinterp.report import layers_page
from mechinterp.report.layers.chart import LayerLine
from mechinterp.report.layers.html import Chart


def test_all_of_it_is_there_and_escaped():
    line = LayerLine("lens", (0, 1, 2), (0.0, 1.0, 3.0), (0.0, 0.5, 2.0), (0.0, 1.5, 4.0))
    html = layers_page(
        [Chart("<i>Lens</i>", "logits", (line,), note="a & b"), Chart("Norms", "norm", (line,))],
        title="Layers <script>x",
        sentences=["It leads after 2 layers."],
        notes=["made so"],
        tables={"By layer": [{"layers run": 0, "lens": -1.5}]},
        reading="Layer 0 is the embedding.",
    )
    assert html.count("<svg") == 2
    for shown in ("&lt;i&gt;Lens", "a &amp; b", "It leads after 2 layers.", "made so", "−1.5"):
        assert shown in html
    assert "<script>x" not in html
    assert "Layers &lt;script&gt;x" in html
    assert html.count('class="band') == 2
