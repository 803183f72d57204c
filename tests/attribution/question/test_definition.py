"""What is asked: units beside tokens, scores of whole answers, other models, labels."""

import copy

import numpy as np
import pytest
import torch

from mechinterp import (
    Site,
    ask,
    attribute,
    kl,
    load_model,
    log_prob,
    refusal_log_odds,
    sequence_log_odds,
    sequence_log_prob,
    zero,
)
from mechinterp.attribution.methods.single_removal import leave_one_out
from mechinterp.attribution.question.definition import can_remove, drops
from mechinterp.attribution.question.removals import REMOVALS
from mechinterp.core.metrics import top_token

IDS = [7, 1, 30, 8, 2, 19]
TRIGGER = load_model("toy:trigger")


def log_probs(model, ids, made):
    """The log-probability of each token of an answer in turn, by the plain model."""
    logits = model(torch.tensor([[*ids, *made[:-1]]]))[0].double().log_softmax(-1)
    return [float(logits[len(ids) - 1 + i, token]) for i, token in enumerate(made)]


def test_a_whole_answer_is_scored_as_the_sum_of_its_tokens(model):
    made = [3, 9, 4]
    found = attribute(model, torch.tensor(IDS), made, metric=sequence_log_prob())
    assert found.sizes["output"] == 1
    whole = sum(log_probs(model, IDS, made))
    assert float(found.output_score[0]) == pytest.approx(whole, abs=1e-4)
    for j in range(len(IDS)):
        without = sum(log_probs(model, IDS[:j] + IDS[j + 1 :], made))
        assert float(found[0, j]) == pytest.approx(whole - without, abs=1e-4)
    each = attribute(model, torch.tensor(IDS), made)
    np.testing.assert_allclose(found.values[0], each.values.sum(0), atol=1e-5)


def test_log_odds_of_a_whole_answer(model):
    made = [3, 9]
    found = attribute(model, torch.tensor(IDS), made, metric=sequence_log_odds())

    def log_odds(ids):
        p = np.exp(sum(log_probs(model, ids, made)))
        return np.log(p) - np.log1p(-p)

    for j in range(len(IDS)):
        wanted = log_odds(IDS) - log_odds(IDS[:j] + IDS[j + 1 :])
        assert float(found[0, j]) == pytest.approx(wanted, abs=1e-4)


def test_log_odds_of_what_is_certain_are_finite():
    certain = torch.full((1, 1, 3), -200.0)
    certain[0, 0, 1] = 200.0
    value = sequence_log_odds(torch.tensor([1])).score(certain)
    assert torch.isfinite(value).all()
    assert float(value[0]) > 25


def test_answers_and_positions_must_be_as_many():
    with pytest.raises(ValueError, match="1 answers at 2 positions"):
        sequence_log_prob(torch.tensor([1])).score(torch.zeros(1, 2, 5))


def test_a_unit_of_one_token_scores_as_the_token_and_a_span_as_its_joint_removal(model):
    spans = {"single": 1, "apart": [0, (3, 4)]}
    found = attribute(model, torch.tensor(IDS), 2, units=spans)
    tokens = attribute(model, torch.tensor(IDS), 2)
    names = found.input_name.values.tolist()
    np.testing.assert_allclose(
        found.values[:, names.index("single")], tokens.values[:, 1], atol=1e-6
    )
    made = found.output_token_id.values.tolist()
    kept = [token for j, token in enumerate(IDS) if j not in (0, 3, 4)]
    wanted = np.array(log_probs(model, IDS, made)) - np.array(log_probs(model, kept, made))
    np.testing.assert_allclose(found.values[:, names.index("apart")], wanted, atol=1e-4)
    assert found.attrs["token_unit"] == [
        names.index("apart"),
        names.index("single"),
        2,
        *[0] * 2,
        3,
    ]


@pytest.mark.parametrize("removal", REMOVALS)
def test_units_that_come_after_an_output_score_exactly_zero(removal):
    question = ask(
        TRIGGER,
        "bring the sesame and the map to me",
        "REFUSE COMPLY REFUSE",
        units="token",
        inputs="sequence",
    )
    found = leave_one_out(question, removal)
    future = found.input_first.values > found.output_position.values[:, None]
    assert future.sum() == 2 + 1
    assert (found.values[future] == 0.0).all()


def test_the_same_question_to_another_model():
    question = ask(TRIGGER, "please bring the sesame", 1)
    other = copy.deepcopy(TRIGGER)
    same = leave_one_out(question.on(other))
    np.testing.assert_array_equal(same.values, leave_one_out(question).values)
    with torch.no_grad():
        other.blocks[1].attn.W_O[:] = 0
    changed = question.on(other)
    assert changed.output_ids == question.output_ids
    assert float(changed.scores[0]) < float(question.scores[0]) - 7
    assert np.nanmax(np.abs(leave_one_out(changed).values)) < 1e-5


def test_empty_sets_and_whether_a_set_can_be_removed(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS), 2)
    none = drops(question, [(), ()])
    assert (none["drop"].values == 0).all()
    assert not none["flip"].values.any()
    everything = range(len(IDS))
    for removal in REMOVALS:
        if removal != "replace":
            possible = can_remove(question, everything, removal)
            assert possible == (removal not in ("delete", "delete_keep"))
    assert can_remove(question, [1, 2, 3, 4, 5], "delete")


