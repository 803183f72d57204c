"""Pair removals against the plain model, and on toys whose redundancy was planted."""

import itertools
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mechinterp import (
    ask,
    attribute,
    attribute_pairs,
    load_model,
    logit_diff,
    refusal_log_odds,
)
from mechinterp.attribution.methods import redundancy
from mechinterp.attribution.methods import single_removal as perturb
from mechinterp.attribution.methods.hitting_sets import hitting_sets, linked
from mechinterp.attribution.methods.redundancy import pair_removals
from mechinterp.attribution.methods.single_removal import RedundancyWarning, leave_one_out
from mechinterp.stats.additivity import additivity_residual, shows_redundancy
from mechinterp.toys.refusal import TRIGGERS

IDS = [7, 1, 30, 8, 2, 19]


def score_without(model, ids, removed, answer):
    """Log-probability of the answer after the prompt without some positions, by the plain model."""
    kept = [token for pos, token in enumerate(ids) if pos not in removed]
    return float(model(torch.tensor([kept]))[0, -1].double().log_softmax(-1)[answer])


def test_interactions_equal_the_slow_loop(model):
    found = attribute_pairs(model, torch.tensor(IDS), 1, candidates=[0, 2, 3, 5])
    answer = int(found.output_token_id[0])
    whole = score_without(model, IDS, (), answer)

    def drop(*removed):
        return whole - score_without(model, IDS, removed, answer)

    for first, second in itertools.combinations([0, 2, 3, 5], 2):
        wanted = drop(first) + drop(second) - drop(first, second)
        value = found["interaction"].sel(output=0, first=first, second=second)
        assert float(value) == pytest.approx(wanted, abs=1e-4)
    values = found["interaction"].values[0]
    np.testing.assert_array_equal(values, values.T)
    assert np.isnan(np.diag(values)).all()
    np.testing.assert_allclose(found["single"].values[0], [drop(j) for j in range(6)], atol=1e-4)
    for j in range(6):  # relative to the best: all cannot be removed, nothing would be left
        others = [drop(*(i for i in range(6) if i != k)) for k in range(6)]
        assert float(found["alone"][0, j]) == pytest.approx(max(others) - others[j], abs=1e-4)


def test_turning_the_metric_round_turns_the_scores_round(model):
    ids = torch.tensor([7, 1, 30, 8, 2, 19, 1, 33])
    forth = attribute_pairs(model, ids, [3], metric=logit_diff(5, 11), inputs=list(range(1, 8)))
    back = attribute_pairs(model, ids, [3], metric=logit_diff(11, 5), inputs=list(range(1, 8)))
    np.testing.assert_allclose(back["score"].values, -forth["score"].values, atol=1e-4)
    assert [g["units"] for g in back.attrs["groups"]] == [g["units"] for g in forth.attrs["groups"]]


def game(effects, n_units):
    """The hybrid on set functions: what removing a set of the units 1 to n takes off each output.

    The sets that are asked for are answered by the functions and not by a model.
    """
    question = ask(
        load_model("toy:trigger"),
        torch.tensor([[0, *range(4, 4 + n_units)]]),
        list(range(5, 5 + len(effects))),
    )

    def answered(question, sets, removal="delete", **ignored):
        values = np.array([[float(effect(set(s) - {0})) for s in sets] for effect in effects])
        dims = ("output", "set")
        cost = dict.fromkeys(("passes", "token_layers", "arms", "token_layers_naive"), 1)
        return xr.Dataset(
            {"drop": (dims, values), "error": (dims, values * np.nan), "flip": (dims, values > 99)},
            attrs=cost,
        )

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(redundancy, "drops", answered)
        patch.setattr(perturb, "drops", answered)
        found = pair_removals(question)
    groups = [(g["output"], g["units"]) for g in found.attrs["groups"]]
    return found["score"].values[:, 1:].round(2).tolist(), groups


def gone(effect, *units):
    """An effect that comes only when all of the units are removed."""
    return lambda removed: effect * (set(units) <= removed)


def plus(*effects):
    return lambda removed: sum(effect(removed) for effect in effects)


