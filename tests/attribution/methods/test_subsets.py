"""Shapley values and surrogates against the plain model, called once for every set."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp import (
    Site,
    ask,
    centred_logit,
    kl,
    last,
    load_model,
    logit_diff,
    sequence_log_odds,
    sequence_log_prob,
    zero,
)
from mechinterp.attribution.methods import subset_fits
from mechinterp.attribution.methods.single_removal import leave_one_out
from mechinterp.attribution.methods.subsets import (
    MOST_UNITS,
    kernel_shap,
    shapley,
    sparse_surrogate,
)
from mechinterp.attribution.question.definition import drops
from mechinterp.attribution.question.removals import Removal, resampled_token

IDS = [7, 1, 30, 8, 2]
METHODS = (shapley, kernel_shap, sparse_surrogate)


def put_zero(pos):
    return zero(Site("embed", pos=pos))


def shapley_by_orders(model, ids, made, inputs):
    """The log-probability that is lost on average, over every order in which tokens are deleted."""
    known = {}

    def scores(removed):
        if removed not in known:
            left = [token for j, token in enumerate(ids) if j not in removed]
            rows = model(torch.tensor([left + made[:-1]]))[0, -len(made) :].double()
            known[removed] = rows.log_softmax(-1)[range(len(made)), made].numpy()
        return known[removed]

    values = np.zeros((len(made), len(inputs)))
    for order in itertools.permutations(range(len(inputs))):
        removed = frozenset()
        for at in order:
            more = removed | {inputs[at]}
            values[:, at] += scores(removed) - scores(more)
            removed = more
    return values / math.factorial(len(inputs)), scores(frozenset()) - scores(frozenset(inputs))


def test_shapley_is_the_average_over_every_order(model):
    inputs = [1, 2, 3, 4]  # the first token stays: something has to be read
    found = shapley(ask(model, torch.tensor(IDS), outputs=3, inputs=inputs))
    made = found.output_token_id.values.tolist()
    values, joint = shapley_by_orders(model, IDS, made, inputs)
    np.testing.assert_allclose(found.values[:, inputs], values, atol=1e-5)
    np.testing.assert_allclose(found.joint_effect.values, joint, atol=1e-5)
    assert np.isnan(found.values[:, 0]).all()


@pytest.mark.parametrize("method", [shapley, kernel_shap])
@pytest.mark.parametrize("removal", ["delete_keep", "knockout", "mean", "resample"])
@pytest.mark.parametrize("metric", [centred_logit, kl, sequence_log_prob])
def test_values_sum_to_what_all_do_together(absolute_model, method, removal, metric):
    question = ask(absolute_model, torch.tensor(IDS), 2, metric(), inputs=[1, 2, 3, 4])
    found = method(question, removal=removal)
    together = leave_one_out(question, removal).joint_effect.values
    np.testing.assert_allclose(found.sum("input").values, together, atol=1e-6)
    np.testing.assert_allclose(found.joint_effect.values, together, atol=1e-6)
    np.testing.assert_allclose(found.residual.values, 0, atol=1e-6)


@pytest.mark.parametrize("n_subsets", [30, 31, 500])
def test_kernel_shap_with_all_sets_is_exact(model, n_subsets):
    question = ask(model, torch.tensor([*IDS, 19]), outputs=2, inputs=[1, 2, 3, 4, 5])
    found = kernel_shap(question, n_subsets)
    np.testing.assert_allclose(found.values, shapley(question).values, atol=1e-5)
    assert found.attrs["n_subsets"] == 30
    assert (found.error.values[:, 1:] == 0).all()


@pytest.mark.slow
def test_kernel_shap_comes_close_with_few_sets(grouped_model):
    question = ask(grouped_model, torch.tensor([*IDS, 19, 1, 12, 4]), outputs=1, inputs=range(1, 9))
    exact = shapley(question).values[0, 1:]
    off = []
    for n_subsets in (16, 60, 180):
        some = [kernel_shap(question, n_subsets, seed=seed) for seed in range(3)]
        values = np.array([found.values[0, 1:] for found in some])
        off.append(np.sqrt(((values - exact) ** 2).mean()) / exact.std())
    assert off[0] < 1
    assert off[1] < 0.5
    assert off[2] < 0.15
    error = np.array([found.error.values[0, 1:] for found in some])
    assert (np.abs(values - exact) < 4 * error + 1e-6).all()


# Planted truth


AND, TRIGGER = load_model("toy:and"), load_model("toy:trigger")


@pytest.mark.parametrize("method", METHODS)
def test_two_that_need_each_other_share(method):
    scores = method(ask(AND, "bring copper and the lantern", outputs=1))[0, 1:]
    tolerance = 0.01 if method is not sparse_surrogate else 1.5
    np.testing.assert_allclose(scores.values, [0, 4, 0, 0, 4], atol=tolerance)
    one_alone = method(ask(AND, "bring copper and the bread", outputs=1))[0, 1:]
    assert np.abs(one_alone.values).max() < 0.01


@pytest.mark.parametrize("method", METHODS)
def test_two_that_stand_in_for_each_other_share(method):
    scores = method(ask(TRIGGER, "bring sesame and the sesame", outputs=1))[0, 1:]
    tolerance = 0.01 if method is not sparse_surrogate else 1.5
    np.testing.assert_allclose(scores.values, [0, 4, 0, 0, 4], atol=tolerance)


WORDS = ("please", "bring", "the", "a", "bread", "now")


@settings(max_examples=settings.default.max_examples // 4)
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), place=st.integers(0, 4))
def test_only_the_trigger_counts(words, place):
    place = min(place, len(words))
    question = ask(TRIGGER, " ".join([*words[:place], "sesame", *words[place:]]), outputs=1)
    for method in METHODS:
        found = method(question)[0]
        assert float(found[place + 1]) == pytest.approx(float(found.joint_effect), rel=0.01)
        others = np.delete(found.values[1:], place)
        assert (np.abs(others) < 0.01).all()
    assert float(found.fit) > 0.99


@settings(max_examples=settings.default.max_examples // 4)
@given(ids=st.lists(st.integers(0, 22), min_size=1, max_size=4), n=st.integers(1, 3))
def test_where_scores_add_up_all_methods_agree(linear_model, zeroed, ids, n):
    metric = logit_diff(4, 9) if n < 3 else centred_logit()
    outputs = list(range(3, 3 + n))
    question = ask(linear_model, torch.tensor(ids), outputs, metric, inputs="sequence")
    alone = leave_one_out(question, zeroed).values
    np.testing.assert_allclose(shapley(question, zeroed).values, alone, atol=1e-4)
    few = kernel_shap(question, 2 * alone.shape[1], zeroed)
    np.testing.assert_allclose(few.values, alone, atol=1e-4)
    surrogate = sparse_surrogate(question, 60, zeroed, alpha=1e-5)
    np.testing.assert_allclose(surrogate.values, alone, atol=1e-3)
    assert (surrogate.fit.values > 0.999).all()


def test_what_adds_up_is_the_token_times_the_weights(linear_model, zeroed):
    ids = [7, 1, 20, 8, 2]
    found = shapley(ask(linear_model, torch.tensor(ids), last(2), logit_diff(4, 9)), zeroed)
    unembed = linear_model.W_U[:, 4] - linear_model.W_U[:, 9]
    through = [(linear_model.W_V[k] @ linear_model.W_O[k]).sum(0) for k in range(2)]
    for i, row in enumerate((3, 4)):
        for j in range(5):
            # By hand: a token's part of the residual stream, evenly spread to those after it.
            stream = torch.zeros(5, linear_model.cfg.d_model)
            stream[j] = linear_model.W_E[ids[j]]
            for matrix in through:
                even = torch.tril(torch.ones(5, 5)) / torch.arange(1, 6)[:, None]
                stream = stream + even @ stream @ matrix
            assert float(found[i, j]) == pytest.approx(float(stream[row] @ unembed), abs=1e-4)


# Units, outputs, removals


@pytest.mark.parametrize("method", METHODS)
def test_units_after_an_output_are_exactly_zero_and_change_nothing(model, method):
    ids = torch.tensor([*IDS, 19])
    options = {"n_subsets": 20} if method is kernel_shap else {}
    question = ask(model, ids, last(4), inputs=[0, 1, 3, 4, 5])
    found = method(question, removal=put_zero, **options)
    future = found.input.values > found.output_position.values[:, None]
    assert (found.values[future] == 0).all()
    past = found.values[~future & ~np.isnan(found.values)]
    assert (past != 0).mean() > 0.9
    if method is shapley:
        early = method(ask(model, ids[:4], last(2), inputs=[0, 1, 3]), removal=put_zero)
        np.testing.assert_allclose(found.values[:2, :4], early.values, atol=1e-5)
    if method is kernel_shap:
        assert (found.error.values[future] == 0).all()


def test_an_output_with_nothing_before_it_has_zeros(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS), last(4), inputs=[3, 4])
    for method in METHODS:
        found = method(question, removal="mean")
        assert (found.values[:2, 3:] == 0).all()
        assert (found.values[3, 3:] != 0).all()


def test_units_are_removed_together(absolute_model):
    units = {"ends": [1, 4], "middle": (2, 3)}
    found = shapley(ask(absolute_model, torch.tensor(IDS), 1, units=units), "delete")
    made = found.output_token_id.values.tolist()

    def score(*left):
        logits = absolute_model(torch.tensor([[IDS[j] for j in left]]))[0, -1].double()
        return float(logits.log_softmax(-1)[made[0]])

    whole, neither = score(0, 1, 2, 3, 4), score(0)
    ends = (whole - score(0, 2, 3) + score(0, 1, 4) - neither) / 2
    scores = dict(zip(found.input_name.values.tolist(), found.values[0].tolist(), strict=True))
    assert scores["ends"] == pytest.approx(ends, abs=1e-5)
    assert scores["middle"] == pytest.approx(whole - neither - ends, abs=1e-5)


def test_one_unit_has_all_of_the_effect(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS), 2, inputs=[2])
    alone = leave_one_out(question, "mean").values[:, 2]
    assert np.abs(alone).min() > 0.01
    for method in METHODS:
        found = method(question, removal="mean")
        np.testing.assert_allclose(found.values[:, 2], alone, rtol=0.01)
        np.testing.assert_allclose(found.joint_effect.values, alone, atol=1e-5)


def test_draws_are_averaged(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS), 1)
    drawn = resampled_token(absolute_model, n_draws=3, seed=5)
    each = [
        shapley(question, Removal("one draw", lambda at, _, draw=draw: drawn.specs(at, draw)))
        for draw in range(3)
    ]
    found = shapley(question, drawn)
    np.testing.assert_allclose(found.values, np.mean([e.values for e in each], 0), atol=1e-5)
    assert np.ptp([e.values for e in each], axis=0).min() > 1e-3
    assert found.attrs["n_draws"] == 3


def test_without_a_start_token_a_surrogate_keeps_something(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS[:3]), 2)
    found = sparse_surrogate(question, keep=0.2, alpha=1e-3)
    assert np.isfinite(found.values).all()
    assert np.isnan(found.joint_effect.values).all()
    assert np.isfinite(sparse_surrogate(question, removal="mean").joint_effect.values).all()


def test_a_surrogate_predicts_sets_it_has_not_met(absolute_model):
    question = ask(absolute_model, torch.tensor([*IDS, 19, 1, 12]), 1, inputs=range(1, 8))
    found = sparse_surrogate(question, 256)
    sets = [one for size in range(8) for one in itertools.combinations(range(7), size)]
    drop = drops(question, [[question.attributed[j] for j in s] for s in sets])["drop"].values[0]
    told = np.array([found.values[0, 1:][list(s)].sum() for s in sets])
    off = (drop - drop.mean()) - (told - told.mean())
    explained = 1 - off.var() / drop.var()
    assert float(found.fit[0]) == pytest.approx(explained, abs=0.12)
    design = np.column_stack([[[j in s for j in range(7)] for s in sets], np.ones(len(sets))])
    best = 1 - (np.linalg.lstsq(design, drop)[1] / len(drop) / drop.var())[0]
    assert best - 0.1 < explained < best < 0.9


def test_context_cite_is_a_metric_and_a_penalty_away(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS), 3, sequence_log_odds(), inputs=[1, 2, 3, 4])
    found = sparse_surrogate(question, alpha=0.03)
    assert found.dims == ("output", "input")
    assert found.shape == (1, 5)
    assert float(found.alpha[0]) == 0.03
    assert (sparse_surrogate(question, alpha=1e4).values[0, 1:] == 0).all()


def test_cost_and_options(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS), 2, inputs=[1, 2, 3])
    found = shapley(question)
    layers, width = absolute_model.cfg.n_layers, question.sequence.width
    assert found.attrs["arms"] == 7
    assert found.attrs["n_subsets"] == 8
    assert found.attrs["token_layers_naive"] == 2 * (8 + 1) * width * layers
    assert found.attrs["token_layers"] < found.attrs["token_layers_naive"] / 2
    assert found.attrs["passes"] >= 1 + question.n_passes
    seen = []
    small = shapley(question, budget_bytes=1, progress=lambda *counts: seen.append(counts))
    assert small.attrs["passes"] > found.attrs["passes"]
    assert seen[-1][0] == seen[-1][1]
    np.testing.assert_allclose(small.values, found.values, atol=1e-5)


def test_seeds_repeat(absolute_model):
    question = ask(absolute_model, torch.tensor([*IDS, 19, 1, 12]), 1, inputs=range(1, 8))
    for method in (kernel_shap, sparse_surrogate):
        first, again, other = (method(question, 40, seed=seed).values for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert np.nanmax(np.abs(first - other)) > 1e-3


# Errors


def test_too_many_units_are_refused_with_what_to_try(absolute_model, refuses):
    question = ask(absolute_model, torch.tensor([*IDS, *range(9)]), 1)
    assert len(question.attributed) > MOST_UNITS
    refuses(lambda: shapley(question), "2^14 of 14", "12", 'units="sentence"', "kernel_shap")
    refuses(lambda: kernel_shap(question, 27), "n_subsets=27", "14 units", "28", "sentence")
    assert kernel_shap(question, 28, "mean").shape == (1, 14)


@pytest.mark.parametrize("method", [shapley, kernel_shap])
def test_all_units_have_to_be_removable(absolute_model, refuses, method):
    question = ask(absolute_model, torch.tensor(IDS), 1)
    refuses(lambda: method(question), "5 attributed units", "'delete'", "inputs=[...]", "knockout")
    assert method(question, removal="knockout").shape == (1, 5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_subsets": 9}, "n_subsets=9"),
        ({"n_subsets": 0}, "0 sets of 5 units"),
        ({"alpha": 0.0}, "positive alpha"),
        ({"alpha": math.inf}, "positive alpha"),
        ({"keep": 1.0}, "keep=1.0"),
        ({"keep": 0.0}, "keep=0.0"),
        ({"keep": 0.99, "n_subsets": 10}, "kept in all 10 sets"),
        ({"keep": 0.01, "n_subsets": 10}, "removed in all 10 sets"),
        ({"removal": "remove"}, "removal 'remove' is unknown"),
    ],
)
def test_surrogate_errors_say_what_to_do(options, said, refuses):
    question = ask(AND, "bring copper and the lantern", 1)
    refuses(lambda: sparse_surrogate(question, **options), said)


def test_a_unit_that_cannot_be_removed_has_no_surrogate(absolute_model, refuses):
    question = ask(absolute_model, torch.tensor(IDS[:1]), 1)
    refuses(lambda: sparse_surrogate(question), "kept in all 64 sets", "another removal")


def test_no_convergence_is_an_error(monkeypatch, refuses):
    monkeypatch.setattr(subset_fits, "MOST_ROUNDS", 1)
    question = ask(AND, "bring copper and the lantern", 1)
    refuses(lambda: sparse_surrogate(question, alpha=1e-6), "did not converge", "larger alpha")


# A real model


@pytest.mark.slow
def test_more_sets_come_closer_on_a_real_model(smollm2):
    prompt = "The capital of France is the city of"
    question = ask(smollm2, prompt, outputs=1, units="word")
    assert len(question.attributed) == 8
    exact = shapley(question)
    wanted = question.attributed
    assert exact.input_token.values[int(exact[0].argmax("input"))] == " France"
    r = [
        np.corrcoef(kernel_shap(question, n)[0, wanted], exact[0, wanted])[0, 1]
        for n in (16, 64, 254)
    ]
    assert r[0] > 0.7
    assert r[1] > 0.95
    assert r[2] > 1 - 1e-9


@pytest.mark.parametrize("method", [kernel_shap, sparse_surrogate])
def test_sets_are_counted(as_users_call_it, method):
    question = ask(load_model("toy:trigger"), "please bring the sesame", outputs=1)
    with pytest.raises(ValueError, match=r"n_subsets is 20.5: give a whole number"):
        method(question, 20.5)
