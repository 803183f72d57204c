"""What `faithfulness` refuses, and what it says to do."""

import numpy as np
import pytest
import xarray as xr

from mechinterp import ask, load_model
from mechinterp.attribution.methods.redundancy import pair_removals
from mechinterp.attribution.methods.single_removal import leave_one_out
from mechinterp.attribution.question.removals import deletion
from mechinterp.attribution.trust.faithfulness import (
    CHANCE_SCORERS,
    faithfulness,
)

TRIGGER = load_model("toy:trigger")


def other_prompt(question):
    return leave_one_out(ask(TRIGGER, "please bring the sesame to us today", 1))


def other_outputs(question):
    return leave_one_out(ask(TRIGGER, "please bring the sesame to me today", "COMPLY"))


def other_units(question):
    spans = {"all": (1, 4)}
    return leave_one_out(ask(TRIGGER, "please bring the sesame to me today", 1, units=spans))


def a_dataset(question):
    return pair_removals(question)


def with_a_gap(question):
    scores = leave_one_out(question)
    return scores.where(scores.input != 3)


def bare(question):
    return xr.DataArray(np.zeros((1, 8)), dims=("output", "input"))


def wrong_dims(question):
    return leave_one_out(question).T


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (other_prompt, "'it' answers another question: its input_name is .*'us'"),
        (other_outputs, "another question: its output_token_id is"),
        (other_units, "another question: its input_name"),
        (a_dataset, r'found\["score"\]'),
        (with_a_gap, "lacks a finite score for a unit"),
        (bare, "its output_token_id is None"),
        (wrong_dims, r"dims \('input', 'output'\), not"),
    ],
)
def test_scores_of_another_question_are_refused(made, said):
    question = ask(TRIGGER, "please bring the sesame to me today", 1)
    with pytest.raises(ValueError, match=said):
        faithfulness(question, {"it": made(question)}, ["delete"])


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": {}}, "give at least one method"),
        ({"removals": []}, "a list of removals"),
        ({"removals": "delete"}, "removals is .delete.: give a list"),
        ({"removals": ["remove"]}, "removal 'remove' is unknown"),
        ({"removals": ["delete", deletion(TRIGGER)]}, "two removals have the same name"),
        ({"n_subsets": 2}, "n_subsets=2"),
        ({"fractions": [-0.1]}, "above 0 and up to 1"),
        ({"fractions": [0.0, 0.5]}, "above 0 and up to 1"),
        ({"fractions": [1.5]}, "above 0 and up to 1"),
        ({"k": [0]}, "from 1 up"),
        ({"keep": [1.0]}, "keep=1.0"),
    ],
)
def test_errors_say_what_to_do(change, said):
    question = ask(TRIGGER, "please bring the sesame to me today", 1)
    options = {"methods": {"one out": leave_one_out(question)}, "removals": ["delete"]} | change
    with pytest.raises(ValueError, match=said):
        faithfulness(question, **options)


@pytest.mark.parametrize("name", CHANCE_SCORERS)
def test_the_names_of_added_rows_are_taken(name):
    question = ask(TRIGGER, "please bring the sesame to me today", 1)
    with pytest.raises(ValueError, match=f"method '{name}': a scorer of this name is added"):
        faithfulness(question, {name: leave_one_out(question)})
