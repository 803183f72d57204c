"""The page of a grid: what it says is the data, and no label can act."""

import base64
import hashlib
import io
import json
import math
import re

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from mechinterp import stats
from mechinterp.report import grid_page, print_grid, show
from mechinterp.report.render.cells import read_grid

WIDTHS = pytest.mark.parametrize("width", [1280, 400])
TOKENS = ["<|endoftext|>", "When", " Mary", "\n", " went"]
HOSTILE = [
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=2>",
    "\"'><svg onload=window.pwned=3>",
    "\u202e\u05e9\u05dc\u05d5\u05dd",
    "{{ 7 * 7 }}\x1b[31m[bold]",
]


def payload(html: str) -> dict:
    return json.loads(re.search(r'id="payload">(.*?)</script>', html, re.DOTALL)[1])


def heat_values(page, number) -> list[np.ndarray]:
    """The numbers of each heat map, as a reader without scripts or colours gets them."""
    return [
        np.array(
            [
                [number(text) for text in row.locator("td").all_text_contents()]
                for row in table.locator("tbody tr").all()
            ]
        )
        for table in page.locator("table.heat").all()
    ]


def test_wrong_input_is_refused_with_what_to_do(effect, refuses):
    refuses(lambda: grid_page(effect.mean("pos").mean("layer"), title="x"), "one to three")
    refuses(lambda: grid_page(effect.expand_dims(a=2, b=2), title="x"), "one to three", "Select")
    refuses(lambda: grid_page(effect.expand_dims(metric=["p", "q"]), title="x"), "sel(metric=")
    refuses(lambda: grid_page(effect[:0], title="x"), "no value to show")
    refuses(lambda: print_grid(effect, top=-1), "top is -1")


def test_argument_is_not_changed(effect):
    before = effect.copy(deep=True)
    grid_page(effect, title="x")
    print_grid(effect, console=Console(file=io.StringIO()))
    xr.testing.assert_identical(effect, before)


def test_policy_allows_exactly_the_style_and_script_of_the_page(effect, swept):
    for result in (effect, swept(3, 50)):
        html = grid_page(result, title="x")
        policy = re.search(r'Content-Security-Policy" content="(.*?)"', html)[1]
        policy = policy.replace("&#39;", "'")
        assert policy.startswith("default-src 'none'; ")
        for kind, pattern in (
            ("style", "<style>(.*?)</style>"),
            ("script", "<script>(.*?)</script>"),
        ):
            (body,) = re.findall(pattern, html, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"\son\w+=|\sstyle=|https?:|url\(", html)


def test_payload_is_the_data(effect, number):
    data = payload(grid_page(effect, title="x"))
    found = stats.interval(effect)
    values = [number(text) for text in data["exact"]]
    np.testing.assert_allclose(values, found["mean"].values.ravel(), atol=1e-4)
    lows = [number(text.split(" to ")[0]) for text in data["interval"]]
    np.testing.assert_allclose(lows, found["low"].values.ravel(), atol=1e-3)
    assert sorted(data["rank"]) == list(range(1, 21))


def test_ranked_table_baselines_tables_notes_and_cost(effect):
    tables = {"Faithfulness <b>": [{"circuit": "ours", "ratio": 0.87123}, {"p": -2.0}]}
    html = grid_page(effect, title="x", notes=["A <b>note</b>."], tables=tables)
    grid = read_grid(effect)
    assert "The strongest 20 of 20 cells" in html
    assert f'data-at="{" ".join(map(str, grid.ranked[0].at))}"' in html
    assert "+3.50 " in html
    assert "−2.00 " in html
    assert "Faithfulness &lt;b&gt;" in html
    for value in ("ours", "0.8712", "−2"):
        assert f"<bdi>{value}</bdi>" in html
    assert "A &lt;b&gt;note&lt;/b&gt;." in html
    assert "4.0× fewer" in html
    assert "Positive: the head helps." in html


def test_size_of_a_large_page(swept):
    html = grid_page(swept(12, 12, 15, dims=("layer", "head", "pos"), n=5), title="x")
    assert html.count("<figure>") == 15
    assert len(html) < 500_000