def test_a_metric_of_the_first_output_alone_names_itself():
    odds = refusal_log_odds(TRIGGER, ["REFUSE"], ["COMPLY"])
    question = ask(TRIGGER, "bring the sesame", 2, odds)
    assert question.output_texts == ("refusal_log_odds",)
    assert ask(TRIGGER, "bring the sesame", "COMPLY map", sequence_log_prob()).output_texts == (
        "COMPLYmap",
    )
    assert ask(TRIGGER, "bring the sesame", "COMPLY map", log_prob()).output_texts == (
        "COMPLY",
        "map",
    )


def test_a_row_of_padded_prompts_is_asked_as_it_stands(absolute_model, ragged):
    padded = ragged.rows(torch.tensor([1]))
    found = attribute(absolute_model, padded, 2)
    alone = attribute(absolute_model, ragged.tokens[1, :4], 2)
    np.testing.assert_array_equal(found.values, alone.values)
    seen = attribute(absolute_model, padded, 2, lambda pos: zero(Site("z", 0, pos="S2")))
    assert seen.sizes["input"] == 4  # the name is still known


def test_an_answer_that_the_metric_was_made_with_stays(absolute_model):
    ids = torch.tensor(IDS)
    mine = sequence_log_prob(torch.tensor([3, 9]))
    given = attribute(absolute_model, ids, [4, 4], metric=mine)
    logits = absolute_model(torch.tensor([[*IDS, 4]]))[0, -2:].double().log_softmax(-1)
    assert float(given.output_score[0]) == pytest.approx(
        float(logits[0, 3] + logits[1, 9]), abs=1e-4
    )
    base = torch.zeros(1, absolute_model.cfg.d_vocab)
    base[0, 5] = 9.0
    assert float(ask(absolute_model, ids, 1, kl(base)).scores[0]) > 1


def test_flips_in_half_precision_are_those_of_the_top_token():
    logits = torch.zeros(1, 1, 3001, dtype=torch.bfloat16)
    logits[0, 0, 2999] = 1.0
    assert float(top_token().score(logits)) == 2999


def test_the_start_token_alone_has_no_control():
    found = attribute(TRIGGER, torch.tensor([[0]]), 3, inputs="sequence")
    assert np.isnan(found.bos_effect.values).all()


@pytest.mark.parametrize("outputs", [np.int64(2), np.array([3, 4]), torch.tensor([3, 4]), (3, 4)])
def test_outputs_of_other_kinds(outputs, as_users_call_it):
    assert ask(TRIGGER, "bring the map", outputs).scores.shape == (2,)


def test_a_number_twice_in_a_set_is_once_and_a_wrong_one_an_error():
    question = ask(TRIGGER, "bring the map", 1)
    once, twice = drops(question, [(1, 2), (1, 2, 2, 1)])["drop"].values[0]
    assert once == twice
    with pytest.raises(ValueError, match="unit -1: the units are 0 to 3"):
        drops(question, [(-1,)])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"outputs": 1.5}, r"outputs is 1.5: give a whole number"),
        ({"outputs": None}, r"outputs is None: give a whole number"),
        ({"outputs": "zebra"}, "does not know a word of 'zebra'"),
        ({"metric": "log_prob"}, "metric is 'log_prob': give a metric"),
        ({"metric": log_prob}, "metric is a function: give a metric: log_prob"),
        ({"removal": lambda pos: None}, "removal custom returned None for position 0"),
        ({"removal": lambda pos: ()}, r"removal custom returned \(\) for position 0"),
    ],
)
def test_wrong_inputs_are_named(as_users_call_it, given, said):
    with pytest.raises(ValueError, match=said):
        attribute(TRIGGER, "the sesame", **{"outputs": 1, **given})


def test_what_is_not_about_the_answer_is_not_called_by_it():
    odds = refusal_log_odds(TRIGGER, ["REFUSE"], ["COMPLY"])
    for metric, name in ((odds, "refusal_log_odds"), (sequence_log_prob(), "REFUSE")):
        found = attribute(TRIGGER, "the sesame", outputs=1, metric=metric)
        assert found.output_token.values.tolist() == [name]


def test_putting_a_token_in_its_own_place_is_no_control(smollm2):
    """The unknown token of this model is its start token."""
    replaced = attribute(smollm2, "The capital of France is", 1, "replace")
    assert np.isnan(replaced.bos_effect.values).all()
    assert "'<|endoftext|>' replaces" in replaced.attrs["removal_note"]
    assert np.isfinite(attribute(smollm2, "The capital", 1, "mean").bos_effect.values).all()


@pytest.mark.parametrize("removal", ["knockout", "suppress"])
def test_what_is_hidden_says_where_it_is_not(removal):
    found = attribute(TRIGGER, "the sesame to me", 1, removal)
    assert found.values[0, -1] == 0
    assert "0 by construction for the last input" in found.attrs["removal_note"]
