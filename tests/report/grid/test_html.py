"""Views of a sweep's result: what they say is the data, and no label can act."""

import base64
import hashlib
import io
import json
import math
import re

import numpy as np
import pytest
import xarray as xr
from rich.cells import cell_len
from rich.console import Console

from mechinterp import stats
from mechinterp.report import grid_page, print_grid, show
from mechinterp.report.render.cells import headline, place, read_grid, sentences
from mechinterp.report.render.colours import terminal_style
from mechinterp.report.render.numbers import MINUS
from mechinterp.report.render.phrases import plain

WIDTHS = pytest.mark.parametrize("width", [1280, 400])
ATTRS = {
    "model": "tiny",
    "unit": "logits",
    "sign": "Positive: the head helps.",
    "arms": 20,
    "token_layers": 1500,
    "token_layers_naive": 6000,
}
TOKENS = ["<|endoftext|>", "When", " Mary", "\n", " went"]
HOSTILE = [
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=2>",
    "\"'><svg onload=window.pwned=3>",
    "\u202e\u05e9\u05dc\u05d5\u05dd",
    "{{ 7 * 7 }}\x1b[31m[bold]",
]


def number(text: str) -> float:
    return math.nan if text == "–" else float(text.replace(MINUS, "-"))


def swept(*shape, dims=("layer", "head"), n=8, seed=0, **coords) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    values = rng.laplace(size=(*shape, 1)) + rng.normal(scale=0.3, size=(*shape, n))
    labels = {dim: range(size) for dim, size in zip(dims, shape, strict=True)} | coords
    return xr.DataArray(
        values, dims=(*dims, "prompt"), coords=labels, attrs=ATTRS, name="logit_diff"
    )


def payload(html: str) -> dict:
    return json.loads(re.search(r'id="payload">(.*?)</script>', html, re.DOTALL)[1])


def heat_values(page) -> list[np.ndarray]:
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


@pytest.fixture
def effect():
    """4 layers, 5 positions with tokens, 8 prompts with both baselines."""
    return swept(
        4,
        5,
        dims=("layer", "pos"),
        token=("pos", TOKENS),
        clean_score=("prompt", np.linspace(3, 4, 8)),
        corrupt_score=("prompt", np.full(8, -2.0)),
    )


@pytest.fixture
def by_hand():
    """Means 2, -1, 1 and nothing, of two prompts."""
    values = [[[1.0, 3.0], [-1.0, -1.0]], [[0.5, 1.5], [np.nan, 1.0]]]
    return xr.DataArray(values, dims=("layer", "head", "prompt"), attrs={"unit": "nats"})


def test_cells_worked_out_by_hand(by_hand):
    grid = read_grid(by_hand)
    assert [cell.value for cell in grid.cells[:3]] == [2.0, -1.0, 1.0]
    assert [cell.rank for cell in grid.cells] == [1, 2, 3, None]
    assert [cell.share for cell in grid.cells[:3]] == [0.5, 0.25, 0.25]
    assert [cell.at for cell in grid.ranked] == [(0, 0), (0, 1), (1, 0)]
    assert (grid.largest, grid.reach, grid.n_prompts) == (2.0, 2.0, 2)
    assert plain(headline(grid)) == (
        "The largest value: layer 0, head 0, +2.00 nats, 50.0% of the total |value|."
    )
    assert [plain(sentence) for sentence in sentences(grid)] == [
        "Each cell is the mean over 2 prompts: too few for an interval.",
        "1 of 4 cells were not computed.",
    ]


def test_intervals_are_those_of_the_statistics(effect):
    grid = read_grid(effect)
    found = stats.interval(effect)
    for name, values in (("mean", "value"), ("low", "low"), ("high", "high")):
        shown = [getattr(cell, values) for cell in grid.cells]
        np.testing.assert_array_equal(shown, found[name].values.ravel())
    n_clear = int(((found["low"] > 0) | (found["high"] < 0)).sum())
    assert f"{n_clear} of 20 intervals exclude zero" in plain(sentences(grid)[1])
    assert plain(sentences(grid)[1]).endswith("about 1 would.")


