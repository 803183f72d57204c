"""Pairs of inputs: sorted by interaction, with what each of the three removals did."""

import io

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from mechinterp import attribute_pairs, load_model, refusal_log_odds
from mechinterp.report import print_interactions
from mechinterp.report.attribution.interactions import meaning, read_interactions


def printed(found, **options):
    console = Console(file=io.StringIO(), width=options.pop("width", 100))
    print_interactions(found, console=console, **options)
    return console.file.getvalue()


def test_pairs_worked_out_by_hand(pairs):
    found = read_interactions(pairs)
    first, second, mean = found.rows
    assert [
        (p.first.token, p.second.token, p.without_first, p.without_second, p.without_both)
        for p in first.pairs
    ] == [("sesame", "copper", 0, 0, 6), ("sesame", "the", 0, 3, 1), ("copper", "the", 0, 3, 3)]
    assert [p.interaction for p in first.pairs] == [-6, 2, 0]
    assert [p.second.token for p in second.pairs] == ["the", "copper"]  # one was not removed
    assert [p.interaction for p in mean.pairs] == [-2.995, 1.25]
    assert (found.largest, found.scale) == (6, 6)
    assert np.isnan(first.square[0][0])


@pytest.mark.parametrize(
    ("interaction", "says"),
    [
        (-6.0, "stand in for each other"),
        (2.0, "need each other"),
        (0.29, "add up"),
        (-0.29, "add up"),
        (0.0, "add up"),
        (float("nan"), ""),
    ],
)
def test_meaning(pairs, interaction, says):
    least = read_interactions(pairs).least
    assert least == pytest.approx(0.3)  # a twentieth of the largest number
    assert meaning(interaction, least) == says
    assert meaning(interaction, np.inf) == ""


def test_a_pair_means_little_beside_what_removing_everything_does(pairs):
    whole = pairs["score"].assign_coords(joint_effect=("output", [60.0, np.nan]))
    found = read_interactions(pairs.assign(score=whole))
    assert (found.scale, found.least) == (6, 3)
    assert meaning(2.0, found.least) == "add up"


def test_pairs_mean_nothing_where_there_is_no_effect_to_explain():
    model = load_model("toy:refusal")
    odds = refusal_log_odds(model, refusals=["REFUSE"], compliances=["COMPLY"])
    found = attribute_pairs(model, "bring the velvet map", 1, metric=odds)
    assert float(found["interaction"].min()) < -0.5
    assert "stand in" not in printed(found).replace("Negative: each stands in", "")
    assert "redundancy: " not in printed(found)


def test_what_is_no_result_of_pairs_is_refused(pairs, scores):
    with pytest.raises(ValueError, match=r"lack \['interaction'\]"):
        read_interactions(pairs.drop_vars("interaction"))
    with pytest.raises(ValueError, match="output, first, second"):
        read_interactions(pairs.assign(interaction=pairs["interaction"].isel(first=0)))
    with pytest.raises(ValueError, match="no pair to show"):
        read_interactions(pairs.assign(interaction=pairs["interaction"] * np.nan))


def test_terminal_says_what_each_pair_means(pairs):
    text = printed(pairs)
    assert "! redundancy: sesame and copper stand in for each other: removed together they" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "sesame copper −6.00 stand in for each other 0.00 0.00 +6.00" in lines
    assert "sesame the +2.00 need each other 0.00 +3.00 +1.00" in lines
    assert "copper the 0.00 add up 0.00 +3.00 +3.00" in lines
    assert text.index("−6.00") < text.index("+2.00")
    assert "add up" not in printed(pairs, top=2)[: text.index("now")]
    with pytest.raises(ValueError, match="top is 0"):
        printed(pairs, top=0)


@pytest.mark.parametrize("width", [30, 60, 90])
def test_terminal_keeps_the_interaction_where_there_is_no_room(pairs, width):
    text = printed(pairs, width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    for number in ("−6.00", "+2.00"):
        assert number in text


def test_an_ascii_terminal_gets_ascii(pairs):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_interactions(pairs, console=Console(file=stream, width=80))
    stream.flush()
    assert b"-6.00" in stream.buffer.getvalue()
