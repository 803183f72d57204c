"""What the page has beside one result: levels, pairs, faithfulness, a second result.

It is readable without scripts, and with them one choice of output and level serves every part.
"""

import io
import json
import math
import re
import warnings

import numpy as np
import pytest
from rich.console import Console

from mechinterp import ask, attribute_pairs, load_model
from mechinterp.attribution.methods.levels import attribute_by_level
from mechinterp.attribution.methods.single_removal import RedundancyWarning, leave_one_out
from mechinterp.attribution.trust.evaluation import summarise
from mechinterp.attribution.trust.faithfulness import faithfulness
from mechinterp.report import attribution_page, print_faithfulness, print_interactions
from mechinterp.report.attribution.read import read_scores
from mechinterp.report.render.numbers import MINUS

HOSTILE = "</script><script>window.pwned=1</script>"
WIDTHS = pytest.mark.parametrize("width", [1280, 400])


def number(text):
    return math.nan if text == "–" else float(text.replace(MINUS, "-"))


def payload(html):
    return json.loads(re.search(r'id="payload">(.*?)</script>', html, re.DOTALL)[1])


def visible(locator):
    return [part for part in locator.all() if part.is_visible()]


@pytest.fixture
def whole(unit_scores, token_scores, pairs, faithful):
    """A page with everything; the pairs are of another prompt, with the same outputs."""
    outputs = ("output", [" her", " a"])
    return attribution_page(
        {"token": token_scores, "spans": unit_scores},
        interactions=pairs.assign_coords(output_token=outputs),
        faithfulness=faithful,
        beside={"gradients": unit_scores * 0.5 + 1},
    )


# Units


def test_the_whole_unit_is_highlighted_wherever_its_tokens_stand(open_page, unit_scores):
    page = open_page(attribution_page(unit_scores)).page
    words = page.locator(".flow .word")
    assert "".join(words.all_text_contents()) == "<s>Mary met John.↵ Then Mary left."
    page.locator(".word", has_text="Mary").last.hover()
    assert page.locator(".word.linked").all_text_contents() == ["Mary", " Mary"]
    assert page.locator('.word[aria-selected="true"]').count() == 2
    details = [page.locator(f"#d-{name}").text_content() for name in ("token", "pos", "id")]
    assert details == ["her", "1, 6", "–"]
    page.locator(".word", has_text="Then").hover()
    assert page.locator(".word.linked").all_text_contents() == [" Then"]


def test_arrow_keys_go_through_the_prompt_unit_by_unit(open_page, unit_scores):
    page = open_page(attribution_page(unit_scores)).page
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Home")
    seen = []
    for _ in range(6):
        seen.append(page.evaluate("document.activeElement.textContent"))
        page.keyboard.press("ArrowRight")
    assert seen == ["<s>", "Mary", " met John.↵", " Then", " Mary", " left."]


def test_standard_errors_follow_the_output(open_page, unit_scores):
    html = attribution_page(unit_scores)
    assert payload(html)["levels"][0]["rows"][0]["error"][1:4] == [
        "± 0.5000",
        "± 0.2500",
        "± 0.1250",
    ]
    page = open_page(html).page
    row = page.locator('.scores tr[data-i="4"]')
    assert (row.locator(".error").text_content(), row.locator(".whisker").count()) == ("", 0)
    page.locator("#outputs button").nth(1).click()
    assert row.locator(".error").text_content() == "± 0.5000"
    assert row.locator(".whisker").count() == 1
    page.locator("#outputs button").last.click()
    assert page.locator(".scores .whisker").count() == 0  # the mean of several has none


def test_a_page_without_errors_has_no_column_for_them(token_scores):
    assert "± " not in attribution_page(token_scores)
    assert "Standard error" not in attribution_page(token_scores)


