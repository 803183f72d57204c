"""What a result says beside its scores: whether they add up, what they hide, how sure they are."""

import io
import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from mechinterp import attribute, kl, load_model
from mechinterp.report import print_attribution
from mechinterp.report.attribution.read import read_scores
from mechinterp.report.attribution.summary import additivity, headline, redundancies, sentence
from mechinterp.report.render.numbers import NumberFormat, plus_minus, times
from mechinterp.report.render.phrases import plain
from mechinterp.report.render.tokens import shorten
from mechinterp.stats.additivity import shows_redundancy


def printed(scores, width=100):
    console = Console(file=io.StringIO(), width=width)
    print_attribution(scores, console=console)
    return console.file.getvalue()


def with_joint(scores, joint):
    """The scores with an effect of all removed, and the residual that goes with it."""
    joint = np.array(joint)
    share = np.nansum(scores.values, 1) / np.where(joint == 0, np.nan, joint)
    return scores.assign_coords(joint_effect=("output", joint), residual=("output", 1 - share))


def test_additivity_in_words(unit_scores):
    found = read_scores(unit_scores)
    said = [plain(additivity(found, row)) for row in found.all_rows]
    assert said == [
        "The scores add up to 75% of what removing all inputs at once does: +6.00 of +8.00 nats.",
        "The scores add up to 5% of what removing all inputs at once does: +0.50 of +10.00 nats.",
        "",
    ]
    ends = with_joint(unit_scores, [0.25, 0.0])
    found = read_scores(ends)
    assert "add up to 24 times what removing" in plain(additivity(found, found.rows[0]))
    assert "changes nothing" in plain(additivity(found, found.rows[1]))
    unknown = read_scores(unit_scores.drop_vars(["joint_effect", "residual"]))
    assert "is not known" in plain(additivity(unknown, unknown.rows[0]))


def test_gradients_add_up_to_the_way_from_their_baseline(unit_scores):
    bare = unit_scores.drop_vars(["joint_effect", "residual"]).assign_coords(
        output_score=("output", [5.0, 3.0]), baseline_score=("output", [-3.0, 1.0])
    )
    found = read_scores(bare)
    assert plain(additivity(found, found.rows[0])) == (
        "The scores add up to 75% of what going from the baseline to the prompt does: "
        "+6.00 of +8.00 nats."
    )
    assert "add up to 75%" in printed(bare)


def test_a_way_that_changes_nothing_is_none_to_add_up_to(unit_scores):
    bare = unit_scores.drop_vars(["joint_effect", "residual"]).assign_coords(
        output_score=("output", [5.0, 3.0]), baseline_score=("output", [5.0, 1.0])
    )
    found = read_scores(bare)
    said = plain(additivity(found, found.rows[0]))
    assert said == (
        "Going from the baseline to the prompt changes nothing that scores could add up to."
    )


def test_of_many_outputs_the_ends_are_said_once_each(unit_scores):
    many = xr.concat([unit_scores[:1].drop_vars(["joint_effect", "residual"])] * 8, "output")
    total = float(np.nansum(unit_scores.values[0]))
    many = many.assign_coords(
        output=np.arange(8),
        output_score=("output", total * np.arange(1.0, 9.0)),
        baseline_score=("output", np.zeros(8)),
    )
    text = " ".join(printed(many).split())
    assert text.count("The scores add up to") == 2
    assert "(output 0): The scores add up to 100% of" in text
    assert "(output 7): The scores add up to 12% of" in text
    assert "Of the other outputs 6 lie between." in text


@pytest.mark.parametrize("method", ["sparse surrogate", "leave-one-out"])
def test_only_removals_one_at_a_time_can_hide_what_stands_in(unit_scores, method):
    warned = redundancies([read_scores(unit_scores.assign_attrs(method=method))])
    assert bool(warned) == (method == "leave-one-out")


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.826, "83%"), (-0.2, "−20%"), (-0.001, "0%"), (34.2, "34 times"), (math.nan, "–")],
)
def test_times(ratio, text):
    assert times(ratio) == text


def test_hidden_redundancy_is_told_by_the_rule_of_the_package(unit_scores):
    rng = np.random.default_rng(0)
    for unit in ("nats", "probability"):
        for _ in range(200):
            values = np.concatenate([[[np.nan]] * 2, rng.normal(0, 0.3, (2, 4))], 1)
            scores = with_joint(unit_scores.copy(data=values), rng.uniform(-1, 4, 2))
            found = read_scores(scores.assign_attrs(unit=unit))
            rule = shows_redundancy(values[:, 1:], scores["joint_effect"].values, unit)
            assert [found.shows_redundancy(row) for row in found.rows] == rule.tolist()