def test_statistics_can_be_shown_as_they_came(effect):
    found = stats.difference(effect, 0 * effect)
    grid = read_grid(found.set_coords(["low", "high", "n"])["mean"])
    direct = read_grid(effect)
    assert [cell.low for cell in grid.cells] == [cell.low for cell in direct.cells]
    assert (grid.n_prompts, grid.level) == (8, 0.95)


@pytest.mark.parametrize(
    ("dims", "first"),
    [
        (("layer", "head", "pos"), "pos"),
        (("layer", "head", "ablation"), "ablation"),
        (("head", "pos", "src"), "head"),
        (("layer", "head", "neuron"), "layer"),
    ],
)
def test_maps_are_repeated_along_what_is_least_a_place(dims, first):
    grid = read_grid(swept(2, 3, 4, dims=dims))
    assert [axis.name for axis in grid.axes] == [first, *(d for d in dims if d != first)]
    shape = [len(axis.labels) for axis in grid.axes]
    values = np.reshape([cell.value for cell in grid.cells], shape)
    expected = swept(2, 3, 4, dims=dims).mean("prompt").transpose(first, ...)
    np.testing.assert_allclose(values, expected)


def test_labels_are_the_coordinates(effect):
    layer, pos = read_grid(effect.assign_coords(layer=[2, 4, 6, 8])).axes
    assert layer.labels == ("2", "4", "6", "8")
    assert (pos.labels, pos.tokens) == (("0", "1", "2", "3", "4"), tuple(TOKENS))
    grid = read_grid(effect.drop_vars(["layer", "token"]))
    assert [axis.labels[-1] for axis in grid.axes] == ["3", "4"]
    assert grid.axes[1].tokens == ()


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


def test_policy_allows_exactly_the_style_and_script_of_the_page(effect):
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


def test_payload_is_the_data(effect):
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


def test_size_of_a_large_page():
    html = grid_page(swept(12, 12, 15, dims=("layer", "head", "pos"), n=5), title="x")
    assert html.count("<figure>") == 15
    assert len(html) < 500_000


def test_cells_without_a_value_say_so(open_page):
    result = swept(3, 4)
    result[1, 2] = math.nan
    page = open_page(grid_page(result, title="x")).page
    page.locator("td.na").hover()
    assert page.locator("#d-rank").text_content() == "not computed"
    assert page.locator("#d-value").text_content() == "–"
    assert page.locator(".legend .na").count() == 1
    assert "1 of 12 cells were not computed." in page.locator("header").text_content()
    assert "not computed" not in grid_page(swept(3, 4), title="x").split("<script")[0]


def test_nothing_computed_says_so(open_page):
    opened = open_page(grid_page(swept(3, 4) * math.nan, title="x"))
    assert "No cell has a value." in opened.page.locator(".lead").text_content()
    assert opened.complaints == []


@WIDTHS
@pytest.mark.parametrize(
    "result",
    [
        swept(4, dims=("layer",)),
        swept(12, 12),
        swept(30, 64, n=2),
        swept(3, 4, 5, dims=("act", "layer", "pos"), act=["z", "mlp_out", "q"]),
    ],
    ids=["bars", "map", "wide", "maps"],
)
def test_page_asks_for_nothing_fits_the_window_and_shows_all_numbers(open_page, result, width):
    opened = open_page(grid_page(result, title="A title"), width=width)
    assert opened.requests == [opened.url]
    assert opened.complaints == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    means = result.mean("prompt").values
    if means.ndim == 1:
        texts = opened.page.locator("#bars .score").all_text_contents()
        np.testing.assert_allclose([number(text) for text in texts], means, atol=1e-3)
    else:
        shown = np.squeeze(heat_values(opened.page))
        np.testing.assert_allclose(shown, means, atol=0.0501)


def test_hover_and_focus_show_the_exact_cell(open_page, effect):
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


def test_hover_in_a_map_of_many_names_the_map(open_page):
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


def test_page_reads_without_scripts(open_page, effect):
    page = open_page(grid_page(effect, title="x"), java_script_enabled=False).page
    (values,) = heat_values(page)
    np.testing.assert_allclose(values, effect.mean("prompt"), atol=0.0501)
    heads = page.locator(".heat .labels th").all_text_contents()
    assert [head.split() for head in heads] == [
        [str(pos), show(token)] for pos, token in enumerate(TOKENS)
    ]
    assert page.locator("#ranked tbody tr").count() == 20
    assert not page.get_by_text("Hover or focus").is_visible()