def test_the_many_inputs_without_a_score_are_left_out_of_tables(open_page, long_scores):
    some = long_scores.where(long_scores["input"] % 10 == 0)
    page = open_page(attribution_page(some)).page
    assert page.locator(".heat thead th").count() == 6
    assert page.locator(".scores tbody tr").count() == 6
    assert page.locator(".flow .word").count() == 60
    assert page.get_by_text("54 such inputs are left out").is_visible()
    page.locator(".word", has_text="word11").hover()
    assert page.locator("#d-token").text_content() == "␣word11"
    cells = page.locator(".heat tbody tr").first.locator("td")
    cells.first.click()
    page.keyboard.press("ArrowRight")
    assert page.locator("#d-token").text_content() == "␣word10"
    page.keyboard.press("End")
    assert page.locator("#d-token").text_content() == "␣word50"


# Sums and warnings


@pytest.mark.parametrize("scripts", [True, False])
def test_how_far_scores_add_up_is_said(open_page, unit_scores, scripts):
    page = open_page(attribution_page(unit_scores), java_script_enabled=scripts).page
    assert page.locator(".adds-up").text_content().startswith("The scores add up to 75% of what")
    section = page.locator("section", has_text="Do the scores add up?").last
    cells = [row.locator("td").all_text_contents() for row in section.locator("tbody tr").all()]
    assert [row[-1] for row in cells] == ["75%", "5%"]
    assert [[number(text) for text in row[:2]] for row in cells] == [[6, 8], [0.5, 10]]
    alert = page.locator(".alert")
    assert "Something stands in for what is removed" in alert.text_content()
    if scripts:
        page.locator("#outputs button").nth(1).click()
        assert "add up to 5%" in page.locator(".adds-up").text_content()


def test_without_such_a_measurement_nothing_is_claimed(token_scores):
    html = attribution_page(token_scores)
    assert "Whether the scores add up is not known" in html
    assert "Do the scores add up?" not in html
    assert 'class="alert"' not in html


# Levels


def test_a_picker_switches_the_level_and_keeps_the_output(open_page, whole):
    opened = open_page(whole)
    page = opened.page
    assert page.locator("#levels button").all_text_contents() == ["tokens", "spans"]
    flows = page.locator(".level .flow")
    assert [flow.is_visible() for flow in flows.all()] == [True, False]
    page.locator("#outputs button").nth(1).click()
    page.locator("#levels button").nth(1).click()
    assert [flow.is_visible() for flow in flows.all()] == [False, True]
    (table,) = visible(page.locator(".scores"))
    shown = [number(text) for text in table.locator(".score").all_text_contents()]
    assert shown[:4] == [-1.0, 0.75, 0.5, 0.25]
    assert page.locator("#d-token").text_content() == "her"
    assert page.locator("#d-output").text_content() == "␣a"
    page.locator("#levels button").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#levels [aria-checked=true]").text_content() == "spans"
    page.keyboard.press("ArrowRight")
    assert page.locator("#levels [aria-checked=true]").text_content() == "tokens"
    assert [flow.is_visible() for flow in flows.all()] == [True, False]
    assert opened.complaints == []


def test_without_scripts_every_level_unfolds(open_page, whole):
    page = open_page(whole, java_script_enabled=False).page
    assert not page.locator("#levels").is_visible()
    flows = page.locator(".level .flow")
    assert [flow.is_visible() for flow in flows.all()] == [True, False]
    page.locator(".level summary", has_text="By spans").click()
    assert [flow.is_visible() for flow in flows.all()] == [True, True]
    shown = page.locator(".level").nth(1).locator(".score").all_text_contents()
    assert [number(text) for text in shown][:4] == [4.0, 2.0, 0.5, -0.5]


def test_one_result_has_no_picker_of_levels(open_page, unit_scores):
    page = open_page(attribution_page(unit_scores)).page
    assert page.locator("#levels").count() == 0
    assert page.locator("details.level").count() == 0


# Pairs


def test_the_table_of_pairs_is_the_data(open_page, pairs):
    page = open_page(attribution_page(pairs)).page  # its own interactions
    (table,) = visible(page.locator("table.pairs"))
    rows = [row.locator("td").all_text_contents() for row in table.locator("tbody tr").all()]
    assert [(number(r[0]), r[1], *map(number, r[2:])) for r in rows] == [
        (-6.0, "stand in for each other", 0.0, 0.0, 6.0),
        (2.0, "need each other", 0.0, 3.0, 1.0),
    ]
    assert page.get_by_text("The map has 1 more pair").first.is_visible()
    (square,) = visible(page.locator(".square"))
    cells = [row.locator("td").all_text_contents() for row in square.locator("tbody tr").all()]
    shown = [[number(text) for text in row] for row in cells]
    np.testing.assert_allclose(shown, pairs["interaction"].values[0])
    assert "sesame and copper stand in for each other" in page.locator(".alert").text_content()
    page.locator("#outputs button").nth(1).click()
    (table,) = visible(page.locator("table.pairs"))
    assert number(table.locator("tbody td").first.text_content()) == 0.5