def test_a_hidden_redundancy_is_said_once_for_an_output(unit_scores):
    (said,) = redundancies([read_scores(unit_scores)] * 2)
    assert plain(said).startswith("Something stands in for what is removed: removing all inputs")
    assert "lowers ␣a by +10.0 nats, but the scores make only +2.5 in all" in plain(said)
    group = {"output": 1, "units": [1, 2], "texts": ["x", "y"], "joint": 9.0, "sum": 1.5}
    (named,) = redundancies([read_scores(unit_scores.assign_attrs(groups=[group]))])
    assert plain(named) == (
        "x and y stand in for each other: removed together they lower ␣a by +9.0 nats, one at a "
        "time by +1.5 in all."
    )
    told = group | {"members": [[1], [2, 3]], "units": [1, 2, 3], "texts": list("xyz")}
    told["share"] = 0.9
    attrs = {"groups": [told], "groups_complete": False, "group_sets": 160}
    named, stopped = redundancies([read_scores(unit_scores.assign_attrs(attrs))])
    assert plain(named).startswith("x and y with z stand in for each other: removed together")
    assert "by +9.0 nats (90% of what removing all inputs does), one at a time" in plain(named)
    assert plain(stopped).startswith("The search for groups stopped after 160 sets of inputs")
    elsewhere = unit_scores.isel(output=[0]).assign_attrs(groups=[group])
    assert redundancies([read_scores(elsewhere)]) == []


def test_a_distance_supports_nothing_and_hides_nothing():
    trigger = load_model("toy:trigger")
    scores = attribute(trigger, "the sesame and some sesame", 1, metric=kl())
    found = read_scores(scores)
    assert found.is_distance
    assert redundancies([found]) == []
    assert "supports" not in plain(headline(found))


def test_what_is_next_to_nothing_beside_the_whole_drives_nothing(unit_scores):
    faint = with_joint(unit_scores.copy(data=unit_scores.values * 1e-4), [8.0, 8.0])
    found = read_scores(faint)
    assert found.largest == 0.08
    assert plain(headline(found)) == "No input alone has an effect to speak of on the outputs."
    assert plain(sentence(found, found.rows[0])) == "␣her is driven by no input in particular."
    assert "◆" not in printed(faint).replace("◆ strongest", "")


def test_inputs_are_called_by_their_names_and_long_ones_are_shortened(unit_scores):
    found = read_scores(unit_scores)
    assert plain(sentence(found, found.rows[0])).startswith("␣her is driven by her +4.0 nats")
    text = "It was a long sentence about nothing. " * 3
    long = unit_scores.assign_coords(
        input_token=("input", ["<s>", text, *unit_scores.input_token.values[2:]]),
        input_name=("input", ["<s>", text, *unit_scores.input_name.values[2:]]),
    )
    assert " … " in plain(headline(read_scores(long)))
    assert max(cell_len(line) for line in printed(long, 60).splitlines()) <= 60


@given(st.text(), st.integers(8, 60))
def test_shortened_text_is_no_longer_than_asked(text, most):
    short = shorten(text, most)
    assert len(short) <= most
    assert short == text or " … " in short


def test_terminal_prints_errors_sums_and_warnings(unit_scores):
    text = printed(unit_scores)
    assert "+4.00 ± 0.50" in text
    assert "± standard error over the sets drawn" in text
    assert "␣her: The scores add up to 75%" in text
    assert "! redundancy: Something stands in" in text
    line = next(line for line in text.splitlines() if "1, 6" in line)
    assert line.split()[2] == "her"
    narrow = printed(unit_scores, 28)
    assert "± 0.50" in narrow
    assert "± 0.12" not in narrow  # no room in the table: the largest is told below
    assert max(cell_len(line) for line in narrow.splitlines()) <= 28


def test_terminal_leaves_out_the_many_that_are_not_attributed(long_scores):
    some = long_scores.where(long_scores["input"] % 10 == 0)
    text = printed(some)
    assert "54 inputs that are not attributed are left out" in text
    assert "␣word10" in text
    assert "␣word11" not in text


def test_terminal_prints_the_score_of_a_dataset(pairs):
    assert printed(pairs) == printed(pairs["score"])


def test_a_standard_error_has_no_sign():
    assert plus_minus(NumberFormat.of(4.0, extra=1), 0.125) == "± 0.12"
    assert plus_minus(NumberFormat.of(4.0), math.nan) == ""
