"""`faithfulness` against the slow obvious loop: one full pass of the plain model for every set."""

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp import ask, centred_logit, load_model, sequence_log_prob
from mechinterp.attribution.methods.single_removal import leave_one_out
from mechinterp.attribution.methods.subsets import random_sets
from mechinterp.attribution.question.removals import resampled_token
from mechinterp.attribution.scores import label_scores
from mechinterp.attribution.trust.faithfulness import (
    CHANCE_SCORERS,
    SEED_OFFSET,
    faithfulness,
    rank_correlation,
)

IDS = [7, 1, 30, 8, 2, 19, 1]
SEED = 3
FRACTIONS, K, KEEP, N_SUBSETS = (0.1, 0.5, 0.9), (1, 3, 7), (0.5, 0.8), 12
VARIABLES = (
    *("most_first", "least_first", "comprehensiveness", "sufficiency"),
    *("drop_at_k", "sufficiency_at_k", "lds"),
)


def any_scores(question, seed=0, *, ties=False):
    """Scores that somebody might have made."""
    drawn = np.random.default_rng(seed).normal(
        size=(len(question.metrics), len(question.attributed))
    )
    return label_scores(question, drawn.round() + 0.0 if ties else drawn, {})


# The slow loop


def ordinary_ids(model):
    special = set(model.tokenizer.all_special_ids) if model.tokenizer else set()
    return [i for i in range(model.cfg.d_vocab) if i not in special]


def plain_drops(model, sequence, positions, n_prompt, removal):
    """The drop of the log-probability of each output, NaN if nothing is left before the first."""
    targets = sequence[n_prompt:]
    fed, rows = sequence[:-1], range(n_prompt - 1, len(sequence) - 1)

    def log_probs(ids, at):
        logits = model(torch.tensor([ids]))[0].double().log_softmax(-1)
        return np.array([float(logits[row, t]) for row, t in zip(at, targets, strict=True)])

    whole = log_probs(fed, rows)
    if removal == "delete":
        if set(range(n_prompt)) <= set(positions):
            return np.full(len(targets), np.nan)
        left = [pos for pos in range(len(fed)) if pos not in positions]
        at = [sum(pos <= row for pos in left) - 1 for row in rows]
        return whole - log_probs([fed[pos] for pos in left], at)
    fallen = []
    for draw in range(4):
        ids = list(fed)
        for pos in positions:
            drawn = np.random.default_rng([SEED + SEED_OFFSET, draw, pos])
            ids[pos] = int(drawn.choice(ordinary_ids(model)))
        fallen.append(whole - log_probs(ids, rows))
    return np.mean(fallen, 0)


def plain_spearman(a, b):
    def ranks(x):
        return np.array([sum(int(y < v) - int(y > v) for y in x) for v in x])

    a, b = ranks(np.round(a, 9)), ranks(b)
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def slow(model, sequence, n_prompt, n_inputs, values, removal, known):
    """All variables of one method; the inputs are the first `n_inputs` positions."""

    def drop(positions, output):
        gone = frozenset(j for j in positions if j < n_prompt + output)
        if gone not in known:
            known[gone] = plain_drops(model, sequence, gone, n_prompt, removal)
        return known[gone][output]

    found = {name: [] for name in VARIABLES}
    for output, scores in enumerate(values):
        inputs = [j for j in range(n_inputs) if j < n_prompt + output]
        ranked = sorted(inputs, key=lambda j: scores[j], reverse=True)  # keeps the order of ties
        counts = [max(1, round(f * len(ranked) + 1e-9)) for f in FRACTIONS]
        most = [drop(ranked[:m], output) for m in counts]
        least = [drop(ranked[len(ranked) - m :], output) for m in counts]
        found["most_first"].append(most)
        found["least_first"].append(least)
        found["comprehensiveness"].append(np.mean(most))
        found["sufficiency"].append(np.mean(least))
        found["drop_at_k"].append(
            [drop(ranked[:k], output) if k <= len(ranked) else np.nan for k in K]
        )
        found["sufficiency_at_k"].append(
            [drop(ranked[k:], output) if k <= len(ranked) else np.nan for k in K]
        )
        lds = []
        for number, keep in enumerate(KEEP):
            sums, outcomes = [], []
            for gone in random_sets(n_inputs, N_SUBSETS, keep, SEED + SEED_OFFSET + number):
                fallen = drop(gone, output)
                if np.isfinite(fallen):
                    sums.append(sum(scores[j] for j in inputs if j not in gone))
                    outcomes.append(-fallen)  # the whole prompt's score less this
            lds.append(plain_spearman(np.array(sums), np.array(outcomes)))
        found["lds"].append(lds)
    return found


