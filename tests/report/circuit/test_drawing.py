"""The drawing of a circuit: it draws the edges that it is given, by hand and by key."""

import numpy as np
import pytest

from mechinterp.circuits import Circuit, EdgeScores, Graph
from mechinterp.report import circuit_page, show

WIDTHS = pytest.mark.parametrize("width", [1280, 400])
PLAIN = Graph(3, 4, 4, True, False)
GRAPHS = ["plain", "positions", "shared keys", "parallel", "attention only", "many heads"]
TOKENS = ["<s>", "Mary", "</script><script>window.pwned=1</script>", "\n", " gave"]


def listed(page, name, number) -> dict[str, float]:
    rows = page.locator(f"#p-{name} tr").all()
    return {
        row.locator("button").text_content(): number(row.locator("td").text_content())
        for row in rows
    }


@WIDTHS
@pytest.mark.parametrize("name", GRAPHS)
def test_page_draws_all_edges_asks_for_nothing_and_fits(
    open_page, name, width, scored, strongest, curve, n_drawn, slide, graphs
):
    scores = scored(graphs[name])
    circuit = strongest(scores, 9)
    html = circuit_page(scores, circuit, title="x", curves={"a": curve()})
    opened = open_page(html, width=width)
    page = opened.page
    assert n_drawn(page) == 9
    assert page.locator("#shown").text_content().startswith("9 of 9 ")
    page.get_by_text("All scored edges").click()
    slide(page, 1000)
    assert n_drawn(page) == scores.graph.n_edges
    assert (opened.requests, opened.complaints) == ([opened.url], [])
    assert page.evaluate("document.documentElement.scrollWidth") == width
    spots = page.locator("#drawing .node:not(.off) .box").evaluate_all(
        "boxes => boxes.map(b => b.getBoundingClientRect()).map(b => [b.x, b.y, b.right, b.bottom])"
    )
    order = sorted(spots)
    for i, (_, y, right, bottom) in enumerate(order):
        for x2, y2, _, bottom2 in order[i + 1 :]:
            assert x2 >= right or y2 >= bottom or bottom2 <= y, "two nodes cover each other"


def test_circuit_without_scores_is_drawn(open_page, n_drawn):
    empty = EdgeScores.from_array(PLAIN, np.full((*PLAIN.edges.shape, 2), np.nan))
    circuit = Circuit.from_edges(PLAIN, ["input->a0.h1<q>", "a0.h1->logits"])
    opened = open_page(circuit_page(empty, circuit, title="x"))
    assert opened.complaints == []
    assert n_drawn(opened.page) == 2
    assert opened.page.locator("#drawing .edge.none").count() > 0


def test_writers_stand_below_their_readers(open_page, scored, graphs):
    for graph in graphs.values():
        page = open_page(circuit_page(scored(graph), Circuit.full(graph), title="x")).page
        rises = page.locator("#drawing .edges .edge").evaluate_all(
            """paths => paths.flatMap(p => p.getAttribute("d").split("M").slice(1).map(one => {
              const all = one.match(/-?[\\d.]+/g).map(Number);
              return all[1] - all[7];
            }))"""
        )
        assert len(rises) == graph.n_edges
        assert min(rises) > 0


def test_slider_shows_the_strongest(open_page, html, found, number, n_drawn, slide):
    page = open_page(html).page
    slide(page, 0)
    assert n_drawn(page) == 1
    least = abs(found[0].strongest(1)[0][1])
    text = page.locator("#shown").text_content()
    assert text.startswith("1 of 20 · |score| ≥ ")
    assert number(text.split("≥ ")[1]) == pytest.approx(least, rel=0.06)
    assert page.locator("#drawing .node:not(.off)").count() == 2
    counts = []
    for value in range(0, 1001, 100):
        slide(page, value)
        counts.append(n_drawn(page))
    assert counts == sorted(counts)
    assert counts[-1] == 20
    page.get_by_text("All scored edges").click()
    assert n_drawn(page) == min(PLAIN.n_edges, 200)
    page.get_by_text("The circuit", exact=True).click()
    assert n_drawn(page) == 20