@pytest.mark.parametrize(
    ("effect", "score", "groups"),
    [
        (gone(4, 1, 3), [2, 0, 2, 0, 0, 0, 0, 0], [[1, 3]]),
        (gone(-4, 1, 3), [-2, 0, -2, 0, 0, 0, 0, 0], [[1, 3]]),
        (gone(4, 1, 3, 5), [1.33, 0, 1.33, 0, 1.33, 0, 0, 0], [[1, 3, 5]]),
        (plus(gone(4, 1, 2), gone(4, 5, 6)), [2, 2, 0, 0, 2, 2, 0, 0], [[1, 2], [5, 6]]),
        (
            plus(gone(4, 1, 2), gone(4, 5, 6, 7)),
            [2, 2, 0, 0, 1.33, 1.33, 1.33, 0],
            [[1, 2], [5, 6, 7]],
        ),
        (plus(gone(10, 1), gone(4, 5, 6, 7)), [10, 0, 0, 0, 1.33, 1.33, 1.33, 0], [[5, 6, 7]]),
        (plus(gone(-4, 3), gone(4, 5, 6, 7)), [0, 0, -4, 0, 1.33, 1.33, 1.33, 0], [[5, 6, 7]]),
        (lambda removed: 4.0 * bool(removed & {1, 3}), [4, 0, 4, 0, 0, 0, 0, 0], []),
        (  # 1, 3, and 5 with 6 are each enough: the shares of random orders
            lambda removed: 12.0 * bool({1, 3} <= removed and removed & {5, 6}),
            [5, 0, 5, 0, 1, 1, 0, 0],
            [[1, 3, 5, 6]],
        ),
        (  # any two of three are enough
            lambda removed: 6.0 * (len(removed & {1, 3, 5}) > 1),
            [3, 0, 3, 0, 3, 0, 0, 0],
            [[1, 3, 5]],
        ),
        (plus(gone(10, 1), gone(-4, 3), gone(1, 5, 6)), [10, 0, -4, 0, 0.5, 0.5, 0, 0], []),
    ],
)
def test_planted_set_functions(effect, score, groups):
    found, named = game([effect], 8)
    assert found == [score]
    assert [units for _, units in named] == groups


def test_the_groups_of_one_output_are_not_those_of_another():
    found, groups = game([gone(4, 1, 2, 3), gone(6, 5, 6, 7)], 8)
    assert found == [[1.33] * 3 + [0] * 5, [0] * 4 + [2] * 3 + [0]]
    assert groups == [(0, [1, 2, 3]), (1, [5, 6, 7])]


def warned(model, prompt, **options):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = attribute_pairs(model, prompt, 1, **options)
    return found, [str(w.message) for w in said if w.category is RedundancyWarning]


@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_repeated_trigger_is_found_and_warned_of(number):
    model = load_model("toy:trigger")
    words = ["please", "bring", "the", "sesame", "to", "me"]
    words += ["sesame"] * (number - 1)
    found, said = warned(model, " ".join(words))
    score = found["score"].values[0]
    triggers = [i + 1 for i, word in enumerate(words) if word == "sesame"]
    assert np.argsort(-np.nan_to_num(score))[:number].tolist() == triggers or set(
        np.argsort(-np.nan_to_num(score))[:number].tolist()
    ) == set(triggers)
    share = np.abs(score[triggers]).sum() / np.nansum(np.abs(score))
    assert share > 0.94
    assert len(said) == 1
    assert said[0].startswith("redundancy: 'sesame'")
    (group,) = found.attrs["groups"]
    assert group["units"] == triggers
    assert group["joint"] == pytest.approx(float(found["score"].joint_effect[0]), rel=0.01)
    assert abs(float(found["score"].residual[0])) < 0.05


@pytest.fixture(scope="module")
def refuser():
    """The trained toy, its odds of refusing, and a function of a prompt that removes pairs."""
    model = load_model("toy:refusal")
    odds = refusal_log_odds(model, refusals=["REFUSE"], compliances=["COMPLY"])
    return lambda prompt: warned(model, prompt, metric=odds)


def test_three_that_are_each_enough_are_one_group(refuser):
    found, said = refuser("bring the sesame and the copper to the lantern")
    (group,) = found.attrs["groups"]
    assert group["members"] == [[3], [6], [9]]
    assert group["joint"] == pytest.approx(22.6, abs=0.3)
    assert float(found["score"].joint_effect[0]) == pytest.approx(22.6, abs=0.05)
    assert group["share"] == pytest.approx(1, abs=0.02)
    assert len(said) == 1
    assert said[0].startswith("redundancy: 'sesame', 'copper' and 'lantern' stand in for each")
    assert found["score"].values[0, [3, 6, 9]] == pytest.approx([7.6] * 3, abs=0.5)
    assert found.attrs["groups_complete"]
    assert found.attrs["group_sets"] < 30


def test_a_pair_that_is_enough_only_together_is_one_member(refuser):
    found, said = refuser("sesame and copper and velvet anchor")
    (group,) = found.attrs["groups"]
    assert group["members"] == [[1], [3], [5, 6]]
    assert "'sesame', 'copper' and 'velvet' with 'anchor' stand in" in said[0]


@pytest.mark.parametrize(
    "prompt", ["bring the velvet map", "please bring the map to me", "bring the velvet anchor"]
)
def test_no_group_where_nothing_is_hidden(refuser, prompt):
    found, said = refuser(prompt)
    assert found.attrs["groups"] == []
    assert said == []


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6))
def test_the_members_in_the_trained_toy_are_the_planted_ones(refuser, seed):
    rng = np.random.default_rng(seed)
    words = rng.choice(["bring", "the", "old", "letter", "to", "me", "red", "book"], 4).tolist()
    for trigger in rng.choice(TRIGGERS, rng.integers(1, 5)).tolist():
        words.insert(int(rng.integers(len(words) + 1)), trigger)
    at = {word: [n for n, w in enumerate(words, 1) if w == word] for word in TRIGGERS}
    enough = [(n,) for word in ("sesame", "copper", "lantern") for n in at[word]]
    both = [at["velvet"], at["anchor"]]
    enough += [tuple(sorted(pair)) for pair in itertools.product(*both)]
    assume(enough)  # else it is answered, and noise is all there is
    ends = [s for s in hitting_sets(enough) if len(s) > 1]
    wanted = sorted(sorted(map(list, hitting_sets(sets))) for sets in linked(ends))
    found, said = refuser(" ".join(words))
    assert sorted(sorted(group["members"]) for group in found.attrs["groups"]) == wanted
    assert bool(said) == bool(wanted)