def test_cells_without_a_value_say_so(open_page, swept):
    result = swept(3, 4)
    result[1, 2] = math.nan
    page = open_page(grid_page(result, title="x")).page
    page.locator("td.na").hover()
    assert page.locator("#d-rank").text_content() == "not computed"
    assert page.locator("#d-value").text_content() == "–"
    assert page.locator(".legend .na").count() == 1
    assert "1 of 12 cells were not computed." in page.locator("header").text_content()
    assert "not computed" not in grid_page(swept(3, 4), title="x").split("<script")[0]


def test_nothing_computed_says_so(open_page, swept):
    opened = open_page(grid_page(swept(3, 4) * math.nan, title="x"))
    assert "No cell has a value." in opened.page.locator(".lead").text_content()
    assert opened.complaints == []


@WIDTHS
@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ((4,), {"dims": ("layer",)}),
        ((12, 12), {}),
        ((30, 64), {"n": 2}),
        ((3, 4, 5), {"dims": ("act", "layer", "pos"), "act": ["z", "mlp_out", "q"]}),
    ],
    ids=["bars", "map", "wide", "maps"],
)
def test_page_asks_for_nothing_fits_the_window_and_shows_all_numbers(
    open_page, swept, number, shape, named, width
):
    result = swept(*shape, **named)
    opened = open_page(grid_page(result, title="A title"), width=width)
    assert opened.requests == [opened.url]
    assert opened.complaints == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    means = result.mean("prompt").values
    if means.ndim == 1:
        texts = opened.page.locator("#bars .score").all_text_contents()
        np.testing.assert_allclose([number(text) for text in texts], means, atol=1e-3)
    else:
        shown = np.squeeze(heat_values(opened.page, number))
        np.testing.assert_allclose(shown, means, atol=0.0501)


def test_hover_and_focus_show_the_exact_cell(open_page, effect, number):
    page = open_page(grid_page(effect, title="x")).page
    page.locator(".heat tbody tr").nth(1).locator("td").nth(2).hover()
    text = lambda name: page.locator(name).text_content()  # noqa: E731
    mean = float(effect.mean("prompt")[1, 2])
    assert number(text("#d-value")) == pytest.approx(mean, abs=1e-4)
    assert text("#d-place").split() == ["layer", "1", "pos", "2", "␣Mary"]
    cell = next(cell for cell in read_grid(effect).cells if cell.at == (1, 2))
    low, high = (number(end) for end in text("#d-interval").split(" to "))
    assert (low, high) == pytest.approx((cell.low, cell.high), abs=1e-3)
    assert text("#d-rank") == f"{cell.rank} of 20"
    assert page.locator("#ranked tr.linked .rank").text_content() == str(cell.rank)
    page.locator("#ranked tbody tr").first.hover()
    assert text("#d-rank") == "1 of 20"
    assert page.locator(".heat .current").count() == 1


def test_hover_in_a_map_of_many_names_the_map(open_page, number, swept):
    result = swept(3, 4, 5, dims=("layer", "head", "pos"), token=("pos", TOKENS))
    page = open_page(grid_page(result, title="x")).page
    table = page.locator("figure").nth(2).locator("table")
    table.locator("tbody tr").nth(1).locator("td").nth(3).hover()
    place_text = page.locator("#d-place").text_content().split()
    assert place_text == ["pos", "2", "␣Mary", "layer", "1", "head", "3"]
    mean = float(result.mean("prompt")[1, 3, 2])
    assert number(page.locator("#d-value").text_content()) == pytest.approx(mean, abs=1e-4)
    bubble = table.locator("td:hover b")
    assert bubble.is_visible()
    assert number(bubble.text_content()) == pytest.approx(mean, abs=0.0501)


def test_keyboard_alone_reaches_every_cell(open_page, effect):
    page = open_page(grid_page(effect, title="x")).page
    press, text = page.keyboard.press, lambda name: page.locator(name).text_content()
    press("Tab")
    assert text("#d-place").split() == ["layer", "0", "pos", "0", "<|endoftext|>"]
    press("ArrowRight")
    press("ArrowDown")
    assert text("#d-place").split() == ["layer", "1", "pos", "1", "When"]
    press("Control+End")
    assert text("#d-place").split() == ["layer", "3", "pos", "4", "␣went"]
    assert page.locator(".heat td[tabindex]").count() == 1


