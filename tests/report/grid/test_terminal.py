"""A grid in the terminal: what it says is the data, and no label can act."""

import io
import math
import re

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from mechinterp.report import print_grid
from mechinterp.report.render.cells import place, read_grid
from mechinterp.report.render.colours import terminal_style
from mechinterp.report.render.phrases import plain

HOSTILE = [
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=2>",
    "\"'><svg onload=window.pwned=3>",
    "\u202e\u05e9\u05dc\u05d5\u05dd",
    "{{ 7 * 7 }}\x1b[31m[bold]",
]


def printed(result, *, width=100, top=15, **options) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    print_grid(result, top=top, console=console)
    return console.file.getvalue()


def test_terminal_shows_a_heat_map_that_is_the_data(effect, number):
    text = printed(effect)
    assert "\x1b" not in text
    after = text[text.index("layer ↓") :].splitlines()[2:6]
    shown = [[number(part) for part in line.split()] for line in after]
    np.testing.assert_array_equal([row[0] for row in shown], range(4))
    np.testing.assert_allclose([row[1:] for row in shown], effect.mean("prompt"), atol=0.0501)
    assert "pos: 0 <|endoftext|> · 1 When · 2 ␣Mary · 3 ↵ · 4 ␣went" in text


def test_terminal_lists_the_strongest_cells_with_all_that_is_known_of_them(effect, number):
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
def test_no_line_is_wider_than_the_terminal(shape, width, swept):
    text = printed(swept(*shape, dims=("layer", "head", "pos")[: len(shape)]), width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert ("layer ↓" in text) == (len(shape) == 2 and 6 * shape[1] < width)


def test_narrow_terminal_prints_a_line_for_each_cell(effect):
    text = printed(effect, width=44, top=2)
    top = read_grid(effect).ranked[0]
    assert f"1. {plain(place(read_grid(effect), top))}: " in text.replace("\n", " ")


def test_hostile_labels_are_printed_as_text(swept):
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


@pytest.mark.parametrize("supports", ["positive", "negative"])
def test_terminal_colours_follow_what_supports_and_leave_small_values_alone(supports):
    sign = 1 if supports == "positive" else -1
    colours = [
        terminal_style(score, 2.0, supports).split(" on #") for score in (2.0 * sign, -2.0 * sign)
    ]
    warmth = [int(cell[:2], 16) - int(cell[4:], 16) for _, cell in colours]
    assert warmth[0] > 60 > -60 > warmth[1]
    assert [terminal_style(score, 2.0, supports) for score in (0.1, math.nan)] == ["dim", "dim"]


@pytest.mark.parametrize(("supports", "codes"), [("positive", "31"), ("negative", "34")])
def test_bars_have_the_colour_of_their_side(swept, supports, codes):
    result = abs(swept(3, dims=("layer",))).assign_attrs(supports=supports)
    text = printed(result, force_terminal=True, color_system="standard")
    found = re.findall(r"\x1b\[(\d+)m█", text)
    assert found == [codes] * 3
    assert f"{supports.capitalize()}: it supports the behaviour" in text