def test_two_that_need_each_other_are_no_redundancy():
    found, said = warned(load_model("toy:and"), "please bring copper and the lantern to me")
    assert said == []
    assert found.attrs["groups"] == []
    i, j = (found.input_token.values.tolist().index(word) for word in ("copper", "lantern"))
    assert float(found["interaction"].sel(output=0, first=i, second=j)) > 7
    assert set(np.argsort(-np.nan_to_num(found["score"].values[0]))[:2].tolist()) == {i, j}


@pytest.mark.parametrize("prompt", ["please bring the sesame to me", "please bring the map to me"])
def test_no_warning_without_redundancy(prompt):
    assert warned(load_model("toy:trigger"), prompt)[1] == []


def test_attribute_alone_warns_that_something_is_hidden():
    model = load_model("toy:trigger")
    with pytest.warns(RedundancyWarning, match="attribute_pairs finds which"):
        hidden = attribute(model, "bring the sesame and the sesame", 1)
    assert float(hidden.residual[0]) > 0.99
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = attribute(model, "bring the sesame and the map", 1)
    assert abs(float(plain.residual[0])) < 0.01


def test_residual_by_hand():
    scores, joint = np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 3.0]]), np.array([4.0, 0.0, 3.0])
    np.testing.assert_array_equal(additivity_residual(scores, joint), [0.25, np.nan, -1.0])


def test_the_rule_of_a_stand_in_by_hand():
    parts = np.array([[1.0, -1.0], [1.0, 1.0], [0.1, 0.1], [0.0, 0.0]])
    joint = np.array([4.1, 4.1, 0.4, -9.0])
    assert shows_redundancy(parts, joint, "nats").tolist() == [True, True, False, True]
    assert shows_redundancy(parts, joint, "probability").tolist() == [True, True, False, True]
    assert shows_redundancy(np.array([[0.01, 0.0]]), np.array([0.04]), "probability").tolist() == [
        False
    ]


def test_candidates_can_be_chosen_and_are_checked():
    question = ask(load_model("toy:trigger"), "bring the sesame and the sesame", 1)
    with pytest.raises(ValueError, match=r"0 is not attributed\. Choose among: 1: 'bring'"):
        pair_removals(question, candidates=[0, 3])
    with pytest.raises(ValueError, match="a pair needs two"):
        pair_removals(question, candidates=1)
    with pytest.raises(ValueError, match="a pair needs two"):
        pair_removals(question, candidates=[3, 3])
    with pytest.warns(RedundancyWarning):
        found = pair_removals(question, candidates=[3, 6])
    assert found.attrs["candidates"] == [3, 6]


def test_few_candidates_of_many_inputs_still_hold_the_triggers():
    model = load_model("toy:trigger")
    prompt = "please bring me the old sesame and the red map to the sesame door today"
    found, said = warned(model, prompt, candidates=3)
    assert found.sizes["first"] == 3
    assert len(said) == 1
    assert found.attrs["arms"] < 14 * 2 + 10  # not every pair
    assert {6, 13} <= set(found["first"].values.tolist())


def test_sentences_can_stand_in_for_each_other():
    spans = {"first": (1, 3), "second": (4, 6), "third": (7, 8)}
    found, said = warned(
        load_model("toy:trigger"), "bring the sesame and my sesame to me", units=spans
    )
    assert "'bringthesesame' and 'andmysesame' stand in" in said[0]
    assert found["score"].values[0, 1:].round().tolist() == [4, 4, 0]


def test_several_outputs_at_once_equal_each_alone(absolute_model):
    together = attribute_pairs(absolute_model, torch.tensor(IDS), [3, 9], candidates=[1, 2, 4])
    first = attribute_pairs(absolute_model, torch.tensor(IDS), [3], candidates=[1, 2, 4])
    np.testing.assert_allclose(
        together["interaction"].values[0], first["interaction"].values[0], atol=1e-5
    )


def test_a_score_says_what_it_is_of():
    question = ask(load_model("toy:trigger"), "the sesame and some sesame", outputs=1)
    found = pair_removals(question)
    assert "half of what its closest stand-in hides" in found["score"].attrs["sign"]
    assert found["single"].attrs["sign"] == leave_one_out(question).attrs["sign"]


def test_a_pair_takes_two():
    question = ask(load_model("toy:trigger"), "sesame", outputs=1)
    with pytest.raises(ValueError, match="only 'sesame' is attributed"):
        pair_removals(question)