@pytest.mark.parametrize("removal", ["delete", pytest.param("resample", marks=pytest.mark.slow)])
@pytest.mark.parametrize("inputs", ["text", "sequence"])
def test_equals_the_slow_loop(model, removal, inputs):
    question = ask(model, torch.tensor(IDS), 3, inputs=inputs)
    methods = {"even": any_scores(question), "tied": any_scores(question, 1, ties=True)}
    found = faithfulness(
        question,
        methods,
        [removal],
        n_subsets=N_SUBSETS,
        keep=KEEP,
        fractions=FRACTIONS,
        k=K,
        seed=SEED,
    )
    sequence = IDS + [int(i) for i in question.output_ids]
    n_inputs, known = len(question.attributed), {}
    for name, scores in methods.items():
        expected = slow(model, sequence, len(IDS), n_inputs, scores.values, removal, known)
        for variable in VARIABLES:
            got = found[variable].sel(scorer=name).isel(removal=0).values
            np.testing.assert_allclose(got, expected[variable], atol=2e-5, err_msg=variable)
    if removal == "delete" and inputs == "text":  # all seven tokens cannot be deleted
        assert np.isnan(found["drop_at_k"].sel(k=7)).all()
    assert np.isfinite(found["drop_at_k"].sel(k=[1, 3])).all()


@pytest.mark.slow
def test_equals_the_slow_loop_on_a_real_model(smollm2):
    question = ask(smollm2, "When Mary and John went home, John gave a drink to", 2)
    scores = leave_one_out(question)
    options = {"n_subsets": N_SUBSETS, "keep": KEEP, "fractions": FRACTIONS, "k": K, "seed": SEED}
    found = faithfulness(question, {"one out": scores}, ["delete"], **options)
    first = question.attributed[0]
    ids = question.sequence.tokens[0].tolist()
    assert question.attributed == list(range(first, len(ids) - 1))
    for output in range(2):
        ranked = sorted(question.attributed, key=lambda j: -float(scores[output, j]))
        row, answer = question.rows[output], question.output_ids[output]

        def log_prob_with(left, row=row, answer=answer):
            logits = smollm2(torch.tensor([[ids[j] for j in left]]))[0]
            return float(logits[sum(j <= row for j in left) - 1].log_softmax(-1)[answer])

        whole = log_prob_with(range(len(ids)))
        for k in (1, 3):
            without = log_prob_with([j for j in range(len(ids)) if j not in ranked[:k]])
            alone = log_prob_with([j for j in range(len(ids)) if j not in ranked[k:]])
            at = {"scorer": "one out", "removal": "delete", "output": output, "k": k}
            assert float(found["drop_at_k"].sel(at)) == pytest.approx(whole - without, abs=1e-4)
            assert float(found["sufficiency_at_k"].sel(at)) == pytest.approx(
                whole - alone, abs=1e-4
            )
    lds = found["lds"].isel(removal=0)
    assert (lds.sel(scorer="one out", keep=0.8) > 0.5).all()


# What must hold


def test_sums_that_are_exact_have_a_correlation_of_one(linear_model, zeroed):
    ids = torch.tensor([3, 8, 1, 19, 22, 5, 11, 14])
    question = ask(linear_model, ids, 2, centred_logit())
    scores = leave_one_out(question, zeroed)
    found = faithfulness(question, {"one out": scores, "its opposite": -scores}, [zeroed])
    np.testing.assert_allclose(found["lds"].sel(scorer="one out"), 1, atol=1e-3)
    np.testing.assert_allclose(found["lds"].sel(scorer="its opposite"), -1, atol=1e-3)
    # Nothing that is removed first takes more than what is largest, and the parts add up.
    assert (found["comprehensiveness"] <= found["comprehensiveness"].sel(scorer="one out")).all()
    assert (found["sufficiency"] >= found["sufficiency"].sel(scorer="one out")).all()
    top = np.sort(scores.values, 1)[:, ::-1].cumsum(1)
    drop = found["drop_at_k"].sel(scorer="one out", k=[1, 3, 5]).isel(removal=0)
    np.testing.assert_allclose(drop, top[:, [0, 2, 4]], atol=1e-5)
    kept = found["sufficiency_at_k"].sel(scorer="one out", k=[1, 3, 5]).isel(removal=0)
    np.testing.assert_allclose(kept, top[:, [-1]] - top[:, [0, 2, 4]], atol=1e-5)


