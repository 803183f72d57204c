"""The page: what it says equals the data, it runs nothing but itself, and a keyboard is enough."""

import base64
import hashlib
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from mechinterp.report import attribution_page, show
from mechinterp.report.attribution.read import read_scores
from mechinterp.report.attribution.summary import headline, sentence
from mechinterp.report.render.colours import (
    colour_class,
    contrast,
    neutral_scale,
    scale_classes,
    scale_css,
)
from mechinterp.report.render.numbers import MINUS
from mechinterp.report.render.phrases import plain

WIDTHS = pytest.mark.parametrize("width", [1280, 400])


def number(text: str) -> float:
    return math.nan if text == "–" else float(text.replace(MINUS, "-"))


def payload(html: str) -> dict:
    return json.loads(re.search(r'id="payload">(.*?)</script>', html, re.DOTALL)[1])


def test_ranks_shares_and_mean_worked_out_by_hand(scores):
    reading = read_scores(scores)
    first = reading.rows[0]
    assert first.ranks == (None, 1, 3, 4, 5, 2, None)
    assert first.shares[1:6] == (0.5, 0.125, 0.0625, 0.0, 0.3125)
    assert first.order == (1, 5, 2, 3, 4, 0, 6)
    np.testing.assert_allclose(
        reading.mean.scores, [math.nan, 2.0, -1 / 6, -1.0, 1 / 3, 2.5 / 3, -0.5]
    )
    assert reading.largest == 4.0
    assert not any(token.repeated for token in reading.inputs)


def test_summary_names_supporters_and_opponents(scores):
    reading = read_scores(scores)
    assert plain(headline(reading)) == (
        "The strongest link: Mary supports the output ␣her by +4.0 nats, 50.0% of all effects on "
        "that output; without it, the model's top token there is another."
    )
    assert plain(sentence(reading, reading.rows[1])) == (
        "␣a is driven by Mary +1.0 nats, ␣her +1.0 and ␣gave +0.8; held back by ␣John −3.0 nats."
    )


def test_result_without_any_score_says_so(scores):
    nothing = scores.copy(data=np.full(scores.shape, math.nan))
    html = attribution_page(nothing)
    assert "No input has any effect" in html
    assert "not attributed" in html


def test_infinite_score_is_shown_and_not_ranked(scores):
    data = scores.values.copy()
    data[0, 1] = math.inf
    reading = read_scores(scores.copy(data=data))
    assert reading.rows[0].ranks[1] is None
    assert reading.largest == 3.0
    assert "+∞" in attribution_page(scores.copy(data=data))


def test_wrong_input_is_refused_with_what_to_do(scores):
    with pytest.raises(ValueError, match="Average or select"):
        read_scores(scores.expand_dims(prompt=2))
    with pytest.raises(ValueError, match=r"input_role.*arithmetic"):
        read_scores(scores.drop_vars("input_role"))
    with pytest.raises(ValueError, match="no score to show"):
        read_scores(scores[:, :0])


def test_argument_is_not_changed(scores, comparisons):
    before = scores.copy(deep=True)
    attribution_page(scores, comparisons)
    xr.testing.assert_identical(scores, before)


def test_every_colour_has_readable_ink():
    rules = re.findall(r"--cell:#(\w{6});--ink:#(\w{6})", scale_css())
    assert len(rules) == 2 * (len(scale_classes()) + len(neutral_scale()))
    for cell, ink in rules:
        assert contrast(tuple(bytes.fromhex(cell)), tuple(bytes.fromhex(ink))) >= 4.5


def test_colour_is_symmetric_and_saturates():
    assert [colour_class(score, 2.0) for score in (-2.0, -1.0, 0.0, 1.0, 2.0)] == [
        "con20", "con10", "z", "pro10", "pro20",
    ]  # fmt: skip
    assert colour_class(math.nan, 2.0) == "na"
    assert colour_class(0.0, 0.0) == "z"


