"""The page of a circuit: it draws the edges that it is given, by hand and by key, and fast."""

import base64
import hashlib
import json
import math
import re
import statistics

import numpy as np
import pytest
import xarray as xr

from mechinterp.circuits import Circuit, EdgeScores, Graph
from mechinterp.report import circuit_page, show
from mechinterp.report.render.numbers import MINUS

WIDTHS = pytest.mark.parametrize("width", [1280, 400])
PLAIN = Graph(3, 4, 4, True, False)
GRAPHS = {
    "plain": PLAIN,
    "positions": Graph(3, 4, 4, True, False, ("S2", "end", "elsewhere")),
    "shared keys": Graph(3, 6, 2, True, False, ("end", "elsewhere")),
    "parallel": Graph(2, 5, 5, True, True),
    "attention only": Graph(2, 1, 1, False, False),
    "many heads": Graph(2, 40, 40, True, False),
}
TOKENS = ["<s>", "Mary", "</script><script>window.pwned=1</script>", "\n", " gave"]
HOSTILE = [
    "</script><script>window.pwned=2</script>",
    "<img src=x onerror=window.pwned=3>",
    "\"'><svg onload=window.pwned=4>",
    "\u202e\u05e9\u05dc\u05d5\u05dd\x1b[31m",
]


def number(text: str) -> float:
    return math.nan if text == "–" else float(text.split()[0].replace(MINUS, "-"))


def scored(graph, n_pairs=5, seed=0) -> EdgeScores:
    draw = np.random.default_rng(seed).laplace(size=(*graph.edges.shape, n_pairs))
    return EdgeScores.from_array(graph, draw, unit="logits", metric="logit_diff", model="tiny")


def strongest(scores, n) -> Circuit:
    return Circuit.from_edges(scores.graph, [name for name, _ in scores.strongest(n)])


def attention(graph, n_tokens) -> xr.DataArray:
    draw = np.tril(
        np.random.default_rng(1).random((graph.n_layers, graph.n_heads, *2 * [n_tokens]))
    )
    dims = ("layer", "head", "pos", "src")
    return xr.DataArray(draw / draw.sum(-1, keepdims=True), dims=dims)


def curve(n_edges=200) -> xr.Dataset:
    values = {"edges": [2, n_edges], "requested": [3, n_edges], "faithfulness": [0.25, 1.0]}
    return xr.Dataset(
        {name: ("circuit", value) for name, value in values.items()}, {"circuit": ["ours", "all"]}
    )


def payload(html: str) -> dict:
    return json.loads(re.search(r'id="payload">(.*?)</script>', html, re.DOTALL)[1])


def n_drawn(page, layer="edges") -> int:
    """How many edges there are in a layer of the drawing: each begins with a move."""
    return page.locator(f"#drawing .{layer} .edge").evaluate_all(
        "paths => paths.reduce((sum, p) => sum + p.getAttribute('d').split('M').length - 1, 0)"
    )


def slide(page, value: int) -> None:
    page.evaluate(
        """value => {
          const slider = document.getElementById("strength");
          slider.value = value;
          for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind));
          return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        }""",
        value,
    )


def side(page, name) -> dict[str, float]:
    rows = page.locator(f"#p-{name} tr").all()
    return {
        row.locator("button").text_content(): number(row.locator("td").text_content())
        for row in rows
    }


def node(page, name):
    return page.locator("#drawing .node:not(.off)", has_text=re.compile(f"^{re.escape(name)}$"))


@pytest.fixture
def found():
    """The 20 strongest of the edges of 3 layers of 4 heads, and their scores."""
    scores = scored(PLAIN)
    return scores, strongest(scores, 20)


@pytest.fixture
def html(found):
    return circuit_page(
        *found,
        title="A title",
        patterns=attention(PLAIN, 5),
        tokens=TOKENS,
        curves={"EAP": curve()},
    )