def test_pairs_of_another_question_are_refused(token_scores, pairs):
    with pytest.raises(ValueError, match=r"'interactions' is of the outputs .*REFUSE"):
        attribution_page(token_scores, interactions=pairs)


# Faithfulness


def test_figures_and_curves_are_the_data(open_page, whole, faithful):
    page = open_page(whole).page
    page.locator("#outputs button").nth(1).click()
    card = visible(page.locator(".faithful"))[1]  # the second removal
    shown = card.locator("table").first.locator("tbody tr")
    for s, row in enumerate(shown.all()):
        here = faithful.isel(scorer=s, removal=1, output=1)
        cells = [number(text) for text in row.locator("td").all_text_contents()]
        wanted = [here["comprehensiveness"], here["sufficiency"], *here["lds"]]
        wanted += [*here["drop_at_k"], *here["sufficiency_at_k"]]
        np.testing.assert_allclose(cells, [float(w) for w in wanted], atol=0.00501)
    assert "chance" in shown.nth(2).get_attribute("class")
    assert card.locator("svg polyline").count() == 6
    card.get_by_text("The curves as a table").click()
    cells = card.locator("details tbody tr").nth(4).locator("td").all_text_contents()
    assert cells[0] == "least"
    wanted = [0.0, *faithful["least_first"].values[1, 1, 1]]
    np.testing.assert_allclose([number(text) for text in cells[1:]], wanted, atol=0.00501)


def test_means_over_prompts_have_intervals(open_page, token_scores, faithful_prompts):
    page = open_page(attribution_page(token_scores, faithfulness=faithful_prompts)).page
    cell = page.locator(".faithful tbody tr").nth(1).locator("td").first
    assert cell.text_content() == "+0.75 [+0.50, +1.25]"
    assert "best" in cell.get_attribute("class")
    assert page.locator(".faithful svg").count() == 0
    assert page.get_by_text("Means over 7 prompts").is_visible()


def test_faithfulness_of_another_question_is_refused(token_scores, faithful):
    other = token_scores.assign_coords(output_token=("output", [" x", " y"]))
    with pytest.raises(ValueError, match="'faithfulness' is of the outputs"):
        attribution_page(other, faithfulness=faithful)


# Side by side


def test_two_results_stand_one_under_the_other(open_page, whole, unit_scores):
    page = open_page(whole).page
    (block,) = visible(page.locator(".beside .row-block"))
    flows = block.locator(".flow")
    assert flows.count() == 2
    assert flows.first.text_content() == flows.last.text_content()
    assert block.locator("circle.dot").count() == 4
    assert "Spearman 1.00" in block.text_content()
    rows = block.locator(".places tbody tr")
    scores = {
        row.locator("th").text_content(): [number(t) for t in row.locator("td").all_text_contents()]
        for row in rows.all()
    }
    assert scores["her"] == [1, 4.0, 1, 3.0]
    assert scores["␣left."] == [4, -0.5, 4, 0.75]
    page.locator("#levels button").nth(1).click()
    flows.last.locator(".word", has_text="Then").hover()
    assert page.locator("#d-token").text_content() == "␣Then"
    assert block.locator(".word.linked").count() == 2


def test_a_second_result_of_other_units_is_refused(unit_scores, token_scores):
    with pytest.raises(ValueError, match="beside has the units"):
        attribution_page(unit_scores, beside=token_scores)


# Everything at once


@WIDTHS
@pytest.mark.parametrize("scripts", [True, False])
def test_the_whole_page_asks_for_nothing_and_fits(open_page, whole, width, scripts):
    opened = open_page(whole, width=width, java_script_enabled=scripts)
    opened.page.wait_for_timeout(200)
    assert (opened.requests, opened.complaints) == ([opened.url], [])
    if scripts:
        assert opened.page.evaluate("document.documentElement.scrollWidth") == width