@WIDTHS
def test_hostile_labels_are_text(open_page, width):
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
def test_colours_are_warm_for_positive_and_cold_for_negative(open_page, scheme):
    values = np.array([[[2.0], [-2.0]], [[0.0], [1.0]]])
    result = xr.DataArray(values, dims=("layer", "head", "prompt"))
    page = open_page(grid_page(result, title="x"), color_scheme=scheme).page
    colours = page.locator(".heat tbody td").evaluate_all(
        "cells => cells.map(c => getComputedStyle(c).backgroundColor.match(/\\d+/g).map(Number))"
    )
    warmth = [red - blue for red, _, blue in colours]
    assert warmth[0] > 60 > -60 > warmth[1]
    assert abs(warmth[2]) < 15
    assert warmth[3] > 20


def printed(result, *, width=100, top=15, **options) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    print_grid(result, top=top, console=console)
    return console.file.getvalue()


def test_terminal_shows_a_heat_map_that_is_the_data(effect):
    text = printed(effect)
    assert "\x1b" not in text
    after = text[text.index("layer ↓") :].splitlines()[2:6]
    shown = [[number(part) for part in line.split()] for line in after]
    np.testing.assert_array_equal([row[0] for row in shown], range(4))
    np.testing.assert_allclose([row[1:] for row in shown], effect.mean("prompt"), atol=0.0501)
    assert "pos: 0 <|endoftext|> · 1 When · 2 ␣Mary · 3 ↵ · 4 ␣went" in text


def test_terminal_lists_the_strongest_cells_with_all_that_is_known_of_them(effect):
    text = printed(effect, top=3)
    grid = read_grid(effect)
    rows = re.findall(r"^(\d) +(\d) .*?([+−]\d\.\d\d) +(\S+) to (\S+) +(\S+%)", text, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [1, 2, 3]
    for row, cell in zip(rows, grid.ranked[:3], strict=True):
        assert int(row[1]) == cell.at[0]
        found = [number(part) for part in row[2:5]]
        np.testing.assert_allclose(found, [cell.value, cell.low, cell.high], atol=0.0051)
    for piece in (
        "value logits",
        "95% interval",
        "mean over 8 prompts",
        "Positive: the head helps.",
    ):
        assert piece in text
    assert "clean score, mean: +3.50 logits" in text
    assert "Token-layers computed: 1,500 (4.0× fewer)" in text


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("shape", [(4,), (4, 12), (30, 64), (3, 4, 5)])
def test_no_line_is_wider_than_the_terminal(shape, width):
    text = printed(swept(*shape, dims=("layer", "head", "pos")[: len(shape)]), width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert ("layer ↓" in text) == (len(shape) == 2 and 6 * shape[1] < width)


def test_narrow_terminal_prints_a_line_for_each_cell(effect):
    text = printed(effect, width=44, top=2)
    top = read_grid(effect).ranked[0]
    assert f"1. {plain(place(read_grid(effect), top))}: " in text.replace("\n", " ")


def test_hostile_labels_are_printed_as_text():
    result = swept(5, 2, dims=("layer", "pos"), layer=HOSTILE, token=("pos", HOSTILE[3:]))
    text = printed(result, width=200, force_terminal=True, color_system="truecolor")
    assert r"\x1b[31m[bold]" in text
    assert "\x1b[31m[bold]" not in text
    assert "\u202e" not in text


def test_ascii_terminal_gets_ascii(effect):
    for width in (28, 60, 100):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        print_grid(effect, console=Console(file=stream, width=width))
        stream.flush()
        assert "_Mary" in stream.buffer.getvalue().decode("ascii")


def test_terminal_colours_follow_the_sign_and_leave_small_values_alone():
    colours = [terminal_style(score, 2.0).split(" on #") for score in (2.0, -2.0)]
    warmth = [int(cell[:2], 16) - int(cell[4:], 16) for _, cell in colours]
    assert warmth[0] > 60 > -60 > warmth[1]
    assert [terminal_style(score, 2.0) for score in (0.1, math.nan)] == ["dim", "dim"]