@pytest.mark.slow
def test_chance_is_about_zero(linear_model, zeroed):
    ids = torch.tensor([3, 8, 1, 19, 22, 5, 11, 14])
    question = ask(linear_model, ids, 5, centred_logit())
    scores = {"one out": leave_one_out(question, zeroed)}
    drawn = [
        faithfulness(question, scores, [zeroed], n_subsets=16, fractions=[0.5], k=[1], seed=seed)
        for seed in range(12)
    ]
    lds = xr.concat([one["lds"] for one in drawn], "seed").sel(scorer="random")
    assert abs(float(lds.mean())) < 0.1  # its standard error is about 0.04
    assert float(lds.std()) > 0.2
    # What is random removes, on average, its share of what there is.
    half = xr.concat([one["most_first"] for one in drawn], "seed").isel(fraction=0)
    everything = scores["one out"].values.sum(1)
    for name in CHANCE_SCORERS:
        apart = half.sel(scorer=name).mean("seed").values[0] - everything / 2
        error = half.sel(scorer=name).std("seed").values[0] / np.sqrt(12)
        assert (np.abs(apart) < 4 * error).all(), name


TRIGGER = load_model("toy:trigger")


@pytest.mark.parametrize("place", [0, 3, 5])
def test_the_planted_scorer_has_the_largest_drop_and_is_enough(place):
    words = ["please", "bring", "the", "a", "bread"]
    question = ask(TRIGGER, " ".join([*words[:place], "sesame", *words[place:]]), 1)
    one_hot = {
        f"unit {j}": label_scores(question, np.eye(len(question.attributed))[[j]], {})
        for j in range(6)
    }
    found = faithfulness(question, one_hot, ["delete"], n_subsets=8, k=[1])
    drop = found["drop_at_k"].sel(k=1).values[:6, 0, 0]
    assert int(drop.argmax()) == place
    assert drop[place] > 7
    assert np.abs(np.delete(drop, place)).max() < 0.01
    kept = found["sufficiency_at_k"].sel(k=1).values[:6, 0, 0]
    assert abs(kept[place]) < 0.01
    assert np.delete(kept, place).min() > 7
    assert int(found["comprehensiveness"].values[:6, 0, 0].argmax()) == place
    planted = found.sel(scorer=f"unit {place}", removal="delete").isel(output=0)
    np.testing.assert_allclose(planted["most_first"], drop[place], atol=0.01)


