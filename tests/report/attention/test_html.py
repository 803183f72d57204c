"""The page of attention: what it colours, draws and lists is what it was given."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest
import xarray as xr

from mechinterp.attention import find_links, random_links, top_k
from mechinterp.report import attention_page
from mechinterp.report.render.colours import neutral_scale

TOKENS = ["<s>", "Mary", "</script><script>window.pwned=1</script>", "\n", " gave"]
HOSTILE = ["<img src=x onerror=window.pwned=3>", "\u202e\u05e9\x1b[31m"]


def made(n_layers=3, n_heads=4, seed=0):
    draw = np.tril(np.random.default_rng(seed).random((n_layers, n_heads, 5, 5)))
    return xr.DataArray(
        draw / draw.sum(-1, keepdims=True),
        {
            "layer": range(n_layers),
            "head": range(n_heads),
            "pos": range(5),
            "src": range(5),
            "token": ("pos", TOKENS),
            "source_token": ("src", TOKENS),
        },
        ("layer", "head", "pos", "src"),
    )


def checked(links):
    n = links.sizes["link"]
    effect = np.linspace(1, -1, n)
    return links.assign(
        effect=(("link", "prompt"), effect[:, None]),
        mean_effect=("link", effect),
        low=("link", np.full(n, np.nan)),
        high=("link", np.full(n, np.nan)),
        confirmed=("link", effect > 0.4),
        together=("prompt", [2.5]),
    ).assign_attrs(unit="nats", base=-0.5, confirmed="|effect| of at least 0.4", cut="in its head")


def scores(found):
    share = found.isel(src=0).mean("pos")
    return {"to the first token": share, "signed <b>": share - 0.5}


@pytest.fixture
def html():
    one, two = made(), made(seed=1)
    links = {"one": checked(find_links(one, top_k(2))), "two": checked(find_links(two, top_k(1)))}
    return attention_page({"one": one, "two": two}, links, scores(one), title="A title")


def payload(html):
    return json.loads(re.search(r'id="payload">(.*?)</script>', html, re.DOTALL)[1])


def test_policy_allows_exactly_the_style_and_script_of_the_page(html):
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', html)[1].replace("&#39;", "'")
    for kind in ("style", "script"):
        (body,) = re.findall(f"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"\son\w+=|\sstyle=|https?:|url\(", html.split("<script>")[0])


def test_the_payload_is_the_patterns(html):
    data, found = payload(html), made(seed=1)
    assert [len(case["heads"]) for case in data["cases"]] == [12, 12]
    for name, rows in data["cases"][1]["heads"].items():
        layer, head = map(int, re.match(r"L(\d+)H(\d+)", name).groups())
        full = [row + [0] * (5 - len(row)) for row in rows]
        np.testing.assert_allclose(np.array(full) / 1000, found[layer, head], atol=5.1e-4)


def test_the_grid_is_the_score(html):
    grid = re.search(r'id="grid".*?</table>', html, re.DOTALL)[0]
    cells = re.findall(r"<b>(.*?)</b>", grid)
    share = scores(made())["to the first token"]
    assert [float(cell) for cell in cells] == pytest.approx(
        share.values.ravel().tolist(), abs=0.005
    )


def test_links_are_listed_with_what_cutting_them_did(html):
    links = checked(find_links(made(), top_k(2)))
    body = re.search(r'<tbody data-case="0">(.*?)</tbody>', html, re.DOTALL)[1]
    heads = re.findall(r"<b>(L\dH\d)</b>", body)
    expected = [
        f"L{n}H{h}" for n, h in zip(links["layer"].values, links["head"].values, strict=True)
    ]
    assert heads == expected
    assert body.count(">confirmed<") == int(links["confirmed"].sum())
    assert body.count(">not confirmed<") == int((~links["confirmed"]).sum())
    more = checked(find_links(made(seed=1), top_k(1)))
    yes = int(links["confirmed"].sum()) + int(more["confirmed"].sum())
    assert f'<b class="num">{yes}</b> confirmed by knock-out' in html
    assert "+2.5" in html


def test_in_a_browser(html, open_page):
    opened = open_page(html)
    page = opened.page
    first = page.locator("#links tbody[data-case='0'] tr[data-link]").first
    head = first.locator("b").text_content()
    assert page.locator("#head-name").text_content() == head
    query, key = (int(n) for n in first.locator("small").all_text_contents())
    layer, number = int(head[1]), int(head[3])
    said = page.locator("#pattern-at").text_content()
    weight = float(made().values[layer, number, query, key])
    assert f"({query})" in said
    assert float(said.rsplit(":", 1)[1]) == pytest.approx(weight, abs=6e-4)

    # Another head by a click, by arrow keys; another colour; the first token set aside.
    page.locator("#grid tbody tr").nth(2).locator("td").nth(1).click()
    assert page.locator("#head-name").text_content() == "L2H1"
    page.keyboard.press("ArrowRight")
    assert page.locator("#head-name").text_content() == "L2H2"
    page.get_by_role("radio", name="signed <b>").click()
    cell = page.locator("#grid tbody tr").nth(2).locator("td b").nth(2)
    share = float(scores(made())["signed <b>"][2, 2])
    assert float(cell.text_content().replace("−", "-")) == pytest.approx(share, abs=0.006)
    page.locator("#aside").check()
    page.locator("#pattern-map").focus()
    page.keyboard.press("ArrowUp")
    row, column = (
        int(n) for n in re.findall(r"\((\d)\)", page.locator("#pattern-at").text_content())
    )
    line = made().values[2, 2, row].copy()
    line[0] = 0
    shown = float(page.locator("#pattern-at").text_content().rsplit(":", 1)[1])
    assert shown == pytest.approx(line[column] / line.sum(), abs=5e-3)

    # The other prompt has its own links and patterns.
    page.get_by_role("radio", name="two", exact=True).click()
    assert page.locator("#links tbody[data-case='0']").is_hidden()
    assert page.locator("#links tbody[data-case='1']").is_visible()
    assert page.evaluate("window.pwned") is None
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("file:")] == []


@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_sticks_out(html, open_page, width):
    page = open_page(html, width=width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_labels_are_text():
    one = made()
    links = find_links(one, top_k(1))
    html = attention_page(
        {HOSTILE[0]: one, HOSTILE[1]: one},
        {HOSTILE[0]: links, HOSTILE[1]: links},
        {HOSTILE[0]: one.isel(src=0).mean("pos")},
        title=HOSTILE[0],
        notes=HOSTILE,
        tables={HOSTILE[0]: [{HOSTILE[1]: HOSTILE[0]}]},
        attrs={"model": HOSTILE[0]},
    )
    assert "<img" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert html.count("<script") == 2


def test_without_links_and_without_knock_outs():
    one = made()
    none = find_links(one, lambda weights, keys: np.full(weights.shape[2:], np.nan))
    html = attention_page({"one": one}, {"one": none}, scores(one), title="x")
    assert "No link is listed" in html
    assert "no link of this page was cut" in html
    assert random_links(one, none).sizes["link"] == 0


def test_wrong_input_is_refused(refuses):
    one = made()
    links = find_links(one, top_k(1))
    refuses(
        lambda: attention_page({"a": one}, {"b": links}, scores(one), title="x"), "both of each"
    )
    refuses(lambda: attention_page({"a": one}, {"a": links}, {}, title="x"), "at least one")
    refuses(
        lambda: attention_page({"a": one}, {"a": links}, {"s": one}, title="x"), "layer and head"
    )


@pytest.mark.parametrize("supports", ["positive", "negative"])
def test_the_grid_is_neutral_and_the_sign_of_effects_is_said(supports):
    found = made()
    links = checked(find_links(found, top_k(2))).assign_attrs(supports=supports)
    html = attention_page({"one": found}, {"one": links}, scores(found), title="x")
    used = {name for score in payload(html)["scores"] for line in score["classes"] for name in line}
    assert used <= {*neutral_scale()}
    assert {name.rstrip("0123456789") for name in used} >= {"up", "down"}
    assert f"{supports.capitalize()}: the link supports what is measured." in html