def test_pointer_on_an_edge_names_it(open_page, number, scored, n_drawn):
    scores = scored(PLAIN)
    html = circuit_page(scores, Circuit.from_edges(PLAIN, ["a0.h1->a2.h3<k>"]), title="x")
    page = open_page(html).page
    x, y = page.locator("#drawing .edges .edge").evaluate(
        """path => {
          const at = path.getPointAtLength(path.getTotalLength() / 2);
          const box = path.ownerSVGElement.getBoundingClientRect();
          return [box.x + at.x, box.y + at.y];
        }"""
    )
    page.mouse.move(x + 3, y)
    said = page.locator("#tip").text_content()
    assert "a0.h1 → a2.h3<k>" in said
    assert number(page.locator("#tip .num").first.text_content()) == pytest.approx(
        scores["a0.h1->a2.h3<k>"], abs=6e-4
    )
    assert "in the circuit" in said
    assert n_drawn(page, "lit") == 1
    page.mouse.move(x + 40, y + 30)
    assert page.locator("#tip").is_hidden()
    assert n_drawn(page, "lit") == 0


def test_click_pins_a_node_and_lists_its_edges(open_page, html, found, number, n_drawn, node):
    scores, circuit = found
    page = open_page(html).page
    name = circuit.heads[-1]
    name = f"a{name[0]}.h{name[1]}"
    node(page, name).click()
    assert page.locator("#p-name").text_content() == name
    out = {
        edge.split("->")[1]: scores[edge] for edge in circuit.names if edge.startswith(f"{name}->")
    }
    into = {
        f"{writer} as {reader[-2]}": scores[f"{writer}->{reader}"]
        for writer, reader in (edge.split("->") for edge in circuit.names)
        if reader.startswith(f"{name}<")
    }
    for shown, known in ((listed(page, "out", number), out), (listed(page, "in", number), into)):
        assert shown == pytest.approx(known, abs=6e-4)
        assert list(shown) == sorted(known, key=lambda edge: -abs(known[edge]))
    page.mouse.move(5, 5)
    assert n_drawn(page, "lit") == len(out) + len(into)
    page.locator("#p-in button, #p-out button").first.click()
    assert page.locator("#p-name").text_content() != name
    page.keyboard.press("Escape")
    assert page.locator("#pinned").is_hidden()
    page.mouse.move(5, 5)
    assert n_drawn(page, "lit") == 0


def test_keyboard_alone_reaches_nodes_and_pins_them(open_page, html):
    page = open_page(html).page
    press = page.keyboard.press
    for _ in range(12):
        press("Tab")
        if page.evaluate("document.activeElement.matches('.node')"):
            break
    seen = set()
    for key in ["ArrowUp"] * 9 + ["ArrowDown", "ArrowLeft", "ArrowRight", "ArrowDown"]:
        press(key)
        seen.add(page.evaluate("document.activeElement.textContent"))
    assert "logits" in seen
    assert len(seen) > 3
    assert page.locator("#drawing .node[tabindex='0']").count() == 1
    assert not page.locator("#tip").is_hidden()
    press("Enter")
    assert page.locator("#p-name").text_content() == page.evaluate(
        "document.activeElement.textContent"
    )
    press("Escape")
    assert page.locator("#pinned").is_hidden()


def test_attention_of_a_head_is_shown_with_its_tokens(
    open_page, html, found, number, attention, node
):
    patterns = attention(PLAIN, 5)
    opened = open_page(html)
    page = opened.page
    layer, head = found[1].heads[0]
    node(page, f"a{layer}.h{head}").click()
    weights = page.locator(".pattern-svg .weight")
    assert weights.count() == 15
    weights.nth(4).hover()  # query 2, key 1
    said = page.locator("#pattern-at").text_content()
    assert said.startswith(f"from {show(TOKENS[2])} (2) to Mary (1): ")
    assert number(said.split(": ")[1]) == pytest.approx(
        float(patterns[layer, head, 2, 1]), abs=6e-4
    )
    page.locator("#pattern-map").focus()
    page.keyboard.press("ArrowLeft")
    assert "(2) to <s> (0)" in page.locator("#pattern-at").text_content()
    assert page.evaluate("window.pwned") is None
    assert opened.complaints == []
    node(page, "m0").or_(node(page, "m1")).first.click()
    assert page.locator("#pattern").is_hidden()


def test_positions_are_columns(open_page, scored, graphs):
    graph = graphs["positions"]
    edges = ["input->a1.h2<v>@S2", "a1.h2->logits@end", "input->m1@elsewhere"]
    page = open_page(circuit_page(scored(graph), Circuit.from_edges(graph, edges), title="x")).page
    labels = page.locator("#drawing .back .tick").all_text_contents()
    assert [label for label in labels if not label.isdigit()] == list(graph.positions)
    columns = page.locator("#drawing .node:not(.off)").evaluate_all(
        "nodes => nodes.map(n => [n.textContent, n.getBoundingClientRect().x])"
    )
    places = {}
    for name, x in columns:
        places.setdefault(name, []).append(x)
    read, wrote = sorted(places["a1.h2"])
    assert min(places["input"]) < wrote
    assert read < min(places["logits"])
    assert page.locator("#drawing .move").get_attribute("d").count("M") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("supports", ["positive", "negative"])