@settings(max_examples=settings.default.max_examples // 5)
@given(seed=st.integers(0, 1000))
def test_ranks_turn_with_the_scores_and_hold_under_any_rising_function(seed):
    question = ask(TRIGGER, "please bring the sesame to me today", 1)
    scores = any_scores(question, seed)
    methods = {"as is": scores, "turned": -scores, "risen": np.exp(scores) + 4}
    found = faithfulness(question, methods, ["delete"], n_subsets=8)
    as_is, turned, risen = (found.sel(scorer=name) for name in methods)
    for name in ("most_first", "least_first", "drop_at_k", "sufficiency_at_k"):
        assert as_is[name].equals(risen[name].assign_coords(scorer="as is"))
    np.testing.assert_array_equal(as_is["most_first"], turned["least_first"])
    np.testing.assert_allclose(as_is["lds"], -turned["lds"], atol=1e-12)


def test_equal_sets_are_removed_once():
    question = ask(TRIGGER, "please bring the sesame to me today", 1)
    one = {"a": leave_one_out(question)}
    alone = faithfulness(question, one, ["delete"])
    twice = faithfulness(question, one | {"b": one["a"] * 2}, ["delete"])
    assert alone.attrs["sets"] == twice.attrs["sets"]
    assert alone.attrs["passes"] == twice.attrs["passes"]
    for name in VARIABLES:
        np.testing.assert_array_equal(twice[name].sel(scorer="a"), twice[name].sel(scorer="b"))


def test_the_first_method_is_shuffled():
    question = ask(TRIGGER, "the sesame now", 1)
    one_hot = label_scores(question, np.eye(3)[[1]], {})
    found = [
        faithfulness(question, {"a": one_hot}, ["delete"], n_subsets=8, k=[1], seed=seed)
        for seed in range(10)
    ]
    drop = [round(one["drop_at_k"].sel(scorer="shuffled").item()) for one in found]
    assert set(drop) == {0, 8}  # at times it is on the trigger again
    assert drop.count(0) > drop.count(8)


def test_the_draws_are_others_than_those_of_methods_with_the_same_seed(absolute_model):
    assert random_sets(9, 64, 0.5, 0) != random_sets(9, 64, 0.5, SEED_OFFSET)
    question = ask(absolute_model, torch.tensor(IDS), 1)
    scores = {"one out": leave_one_out(question, "resample")}
    by_name, mine, seen = (
        faithfulness(question, scores, [removal], n_subsets=8, seed=0)["most_first"].values
        for removal in (
            "resample",
            resampled_token(absolute_model, seed=SEED_OFFSET),
            resampled_token(absolute_model, seed=0),
        )
    )
    np.testing.assert_array_equal(by_name, mine)
    assert np.abs(by_name - seen).max() > 1e-3


def test_the_same_seed_gives_the_same_and_another_does_not(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS), 2)
    scores = {"any": any_scores(question)}
    a, b, other = (faithfulness(question, scores, n_subsets=8, seed=s) for s in (1, 1, 2))
    for name in VARIABLES:
        np.testing.assert_array_equal(a[name], b[name])
    assert not np.array_equal(a["lds"], other["lds"])


def test_units_of_several_tokens_and_one_output_of_all():
    question = ask(TRIGGER, "bring the sesame to me", 1, units={"who": "me", "what": (2, 3)})
    found = faithfulness(question, {"one out": leave_one_out(question)}, ["delete"], k=[1, 2, 3])
    drop = found["drop_at_k"].sel(scorer="one out").values.ravel()
    np.testing.assert_allclose(drop, [8, 8, np.nan], atol=0.1)
    induction = load_model("toy:induction-trained")
    together = ask(induction, "a b c d e f g a b", 3, sequence_log_prob())
    whole = faithfulness(together, {"one out": leave_one_out(together)}, ["delete"])
    assert whole.sizes["output"] == 1
    assert whole["drop_at_k"].sel(scorer="one out", k=1).item() > 1


def test_a_single_unit_has_no_correlation():
    question = ask(TRIGGER, "sesame", 1)
    found = faithfulness(question, {"one out": leave_one_out(question)}, ["delete"])
    assert np.isnan(found["lds"]).all()
    assert found["comprehensiveness"].sel(scorer="one out").item() > 7
    assert np.isnan(found["drop_at_k"].sel(k=3)).all()


def test_what_follows_the_output_is_left_out(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS), 3, inputs="sequence")
    assert [len(places) for places in question.pasts] == [7, 8, 9]
    scores = any_scores(question)
    future = scores.input.values > question.rows[0] + np.arange(3)[:, None]
    loud = scores.copy(data=np.where(future, 100.0, scores.values))
    found = faithfulness(question, {"quiet": scores, "loud": loud}, ["delete"])
    for name in VARIABLES:
        np.testing.assert_array_equal(
            found[name].sel(scorer="quiet"), found[name].sel(scorer="loud"), err_msg=name
        )


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        ([1, 2, 3], [1, 5, 6], 1),
        ([1, 2, 3], [-1, -5, -6], -1),
        ([1, 1, 2, 2], [1, 2, 3, 4], 0.894427),
        ([2, 2, 2], [1, 5, 6], 0),
        ([1, 2, 3], [4, 4, 4], np.nan),
        ([1, 2], [1, 2], np.nan),
    ],
)
def test_rank_correlation(scores, truth, expected):
    found = rank_correlation(np.array(scores, dtype=float), np.array(truth, dtype=float))
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_nothing_is_left_on_the_model_and_scores_are_as_they_were(absolute_model, snapshot):
    before = snapshot(absolute_model)
    question = ask(absolute_model, torch.tensor(IDS), 2)
    scores = any_scores(question)
    copied = scores.copy(deep=True)
    faithfulness(question, {"any": scores})
    before.check()
    assert scores.identical(copied)