def test_payload_is_the_data(scores):
    (data,) = payload(attribution_page(scores))["levels"]
    exact = [[number(text) for text in row["exact"]] for row in data["rows"]]
    np.testing.assert_allclose(exact[:3], scores.values, atol=1e-6)
    np.testing.assert_allclose(exact[3], scores.mean("output").values, atol=1e-4)
    assert [token["id"] for token in data["inputs"]] == list(scores["input_token_id"].values)


def test_policy_allows_exactly_the_style_and_script_of_the_page(scores):
    html = attribution_page(scores)
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', html)[1]
    policy = policy.replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; ")
    for kind, pattern in (("style", "<style>(.*?)</style>"), ("script", "<script>(.*?)</script>")):
        (body,) = re.findall(pattern, html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not re.search(
        r"\sstyle=|\son\w+=|https?://", re.sub(r"<script.*", "", html, flags=re.DOTALL)
    )


def test_page_of_5_outputs_and_60_inputs_is_small(long_scores):
    assert len(attribution_page(long_scores).encode()) < 300_000


def test_unexpected_tokens_are_listed_before_expected_ones(scores, comparisons):
    html = attribution_page(scores, comparisons)
    marks = ["partly as expected", "A line break outranks", "Unexpected, yet ranked above"]
    marks += ["Expected tokens</h4>", "Precision at 2", "All outputs together", "&lt; 0.0001"]
    places = [html.index(mark) for mark in marks]
    assert places == sorted(places)


def test_report_imports_no_model_library():
    code = (
        "import sys, mechinterp.report;"
        "sys.exit(bool({'torch', 'transformers', 'transformer_lens'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@WIDTHS
def test_page_asks_for_nothing_and_fits_the_window(open_page, scores, comparisons, width):
    opened = open_page(attribution_page(scores, comparisons), width=width)
    opened.page.wait_for_timeout(300)
    assert opened.requests == [opened.url]
    assert opened.complaints == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width


@WIDTHS
def test_hostile_tokens_are_text(open_page, hostile_scores, width):
    html = attribution_page(hostile_scores, title="</title><script>window.pwned=4</script>")
    opened = open_page(html, width=width)
    page = opened.page
    page.locator("#outputs button").last.click()
    page.locator(".word").first.hover()
    page.wait_for_timeout(300)
    assert page.evaluate("window.pwned") is None
    assert (opened.requests, opened.complaints) == ([opened.url], [])
    assert page.evaluate("document.documentElement.scrollWidth") == width
    raw = [str(token) for token in hostile_scores["input_token"].values]
    assert page.locator("#d-token").text_content() == raw[0]
    headings = page.locator(".heat thead th").all_text_contents()
    assert headings == [show(token) for token in raw]
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "</title><script>window.pwned=4</script>"


@pytest.mark.parametrize("scripts", [True, False])
def test_numbers_in_the_page_equal_the_data(open_page, scores, scripts):
    page = open_page(attribution_page(scores), java_script_enabled=scripts).page
    cells = [row.locator("td").all_text_contents() for row in page.locator(".heat tbody tr").all()]
    shown = np.array([[number(text) for text in row] for row in cells])
    np.testing.assert_allclose(shown[:3], scores.values, atol=0.0501)
    np.testing.assert_allclose(shown[3], scores.mean("output").values, atol=0.0501)
    table = page.locator(".scores .score").all_text_contents()
    assert [number(text) for text in table[:5]] == [4.0, 2.5, -1.0, 0.5, 0.0]


def test_page_without_scripts_says_so_and_offers_no_dead_buttons(open_page, scores, comparisons):
    page = open_page(attribution_page(scores, comparisons), java_script_enabled=False).page
    assert page.get_by_text("Scripts are off").is_visible()
    assert not page.locator("#outputs").is_visible()
    assert page.get_by_text("partly as expected").is_visible()
    assert "The strongest link" in page.locator(".lead").text_content()
    assert "4.0× fewer" in page.locator(".costs").text_content()


def test_keyboard_alone_reaches_outputs_tokens_and_cells(open_page, scores):
    page = open_page(attribution_page(scores)).page
    press, text = page.keyboard.press, lambda name: page.locator(name).text_content()
    focused = "document.activeElement.getAttribute('role')"

    press("Tab")
    assert page.evaluate(focused) == "radio"
    press("ArrowRight")
    assert page.locator("[aria-checked=true]").text_content().startswith("␣a")
    assert [number(t) for t in page.locator(".scores .score").all_text_contents()[:2]] == [-3, 1]
    press("End")
    assert page.locator("[aria-checked=true]").text_content() == "All outputs mean"
    press("Home")

    press("Tab")
    assert page.evaluate(focused) == "option"
    press("Home")
    assert (text("#d-token"), text("#d-score")) == ("<|endoftext|>", "–")
    press("ArrowRight")
    press("ArrowRight")
    assert (text("#d-token"), text("#d-output")) == ("␣and", "␣her")
    assert number(text("#d-score")) == -1.0
    details = [text(f"#d-{name}") for name in ("rank", "share", "pos", "id", "flips")]
    assert details == ["3 of 5", "12.5%", "2", "42", "stays"]

    press("Tab")
    assert page.evaluate(focused) == "gridcell"
    press("Control+End")
    assert (text("#d-token"), text("#d-output")) == ("␣her", "mean")
    press("ArrowUp")
    assert (text("#d-output"), number(text("#d-score"))) == ("␣drink", -2.0)
    press("Enter")
    assert page.locator("[aria-checked=true]").text_content().startswith("␣drink")


def test_hover_shows_exact_numbers_and_links_the_views(open_page, scores):
    page = open_page(attribution_page(scores)).page
    page.locator(".heat tbody tr").nth(1).locator("td").nth(3).hover()
    assert number(page.locator("#d-score").text_content()) == -3.0
    assert page.locator("#d-rank").text_content() == "1 of 6"
    assert page.locator(".word.linked").text_content() == " John"
    assert page.locator(".scores tr.linked th").text_content() == "␣John"


def test_what_no_removal_showed_is_not_said(open_page, scores):
    """Gradients remove nothing: that the top token "stays" would be made up."""
    for given, said in ((scores, True), (scores.drop_vars("flip"), False)):
        html = attribution_page(given)
        assert ("Top token without it" in html) == said
        page = open_page(html).page
        page.locator(".heat tbody td").nth(2).hover()
        assert page.locator("#d-score").text_content()
        assert page.locator("#d-flips").count() == said


def test_tokens_after_the_output_leave_the_prompt_line(open_page, scores):
    page = open_page(attribution_page(scores)).page
    later = page.locator(".word.output")
    assert not later.is_visible()
    page.locator("#outputs button").nth(1).click()
    assert later.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@WIDTHS
def test_screenshot_shows_the_scale(open_page, browser, scores, comparisons, width, scheme):
    html = attribution_page(scores, comparisons)
    page = open_page(html, width=width, color_scheme=scheme).page
    whole = pixels(browser, page.screenshot(full_page=True))
    assert (whole["width"], whole["height"] > 1000) == (width, True)
    assert whole["n_colours"] > 100
    warmth = {}
    for name in ("pro20", "z", "con15"):
        image = page.locator(f".heat tbody td.{name}").first.screenshot()
        red, _, blue = pixels(browser, image)["corner"]
        warmth[name] = red - blue
    assert warmth["pro20"] > warmth["z"] + 60
    assert warmth["con15"] < warmth["z"] - 60


def pixels(browser, png: bytes) -> dict:
    """Size, number of distinct colours, and the colour a few pixels off the lower left corner."""
    page = browser.new_page()
    found = page.evaluate(
        """async (png) => {
          const image = new Image();
          image.src = "data:image/png;base64," + png;
          await image.decode();
          const canvas = new OffscreenCanvas(image.width, image.height);
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          const all = context.getImageData(0, 0, image.width, image.height).data;
          return {
            width: image.width,
            height: image.height,
            n_colours: new Set(new Uint32Array(all.buffer)).size,
            corner: [...context.getImageData(5, image.height - 6, 1, 1).data].slice(0, 3),
          };
        }""",
        base64.b64encode(png).decode(),
    )
    page.close()
    return found
