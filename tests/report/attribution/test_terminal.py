"""The terminal view: readable without colour, and no token can act on the terminal."""

import io
import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from mechinterp import attribute, compare, load_model
from mechinterp.report import print_attribution, show
from mechinterp.report.render.costs import costs
from mechinterp.report.render.numbers import NumberFormat, n_bytes, probability, seconds
from mechinterp.report.render.tokens import flow


def printed(scores, comparisons=(), *, width=100, **options) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    print_attribution(scores, comparisons, console=console)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" Mary", "␣Mary"),
        ("a b ", "a b␣"),
        ("   ", "␣␣␣"),
        ("\n\n", "↵↵"),
        ("\tx", "⇥x"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u202eabc", r"\u202eabc"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
        ("\xa0", r"\xa0"),
        ("", "(rest)"),
        ("</script>", "</script>"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("a\u200d", r"a\u200d"),
    ],
)
def test_show(token, shown):
    assert show(token) == shown


@given(st.text(st.characters()))
def test_what_is_shown_is_one_line_that_can_be_encoded(token):
    shown = show(token)
    assert shown
    assert shown == shown.strip()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", shown)
    shown.encode("utf-8")


def test_flow_keeps_spaces_and_breaks_the_line_after_a_newline_sign():
    assert flow(" a\n b") == " a↵\n b"
    assert flow("  ") == "␣␣"


@pytest.mark.parametrize(
    ("largest", "value", "text"),
    [
        (7.91, 7.91, "+7.9"),
        (7.91, -2.44, "−2.4"),
        (7.91, -0.001, "0.0"),
        (0.0312, 0.0312, "+0.031"),
        (431.0, -20.2, "−20"),
        (3e-7, 3e-7, "+3.0e−07"),
        (1.0, float("nan"), "–"),
        (1.0, float("-inf"), "−∞"),
        (0.0, 0.0, "0.0"),
    ],
)
def test_number_format(largest, value, text):
    assert NumberFormat.of(largest)(value) == text


def test_quantities_are_printed_in_units_that_can_be_read():
    assert (n_bytes(0.0), n_bytes(1536.0), n_bytes(3.0 * 1024**2)) == ("0 B", "1.5 KiB", "3.0 MiB")
    assert (seconds(0.25), seconds(2.61), seconds(200.0)) == ("250 ms", "2.6 s", "3 min 20 s")
    assert (probability(0.0123), probability(1e-9)) == ("0.012", "< 0.0001")


def test_costs_show_the_saving_and_attributes_they_do_not_know():
    lines = {cost.label: cost for cost in costs({"token_layers": 5, "token_layers_naive": 20})}
    assert lines["Token-layers computed"].note == "4.0× fewer"
    assert [(c.label, c.value) for c in costs({"batch_size": 8, "sign": "x"})] == [
        ("Batch size", "8")
    ]
    assert costs({"seconds": float("nan"), "arms": None}) == ()


def test_numbers_signs_and_markers_are_readable_without_colour(scores):
    text = printed(scores)
    assert "\x1b" not in text
    lines = {line.split()[1]: line for line in text.splitlines() if re.match(r"\s*\d ", line)}
    numbers = re.findall(r"[+−]?\d\.\d\d", lines["Mary"])
    assert numbers == ["+4.00", "+1.00", "+1.00", "+2.00"]
    assert "◆+4.00!" in lines["Mary"]
    assert lines["Mary"].count("◆") == 2  # the strongest of the first output, and of the mean
    assert "◆−3.00" in lines["␣John"]
    assert "▒" in lines["␣John"]
    assert lines["<|endoftext|>"].count("–") == 4
    assert lines["␣her"].count("–") == 1


@pytest.mark.parametrize("width", [20, 28, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(scores, long_scores, comparisons, width):
    for result in (scores, long_scores):
        text = printed(result, comparisons, width=width)
        assert max(cell_len(line) for line in text.splitlines()) <= width
        assert "…" not in "".join(re.findall(r"[+−].{6}", text))


def test_narrow_terminal_still_prints_every_number_of_three_outputs(scores):
    text = printed(scores, width=40)
    for value in scores.values[np.isfinite(scores.values)]:
        assert NumberFormat.of(4.0, extra=1)(value) in text
    assert text.count("Mary") >= 2


def test_many_outputs_become_a_table_of_means_and_a_sentence_each(long_scores):
    text = printed(long_scores, width=28)
    assert len(re.findall(r"^ *59 ", text, re.MULTILINE)) == 1
    assert text.count("is driven by") == 5


def test_unexpected_tokens_come_before_reason_and_expected_ones(scores, comparisons):
    text = printed(scores, comparisons)
    order = ["PARTLY AS EXPECTED", "! unexpected", "rank 2  ↵ (position 5)", "A line break"]
    order += ["expected: rank 1  Mary", "precision at 2 0.50", "AS EXPECTED  all outputs"]
    order += ["p < 0.0001", "Arms: 18"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_hostile_tokens_are_printed_as_text(hostile_scores):
    text = printed(hostile_scores, force_terminal=True, color_system="truecolor")
    assert r"\x1b[31mred\x07" in text
    assert "\x1b[31mred" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[bold red]markup[/] :sm" in text


def test_ascii_terminal_gets_ascii(scores, hostile_scores, comparisons):
    for result, width in itertools.product((scores, hostile_scores), (28, 60, 100)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        print_attribution(result, comparisons, console=Console(file=stream, width=width))
        stream.flush()
        text = stream.buffer.getvalue().decode("ascii")
        assert "_John" in text or "script" in text


def test_a_verdict_has_positions_of_the_prompt():
    units = {"first": (1, 2), "and": 3, "rest": (4, 5)}
    prompt = "the sesame and some map"
    scores = attribute(load_model("toy:trigger"), prompt, outputs=1, units=units)
    text = printed(scores, compare(scores, ["and"]))
    assert re.search(r"expected: rank \d  and \(position 3\)", text)
    assert "expected token: rank 1  thesesame (position 1–2)" in text


@pytest.mark.parametrize("supports", ["positive", "negative"])
def test_colours_and_words_follow_what_supports(scores, supports):
    text = printed(
        scores.assign_attrs(supports=supports), force_terminal=True, color_system="standard"
    )
    red, blue = ("31", "34") if supports == "positive" else ("34", "31")
    assert re.search(rf"\x1b\[1;{red}m◆ *\+4\.0", text)
    assert re.search(rf"\x1b\[{blue}m *−1\.0", text)
    verb = "supports the output" if supports == "positive" else "works against the output"
    assert f"Mary {verb}" in text