def test_edges_are_warm_for_support_and_cold_against_it(open_page, found, scheme, supports):
    scores, circuit = found
    table = scores.per_pair if supports == "positive" else -scores.per_pair
    table = table.assign_attrs(scores.per_pair.attrs, supports=supports)
    html = circuit_page(EdgeScores(PLAIN, table), circuit, title="x")
    page = open_page(html, color_scheme=scheme).page
    warmth = {}
    for look in ("supports", "against"):
        red, _, blue = page.locator(f"#drawing .edges .edge.{look}").first.evaluate(
            "path => getComputedStyle(path).stroke.match(/\\d+/g).map(Number)"
        )[:3]
        warmth[look] = red - blue
    assert warmth["supports"] > 60 > -60 > warmth["against"]
    means = [score for _, score in scores.strongest(40)]  # of the positive convention
    page.locator("#filter").fill("a")
    page.locator("#filter").fill("")  # now the script has drawn the rows
    bars = page.locator("#strongest .bar rect:nth-child(2)").evaluate_all(
        "bars => bars.map(bar => bar.getAttribute('class'))"
    )
    assert bars == ["supports" if mean > 0 else "against" for mean in means]
    n_against = sum(mean < 0 for mean in means[:20])
    assert f"{20 - n_against} support the metric and {n_against} work" in html
    assert f"{supports.capitalize()}: the edge supports the metric." in html


def test_drawing_can_be_saved_as_a_file_of_its_own(open_page, html, browser):
    opened = open_page(html)
    with opened.page.expect_download() as download:
        opened.page.locator("#save").click()
    saved = download.value.path().read_text(encoding="utf-8")
    assert saved.startswith("<svg")
    assert "var(--" not in saved
    assert saved.count("<text") > 10
    assert opened.complaints == []
    page = browser.new_page()
    page.set_content(saved)
    assert page.locator("svg").bounding_box()["width"] > 300
    page.close()


COUNT = """selector => {
  window.counted = { added: 0, removed: 0 };
  new MutationObserver(changes => changes.forEach(change => {
    window.counted.added += change.addedNodes.length;
    window.counted.removed += change.removedNodes.length;
  })).observe(document.querySelector(selector), { childList: true, subtree: true });
}"""


def test_a_move_of_the_slider_draws_once_and_few_elements(
    open_page, scored, strongest, n_drawn, slide
):
    """5,000 edges are a few paths, one for each look: as many as there are looks, not edges."""
    scores = scored(Graph(12, 12, 12, True, False), 1)
    page = open_page(circuit_page(scores, strongest(scores, 5000), title="x")).page
    slide(page, 1000)
    assert n_drawn(page) == 5000
    page.evaluate(COUNT, "#drawing .edges")
    page.evaluate("performance.clearMeasures()")
    for value in (999, 998, 1000):
        slide(page, value)
    n_looks = 2 * 8 * 3 * 2  # side, width, kind of input, with or without its arrow heads
    counted = page.evaluate("window.counted")
    assert 0 < counted["added"] <= 3 * n_looks
    n_redrawn = page.evaluate("performance.getEntriesByName('redraw').length")
    assert n_redrawn <= 3 * 2  # the slider tells of each move twice, "input" and "change"


def test_the_pointer_redraws_no_edges(open_page, scored, strongest):
    scores = scored(Graph(12, 12, 12, True, False), 1)
    page = open_page(circuit_page(scores, strongest(scores, 5000), title="x")).page
    page.evaluate(COUNT, "#drawing .edges")
    n_lit = page.evaluate(
        """async () => {
          const svg = document.getElementById("drawing");
          const box = svg.getBoundingClientRect();
          let most = 0;
          for (let i = 0; i < 30; i++) {
            const [clientX, clientY] = [box.x + 100 + 17 * i, box.y + 80 + 11 * i];
            svg.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY, bubbles: true }));
            await new Promise(requestAnimationFrame);
            most = Math.max(most, svg.querySelectorAll(".lit .edge").length);
          }
          return most;
        }"""
    )
    assert page.evaluate("window.counted") == {"added": 0, "removed": 0}
    assert n_lit < 200