def test_without_scripts_parts_of_the_other_outputs_unfold(open_page, whole):
    page = open_page(whole, java_script_enabled=False).page
    assert len(visible(page.locator("table.pairs"))) == 1
    for summary in page.locator(".by-row > summary").all():
        if "Output ␣a" in summary.text_content():
            summary.click()
    assert len(visible(page.locator("table.pairs"))) == 2
    assert len(visible(page.locator(".faithful"))) == 4
    assert len(visible(page.locator(".beside .both"))) == 2


@WIDTHS
def test_hostile_names_are_text_in_every_part(
    open_page, unit_scores, token_scores, pairs, faithful, width
):
    outputs = ("output", [HOSTILE, '"><img src=x onerror=window.pwned=2>'])
    names = ["<s>", HOSTILE, "<svg onload=window.pwned=3>", "{{ 7 * 7 }}", "\u202eevil\x1b[31m"]
    units = unit_scores.assign_coords(
        output_token=outputs, input_token=("input", names), input_name=("input", names[::-1])
    ).assign_attrs(tokens=[HOSTILE, *names, *names[:3]], method=HOSTILE, unit=HOSTILE)
    group = {"output": 0, "units": [0, 1], "texts": [HOSTILE, names[2]], "joint": 9.0, "sum": 0.0}
    odd = pairs.assign_coords(output_token=outputs, input_token=("input", names[1:]))
    odd["score"].attrs["groups"] = [group]
    html = attribution_page(
        {HOSTILE: units, "spans": token_scores.assign_coords(output_token=outputs)},
        interactions=odd.assign_attrs(interaction_sign=HOSTILE),
        faithfulness=faithful.assign_coords(
            output_token=outputs, scorer=[HOSTILE, names[2], names[4]], removal=[HOSTILE, "x"]
        ).assign_attrs(unit=HOSTILE),
        beside={HOSTILE: units.assign_attrs(removal=names[2])},
    )
    opened = open_page(html, width=width)
    page = opened.page
    for button in [*page.locator("#levels button").all(), *page.locator("#outputs button").all()]:
        button.click()
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None
    assert (opened.requests, opened.complaints) == ([opened.url], [])
    assert page.locator("main img, main script, main svg[onload]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert "\u202e" not in html
    assert "\x1b" not in html


def test_what_the_package_measures_makes_a_page_and_is_printed():
    model, texts = load_model("toy:trigger"), ["the sesame and some sesame", "bring a sesame now"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RedundancyWarning)
        levels = attribute_by_level(model, texts[0], 1, levels=({"all": (1, 5)}, "token"))
        pairs = attribute_pairs(model, texts[0], 1)
        each = []
        for seed, text in enumerate(texts):
            question = ask(model, text, 1)
            methods = {"one out": leave_one_out(question)}
            each.append(faithfulness(question, methods, ["delete"], keep=(), k=[1], seed=seed))
    for figures in (each[0], summarise(each)):
        html = attribution_page(levels, interactions=pairs, faithfulness=figures, beside=pairs)
        assert "sesame</bdi> and <bdi" in html.replace("</span>", "")
        print_faithfulness(figures, console=Console(file=io.StringIO()))
    assert [level["inputs"][1]["label"] for level in payload(html)["levels"]] == ["all", "the"]
    print_interactions(pairs, console=Console(file=io.StringIO()))


def test_the_scale_of_a_page_is_small(whole, long_scores):
    assert len(whole.encode()) < 250_000
    assert len(attribution_page({"a": long_scores, "b": long_scores}).encode()) < 500_000


def test_arguments_are_not_changed(unit_scores, pairs, faithful):
    given = [unit_scores, pairs, faithful]
    before = [found.copy(deep=True) for found in given]
    attribution_page(pairs)
    attribution_page(unit_scores, faithfulness=faithful, beside=unit_scores)
    for now, then in zip(given, before, strict=True):
        assert now.identical(then)
    assert read_scores(unit_scores).inputs[1].where == "1, 6"