def test_page_reads_without_scripts(open_page, effect, number):
    page = open_page(grid_page(effect, title="x"), java_script_enabled=False).page
    (values,) = heat_values(page, number)
    np.testing.assert_allclose(values, effect.mean("prompt"), atol=0.0501)
    heads = page.locator(".heat .labels th").all_text_contents()
    assert [head.split() for head in heads] == [
        [str(pos), show(token)] for pos, token in enumerate(TOKENS)
    ]
    assert page.locator("#ranked tbody tr").count() == 20
    assert not page.get_by_text("Hover or focus").is_visible()


@WIDTHS
def test_hostile_labels_are_text(open_page, width, swept):
    result = swept(
        5,
        5,
        dims=("<img src=x onerror=window.pwned=5>", "pos"),
        token=("pos", HOSTILE),
        **{"<img src=x onerror=window.pwned=5>": HOSTILE},
    ).assign_attrs(unit=HOSTILE[0], model=HOSTILE[1], sign=HOSTILE[2], extra=HOSTILE[0])
    result = result.rename(HOSTILE[0])
    title = "</title><script>window.pwned=4</script>"
    for shown in (result, result.isel(pos=0, drop=True), result.expand_dims(act=HOSTILE[:2])):
        html = grid_page(
            shown, title=title, notes=HOSTILE, tables={HOSTILE[0]: [{HOSTILE[1]: HOSTILE[2]}]}
        )
        opened = open_page(html, width=width)
        page = opened.page
        page.locator("td").last.hover()
        assert page.evaluate("window.pwned") is None
        assert (opened.requests, opened.complaints) == ([opened.url], [])
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("main img, main script, main svg[onload]").count() == 0
        assert page.title() == title
        assert "\u202e" not in html
    page = open_page(grid_page(result, title=title), width=width).page
    page.locator(".heat tbody td").first.hover()
    assert show(HOSTILE[0]) in page.locator("#d-place").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("supports", ["positive", "negative"])
def test_colours_are_warm_for_support_and_cold_against_it(open_page, scheme, supports):
    sign = 1 if supports == "positive" else -1
    values = sign * np.array([[[2.0], [-2.0]], [[0.0], [1.0]]])
    result = xr.DataArray(values, dims=("layer", "head", "prompt"), attrs={"supports": supports})
    page = open_page(grid_page(result, title="x"), color_scheme=scheme).page
    colours = page.locator(".heat tbody td").evaluate_all(
        "cells => cells.map(c => getComputedStyle(c).backgroundColor.match(/\\d+/g).map(Number))"
    )
    warmth = [red - blue for red, _, blue in colours]
    assert warmth[0] > 60 > -60 > warmth[1]
    assert abs(warmth[2]) < 15
    assert warmth[3] > 20
    bars = page.locator("#ranked .bar rect:nth-child(2)").evaluate_all(
        "bars => bars.map(b => getComputedStyle(b).fill.match(/\\d+/g).map(Number))"
    )
    assert [red > blue for red, _, blue in bars[:3]] == [True, False, True]
    page.locator(".heat tbody td").nth(1).hover()
    assert page.locator("#d-bar rect.against").count() == 1
    ends = page.locator(".legend .ends span").all_text_contents()
    words = ["works against the behaviour", "supports the behaviour"]
    assert [ends[0], ends[-1]] == words[::sign]
    scale = page.locator(".legend-scale svg").get_attribute("aria-label")
    assert ("(red) over zero" in scale) == (supports == "negative")
    other = "negative" if supports == "positive" else "positive"
    said = page.locator(".drivers").text_content()
    assert f"{supports.capitalize()}: it supports the behaviour" in said
    assert f"{other.capitalize()}: it works against it" in said


def test_a_result_that_does_not_say_what_a_sign_means_has_no_words_for_it(effect):
    html = grid_page(effect, title="x")
    assert "supports the behaviour" not in html
    assert "<span>negative</span>" in html
    ablated = grid_page(effect.assign_attrs(supports="negative"), title="x")
    assert "Negative: it supports the behaviour" in ablated


def test_a_share_is_said_as_one(effect):
    page = grid_page(effect.assign_attrs(unit="of clean − corrupt"), title="x")
    assert ", as a share of clean − corrupt; colour" in page
