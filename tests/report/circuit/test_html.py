"""The page of a circuit: what it says is the data, and no label can act."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest
import xarray as xr

from mechinterp.circuits import Circuit, EdgeScores, Graph
from mechinterp.report import circuit_page

WIDTHS = pytest.mark.parametrize("width", [1280, 400])
PLAIN = Graph(3, 4, 4, True, False)
GRAPHS = ["plain", "positions", "shared keys", "parallel", "attention only", "many heads"]
HOSTILE = [
    "</script><script>window.pwned=2</script>",
    "<img src=x onerror=window.pwned=3>",
    "\"'><svg onload=window.pwned=4>",
    "\u202e\u05e9\u05dc\u05d5\u05dd\x1b[31m",
]


def payload(html: str) -> dict:
    return json.loads(re.search(r'id="payload">(.*?)</script>', html, re.DOTALL)[1])


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
def test_payload_is_the_data(name, scored, strongest, graphs):
    graph = graphs[name]
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


def test_a_large_graph_is_cut_and_says_so(scored):
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


def test_arguments_are_not_changed(found, attention, curve):
    scores, circuit = found
    before = scores.per_pair.copy(deep=True), attention(PLAIN, 5)
    given = attention(PLAIN, 5)
    circuit_page(scores, circuit, title="x", patterns=given, curves={"a": curve()})
    xr.testing.assert_identical(scores.per_pair, before[0])
    xr.testing.assert_identical(given, before[1])


def test_wrong_input_is_refused_with_what_to_do(found, refuses, attention, graphs):
    scores, circuit = found
    other = Circuit.full(graphs["parallel"])
    refuses(lambda: circuit_page(scores, other, title="x"), "one Graph.from_model(model)")
    two = {"one": circuit, "other": other}
    refuses(lambda: circuit_page(scores, two, title="x"), "one Graph.from_model(model)")
    refuses(lambda: circuit_page(scores, {"one": circuit}, title="x"), "compares two by name")
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


def test_table_lists_the_strongest_and_filters_by_node(open_page, html, found, number, n_drawn):
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


def test_two_circuits_are_compared(open_page, found, scored, strongest, n_drawn):
    scores, first = found
    second = strongest(scored(PLAIN, seed=1), 15)
    html = circuit_page(scores, {"EAP": first, HOSTILE[0]: second}, title="x")
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


@WIDTHS
def test_hostile_text_is_text(open_page, width, scored, strongest, attention, curve):
    graph = Graph(2, 3, 3, True, False, (*HOSTILE, "elsewhere"))
    scores = scored(graph)
    scores = EdgeScores(
        graph, scores.per_pair.assign_attrs(unit=HOSTILE[0], model=HOSTILE[1], metric=HOSTILE[2])
    )
    found = curve().assign_coords(circuit=HOSTILE[:2])
    title = "</title><script>window.pwned=5</script>"
    html = circuit_page(
        scores,
        {HOSTILE[0]: strongest(scores, 30), HOSTILE[2]: strongest(scores, 9)},
        title=title,
        notes=HOSTILE,
        curves={HOSTILE[0]: found, HOSTILE[1]: found},
        patterns=attention(graph, 4),
        tokens=HOSTILE,
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


def test_page_reads_without_scripts(open_page, html, found, number):
    page = open_page(html, java_script_enabled=False).page
    assert page.get_by_text("Scripts are off").is_visible()
    assert not page.locator("#drawing").is_visible()
    assert not page.locator("#filter").is_visible()
    shown = [number(text) for text in page.locator("#strongest .score").all_text_contents()]
    np.testing.assert_allclose(shown, [s for _, s in found[0].strongest(40)], atol=6e-4)
    assert page.locator("#kept tbody tr").count() == 2