def test_policy_allows_exactly_the_style_and_script_of_the_page(html):
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', html)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; ")
    for kind in ("style", "script"):
        (body,) = re.findall(f"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"\son\w+=|\sstyle=|https?:|url\(", html.split("<script>")[0])


@pytest.mark.parametrize("name", GRAPHS)
def test_payload_is_the_data(name):
    graph = GRAPHS[name]
    scores = scored(graph)
    data = payload(circuit_page(scores, strongest(scores, 7), title="x"))
    edges, places = data["edges"], data["graph"]
    pos = edges.get("p", [0] * len(edges["w"]))
    shown = list(zip(edges["w"], edges["r"], pos, edges["s"], strict=True))
    assert len(shown) == graph.n_edges
    for place, (w, r, p, score) in enumerate(shown):
        name = graph.edge_name(w, r, p)
        assert score == pytest.approx(scores[name], rel=1e-4)
        assert edges["held"][place] == (place < 7)
    assert (places["writers"], places["readers"]) == (list(graph.writers), list(graph.readers))
    for reader, nodes in enumerate(places["feeds"]):
        np.testing.assert_array_equal(nodes, np.flatnonzero(graph.feeds[reader]))


def test_a_large_graph_is_cut_and_says_so():
    graph = Graph(12, 12, 12, True, False)
    scores = scored(graph, 1)
    weakest = [name for name, _ in scores.strongest(graph.n_edges)[-5:]]
    html = circuit_page(scores, Circuit.from_edges(graph, weakest), title="x")
    left_out = graph.n_edges - 20_000
    assert "This page holds 20,000 edges, those of the circuit first" in html
    assert f"{left_out:,} weaker ones are left out" in html
    assert payload(html)["edges"]["rank"][-1] == graph.n_edges
    assert sum(payload(html)["edges"]["held"]) == 5
    assert len(html) < 800_000


def test_arguments_are_not_changed(found):
    scores, circuit = found
    before = scores.per_pair.copy(deep=True), attention(PLAIN, 5)
    given = attention(PLAIN, 5)
    circuit_page(scores, circuit, title="x", patterns=given, curves={"a": curve()})
    xr.testing.assert_identical(scores.per_pair, before[0])
    xr.testing.assert_identical(given, before[1])


def test_wrong_input_is_refused_with_what_to_do(found, refuses):
    scores, circuit = found
    other = Circuit.full(GRAPHS["parallel"])
    refuses(lambda: circuit_page(scores, other, title="x"), "one Graph.from_model(model)")
    refuses(
        lambda: circuit_page(scores, circuit, title="x", other=other), "one Graph.from_model(model)"
    )
    refuses(
        lambda: circuit_page(scores, circuit, title="x", curves={"a": xr.Dataset()}), "no edges"
    )
    patterns = attention(PLAIN, 5)[0]
    refuses(lambda: circuit_page(scores, circuit, title="x", patterns=patterns), "one prompt")


def test_nothing_to_show_says_so(open_page):
    empty = EdgeScores.from_array(PLAIN, np.full((*PLAIN.edges.shape, 2), np.nan))
    opened = open_page(circuit_page(empty, Circuit.empty(PLAIN), title="x"))
    assert opened.complaints == []
    assert "The circuit keeps 0 of" in opened.page.locator(".lead").text_content()
    assert opened.page.locator("#drawing, #strongest").count() == 0


def test_circuit_without_scores_is_drawn(open_page):
    empty = EdgeScores.from_array(PLAIN, np.full((*PLAIN.edges.shape, 2), np.nan))
    circuit = Circuit.from_edges(PLAIN, ["input->a0.h1<q>", "a0.h1->logits"])
    opened = open_page(circuit_page(empty, circuit, title="x"))
    assert opened.complaints == []
    assert n_drawn(opened.page) == 2
    assert opened.page.locator("#drawing .edge.none").count() > 0


@WIDTHS
@pytest.mark.parametrize("name", GRAPHS)
def test_page_draws_all_edges_asks_for_nothing_and_fits(open_page, name, width):
    scores = scored(GRAPHS[name])
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


def test_writers_stand_below_their_readers(open_page):
    for graph in GRAPHS.values():
        page = open_page(circuit_page(scored(graph), Circuit.full(graph), title="x")).page
        rises = page.locator("#drawing .edges .edge").evaluate_all(
            """paths => paths.flatMap(p => p.getAttribute("d").split("M").slice(1).map(one => {
              const all = one.match(/-?[\\d.]+/g).map(Number);
              return all[1] - all[7];
            }))"""
        )
        assert len(rises) == graph.n_edges
        assert min(rises) > 0


def test_slider_shows_the_strongest(open_page, html, found):
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


def test_pointer_on_an_edge_names_it(open_page):
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


def test_click_pins_a_node_and_lists_its_edges(open_page, html, found):
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
    for shown, known in ((side(page, "out"), out), (side(page, "in"), into)):
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


def test_attention_of_a_head_is_shown_with_its_tokens(open_page, html, found):
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


def test_table_lists_the_strongest_and_filters_by_node(open_page, html, found):
    scores, _ = found
    page = open_page(html).page
    rows = page.locator("#strongest tbody tr")
    assert rows.count() == 40
    names = [text.replace(" → ", "->") for text in rows.locator(".edge-name").all_text_contents()]
    assert names == [name for name, _ in scores.strongest(40)]
    assert rows.locator(".held").all_text_contents() == ["yes"] * 20 + ["no"] * 20
    page.locator("#filter").fill("a1.h1")
    known = [
        (name, score)
        for name, score in scores.strongest(PLAIN.n_edges)
        if re.search(r"a1\.h1(->|<)", name)
    ]
    assert page.locator("#n-matching").text_content() == f"{len(known)} matching"
    names = [text.replace(" → ", "->") for text in rows.locator(".edge-name").all_text_contents()]
    assert names == [name for name, _ in known[:40]]
    shown = [number(text) for text in rows.locator(".score").all_text_contents()]
    np.testing.assert_allclose(shown, [score for _, score in known[:40]], atol=6e-4)
    rows.first.hover()
    assert n_drawn(page, "lit") == 1
    page.locator("#filter").fill("no such node")
    assert rows.count() == 0
    page.locator("#filter").fill("")
    assert rows.count() == 40


def test_faithfulness_is_drawn_and_listed(open_page, html):
    page = open_page(html).page
    cells = [row.locator("td").all_text_contents() for row in page.locator("#kept tbody tr").all()]
    assert cells[0][:3] == ["ours", "3", "2"]
    assert [row[4] for row in cells] == ["0.25", "1.00"]
    titles = page.locator(".chart .target title").all_text_contents()
    assert titles[0] == f"EAP, ours: 0.25 with 2 edges, {200 / PLAIN.n_edges:.3g}%, 3 requested"


def test_two_circuits_are_compared(open_page, found):
    scores, first = found
    second = strongest(scored(PLAIN, seed=1), 15)
    html = circuit_page(scores, first, title="x", other=second, names=("EAP", HOSTILE[0]))
    opened = open_page(html)
    page = opened.page
    both, either = (first & second).n_edges, (first | second).n_edges
    cells = page.locator("#overlap tbody tr").first.locator("td").all_text_contents()
    assert cells == [str(n) for n in (20, 15, both, 20 - both, 15 - both)] + [
        f"{both / either:.2f}"
    ]
    drawn = {
        look: page.locator(f"#drawing .edges .edge.{look}").evaluate_all(
            "paths => paths.reduce((sum, p) => sum + p.getAttribute('d').split('M').length - 1, 0)"
        )
        for look in ("both", "one", "two")
    }
    assert drawn == {"both": both, "one": 20 - both, "two": 15 - both}
    assert page.locator("#by-circuit").is_visible()
    page.get_by_text("Colour by score").click()
    assert page.locator("#drawing .edge.both").count() == 0
    assert page.locator("#by-score").is_visible()
    assert n_drawn(page) == either
    assert page.evaluate("window.pwned") is None
    assert opened.complaints == []


def test_positions_are_columns(open_page):
    graph = GRAPHS["positions"]
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


@WIDTHS
def test_hostile_text_is_text(open_page, width):
    graph = Graph(2, 3, 3, True, False, (*HOSTILE, "elsewhere"))
    scores = scored(graph)
    scores = EdgeScores(
        graph, scores.per_pair.assign_attrs(unit=HOSTILE[0], model=HOSTILE[1], metric=HOSTILE[2])
    )
    found = curve().assign_coords(circuit=HOSTILE[:2])
    title = "</title><script>window.pwned=5</script>"
    html = circuit_page(
        scores,
        strongest(scores, 30),
        title=title,
        notes=HOSTILE,
        curves={HOSTILE[0]: found, HOSTILE[1]: found},
        patterns=attention(graph, 4),
        tokens=HOSTILE,
        other=strongest(scores, 9),
        names=(HOSTILE[0], HOSTILE[2]),
        tables={HOSTILE[0]: [{HOSTILE[1]: HOSTILE[2]}]},
    )
    opened = open_page(html, width=width)
    page = opened.page
    page.locator("#drawing .node:not(.off)").nth(1).click()
    page.locator("#strongest tbody tr").first.hover()
    page.locator("#filter").fill("a1")
    assert page.evaluate("window.pwned") is None
    assert (opened.requests, opened.complaints) == ([opened.url], [])
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("main img, main script, main svg[onload]").count() == 0
    assert page.title() == title
    assert "\u202e" not in html
    assert "\x1b" not in html


def test_page_reads_without_scripts(open_page, html, found):
    page = open_page(html, java_script_enabled=False).page
    assert page.get_by_text("Scripts are off").is_visible()
    assert not page.locator("#drawing").is_visible()
    assert not page.locator("#filter").is_visible()
    shown = [number(text) for text in page.locator("#strongest .score").all_text_contents()]
    np.testing.assert_allclose(shown, [s for _, s in found[0].strongest(40)], atol=6e-4)
    assert page.locator("#kept tbody tr").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_edges_are_warm_for_support_and_cold_against_it(open_page, html, scheme):
    page = open_page(html, color_scheme=scheme).page
    warmth = {}
    for sign in ("pos", "neg"):
        red, _, blue = page.locator(f"#drawing .edges .edge.{sign}").first.evaluate(
            "path => getComputedStyle(path).stroke.match(/\\d+/g).map(Number).slice(0, 3)"
        )
        warmth[sign] = red - blue
    assert warmth["pos"] > 60 > -60 > warmth["neg"]


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


def test_redraw_of_5000_edges_is_fast(open_page):
    """A move of the slider, from the event to the second frame after it; and its script alone."""
    graph = Graph(12, 12, 12, True, False)
    scores = scored(graph, 1)
    page = open_page(circuit_page(scores, strongest(scores, 5000), title="x")).page
    slide(page, 1000)
    assert n_drawn(page) == 5000
    frames = page.evaluate(
        """async () => {
          const slider = document.getElementById("strength");
          const frame = () => new Promise(requestAnimationFrame);
          performance.clearMeasures();
          const times = [];
          for (let i = 0; i < 15; i++) {
            await frame();
            slider.value = 1000 - (i % 2);
            const began = performance.now();
            slider.dispatchEvent(new Event("input"));
            await frame();
            await frame();
            times.push(performance.now() - began);
          }
          return times;
        }"""
    )
    script = page.evaluate("performance.getEntriesByName('redraw').map(m => m.duration)")
    print(
        f"\nredraw of 5,000 edges: {statistics.median(script):.0f} ms of script, "
        f"{statistics.median(frames):.0f} ms to the second frame (33 ms if nothing were drawn)"
    )
    assert len(script) == 15
    assert sorted(frames)[3] < 200  # not the median: other tests may run beside this one


def test_pointer_among_5000_edges_is_fast(open_page):
    graph = Graph(12, 12, 12, True, False)
    scores = scored(graph, 1)
    page = open_page(circuit_page(scores, strongest(scores, 5000), title="x")).page
    times = page.evaluate(
        """() => {
          const svg = document.getElementById("drawing");
          const box = svg.getBoundingClientRect();
          const times = [];
          for (let i = 0; i < 30; i++) {
            const [clientX, clientY] = [box.x + 100 + 17 * i, box.y + 80 + 11 * i];
            const began = performance.now();
            svg.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY, bubbles: true }));
            times.push(performance.now() - began);
          }
          return times;
        }"""
    )
    print(f"\npointer: first {times[0]:.0f} ms, then {statistics.median(times[1:]):.1f} ms")
    assert sorted(times)[7] < 50
