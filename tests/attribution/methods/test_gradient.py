"""Gradients of the embeddings against the plain model's own, and sums that add up."""

import copy
import warnings

import numpy as np
import pytest
import torch

from mechinterp import ask, centred_logit, kl, last, load_model, logit_diff, models
from mechinterp.attribution.methods.gradient import (
    CompletenessWarning,
    gradient_x_input,
    integrated_gradients,
)
from mechinterp.attribution.methods.integration_path import IntegrationPath, Point
from mechinterp.attribution.methods.single_removal import RedundancyWarning, leave_one_out
from mechinterp.core.metrics import sequence_log_prob, top_token
from mechinterp.tasks.refusals import refusal_log_odds

IDS = [7, 1, 30, 8, 2, 19, 1, 33]
rough_is_fine = pytest.mark.filterwarnings("ignore:integrated gradients:UserWarning")
INPUTS = [1, 2, 4, 5, 6]  # position 0 stands for a start token, 3 and 7 for a template


def plain_scores(model, question, embeddings):
    """Every output's log-probability, by the plain model on given embeddings `[row, pos, d]`."""
    ids = question.sequence.tokens.expand(len(embeddings), -1)
    hooks = [("hook_embed", lambda value, hook: embeddings)]
    logs = model.run_with_hooks(ids, fwd_hooks=hooks).double().log_softmax(-1)
    pairs = zip(question.rows, question.output_ids, strict=True)
    return torch.stack([logs[:, row, token] for row, token in pairs], 1)


def embeddings_of(model, question):
    return model.embed(question.sequence.tokens).detach()


def slopes_of(model, question, embeddings):
    """The gradient of each output at each row's embeddings: `[output, row, pos, d]`."""
    leaf = embeddings.clone().requires_grad_()
    with torch.enable_grad():
        scores = plain_scores(model, question, leaf).sum(0)
        return torch.stack([torch.autograd.grad(s, leaf, retain_graph=True)[0] for s in scores])


def baseline_of(model, baseline):
    if baseline == "mean":
        return model.W_E.mean(0)
    return torch.zeros(model.cfg.d_model) if baseline == "zero" else model.W_E[baseline]


def moved(question, own, goal, share):
    """The attributed embeddings a share of the way from the goal to their own."""
    there = own.clone()
    there[:, INPUTS] = goal + share * (own[:, INPUTS] - goal)
    return there


# Gradient x input


def test_gradient_x_input_is_the_plain_model_s(model):
    question = ask(model, torch.tensor(IDS), 3, inputs=INPUTS)
    found = gradient_x_input(question)
    own = embeddings_of(model, question)
    each = (slopes_of(model, question, own)[:, 0] * own[0]).sum(-1)
    assert np.isnan(found.values).tolist() == [[i not in INPUTS for i in range(8)]] * 3
    np.testing.assert_allclose(found.values[:, INPUTS], each[:, INPUTS], atol=1e-5)
    assert np.abs(found.values[:, INPUTS]).min() > 1e-4


@pytest.mark.parametrize("method", [gradient_x_input, integrated_gradients])
def test_one_score_for_all_outputs_is_the_sum_of_their_log_probs(model, method):
    apart = ask(model, torch.tensor(IDS), 3)
    together = ask(model, torch.tensor(IDS), 3, sequence_log_prob())
    options = {} if method is gradient_x_input else {"steps": 9}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompletenessWarning)
        parts, whole = method(apart, **options), method(together, **options)
    np.testing.assert_allclose(whole.values, parts.values.sum(0, keepdims=True), atol=1e-4)


# Integrated gradients


@pytest.mark.parametrize("baseline", ["mean", "zero", 5])
def test_scores_add_up_to_what_the_baseline_changes(model, baseline):
    question = ask(model, torch.tensor(IDS), 3, inputs=INPUTS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompletenessWarning)
        found = integrated_gradients(question, baseline)
    own, goal = embeddings_of(model, question), baseline_of(model, baseline)
    start = plain_scores(model, question, moved(question, own, goal, 0.0))[0]
    np.testing.assert_allclose(found.baseline_score, start, atol=1e-4)
    change = question.scores - start.numpy()
    error = np.nansum(found.values, 1) - change
    np.testing.assert_allclose(found.completeness_error, error, atol=1e-4)
    assert (np.abs(error) <= np.maximum(0.05 * np.abs(change), 0.01)).all()
    assert np.abs(change).max() > 0.02


@pytest.mark.parametrize("baseline", ["mean", 5])
def test_integrated_gradients_are_the_mean_of_many_gradients(model, baseline):
    question = ask(model, torch.tensor(IDS), 2, inputs=INPUTS)
    found = integrated_gradients(question, baseline, 256).values[:, INPUTS]
    own, goal = embeddings_of(model, question), baseline_of(model, baseline)
    shares = (torch.arange(400) + 0.5) / 400
    rows = torch.cat([moved(question, own, goal, share) for share in shares])
    slopes = slopes_of(model, question, rows).mean(1)
    each = (slopes * (own[0] - goal)).sum(-1)[:, INPUTS].numpy()
    np.testing.assert_allclose(found, each, atol=0.03 * np.abs(each).max())


@pytest.mark.filterwarnings("ignore::mechinterp.attribution.methods.gradient.CompletenessWarning")
def test_where_all_is_linear_every_method_gives_the_same(linear_model, zeroed):
    question = ask(
        linear_model, torch.tensor([7, 1, 20, 8, 2]), 3, logit_diff(5, 11), inputs=[0, 2, 3]
    )
    integrated = integrated_gradients(question, "zero")
    single = leave_one_out(question, zeroed)
    np.testing.assert_allclose(integrated.values, single.values, atol=1e-5)
    np.testing.assert_allclose(gradient_x_input(question).values, single.values, atol=1e-5)
    two = integrated_gradients(question, "zero", 2)
    np.testing.assert_allclose(two.values, single.values, atol=1e-5)
    assert integrated.attrs["steps"] == 9
    assert np.nanmin(np.abs(single.values)) > 1e-4


@rough_is_fine
def test_a_token_that_is_the_baseline_gets_nothing(model):
    question = ask(model, torch.tensor(IDS), 2)
    found = integrated_gradients(question, 1, 9)
    same = np.array(IDS) == 1
    assert (found.values[:, same] == 0.0).all()
    assert (found.values[:, ~same] != 0.0).all()


def test_two_triggers_share_what_either_does():
    question = ask(load_model("toy:trigger"), "bring the sesame and the sesame", 1)
    found = integrated_gradients(question).values[0, 1:]
    at = [2, 5]
    np.testing.assert_allclose(found[at], 4.0, atol=0.1)
    np.testing.assert_allclose(np.delete(found, at), 0.0, atol=0.1)
    with pytest.warns(RedundancyWarning):
        alone = leave_one_out(question).values[0, 1:]
    assert np.abs(alone).max() < 0.01
    slopes = np.abs(gradient_x_input(question).values[0, 1:])
    assert sorted(np.argsort(-slopes)[:2]) == at


def test_steps_go_where_gradients_change_fast():
    question = ask(load_model("toy:trigger"), "bring the sesame and the sesame", 1)
    assert 9 < integrated_gradients(question, "zero").attrs["steps"] < 64
    path = IntegrationPath.from_question(question, torch.zeros(question.model.cfg.d_model), None)
    # Scores of 0, 0, 1, 3, 3 over slopes of nothing: all that there is happens in the middle.
    for share, score in zip((0.0, 0.25, 0.5, 0.75, 1.0), (0, 0, 1, 3, 3), strict=True):
        path.points[share] = Point(np.array([float(score)]), np.zeros((1, 7)))
    assert path.midpoints_to_refine(8) == [0.625, 0.375]
    assert path.midpoints_to_refine(1) == [0.625]
    assert path.trapezoid_errors()[:, 0].tolist() == [0, -1, -2, 0]


def test_scores_are_the_integral_though_what_one_gains_another_loses(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS), 3)
    found, fine = (
        integrated_gradients(question),
        IntegrationPath.from_question(question, models.mean_embedding(absolute_model), None),
    )
    fine.evaluate(np.linspace(0, 1, 513).tolist())
    truth = fine.integral()[:, question.attributed]
    off = np.abs(found.values[:, question.attributed] - truth)
    size = np.abs(truth).sum(1, keepdims=True)
    assert (off <= np.maximum(0.02 * size, 0.01)).all()
    assert (off <= 2 * found.integration_error.values[:, question.attributed] + 1e-3 * size).all()


@rough_is_fine
@pytest.mark.parametrize("baseline", ["zero", "mean", 5])
def test_a9_stated_errors_bound_the_true_ones_and_what_is_known(model, baseline):
    """In 200 random cases: scripts/proofs/integration_error.py."""
    question = ask(model, torch.tensor(IDS), 2, inputs=INPUTS)
    found = integrated_gradients(question, baseline)
    own, goal = embeddings_of(model, question), baseline_of(model, baseline)
    shares = (torch.arange(1000) + 0.5) / 1000
    rows = torch.cat([moved(question, own, goal, share) for share in shares])
    truth = (slopes_of(model, question, rows).mean(1) * (own[0] - goal)).sum(-1)[:, INPUTS].numpy()
    stated = found.integration_error.values[:, INPUTS]
    assert (np.abs(found.values[:, INPUTS] - truth) <= stated).all()
    assert (np.abs(found.completeness_error.values) <= stated.sum(1)).all()


@rough_is_fine
@pytest.mark.parametrize("steps", [2, 11, 100])
def test_a9_as_many_steps_are_taken_as_are_asked_for(absolute_model, steps):
    question = ask(absolute_model, torch.tensor(IDS), 1)
    assert integrated_gradients(question, steps=steps).attrs["steps"] == steps


def test_an_output_has_the_same_scores_beside_others(smollm2):
    """The sum over inputs converges long before each of them does."""
    one, two = (
        integrated_gradients(ask(smollm2, "The capital of France is", n))[0].values[1:]
        for n in (1, 2)
    )
    assert np.abs(one - two).max() < 0.02 * np.abs(one).sum()


def test_too_few_steps_warn_and_say_by_how_much(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS), 3)
    with pytest.warns(CompletenessWarning, match=r"Raise steps=4") as caught:
        found = integrated_gradients(question, steps=2)
    error = np.abs(found.completeness_error.values)
    worst = int(error.argmax())
    assert f"{question.output_texts[worst]!r}" in str(caught[0].message)
    assert f"by {error[worst]:.2f}, and single ones" in str(caught[0].message)


def test_a_distance_is_what_moves_the_prediction(model):
    question = ask(model, torch.tensor(IDS), 2, kl(), inputs=INPUTS)
    found = integrated_gradients(question)
    total = found.sum("input") - found.completeness_error
    np.testing.assert_allclose(total, found.baseline_score, atol=1e-4)
    assert (found.baseline_score > 0.001).all()
    with pytest.raises(ValueError, match="kl is least at the unchanged prompt"):
        gradient_x_input(question)


def test_positions_that_each_layer_reads_are_no_obstacle(small):
    model = small(positional_embedding_type="shortformer", normalization_type="LN")
    question = ask(model, torch.tensor(IDS), 2, inputs=INPUTS)
    own = embeddings_of(model, question)
    each = (slopes_of(model, question, own)[:, 0] * own[0]).sum(-1)
    found = gradient_x_input(question)
    np.testing.assert_allclose(found.values[:, INPUTS], each[:, INPUTS], atol=1e-5)


# Both


@pytest.fixture(params=[gradient_x_input, lambda question: integrated_gradients(question, 3)])
def method(request):
    return request.param


def test_what_comes_after_an_output_scores_exactly_zero(model, method):
    question = ask(model, torch.tensor(IDS), last(4))
    found = method(question)
    future = found.input.values > found.output_position.values[:, None]
    assert future.sum() == 3 + 2 + 1
    assert (found.values[future] == 0.0).all()
    assert (found.values[~future] != 0.0).all()


def test_a_unit_is_the_sum_of_its_tokens(model, method):
    spans = {"a": [0, 5], "b": (1, 3), "c": [4, 6, 7]}
    each = method(ask(model, torch.tensor(IDS), 2)).values
    found = method(ask(model, torch.tensor(IDS), 2, units=spans))
    names = found.input_name.values.tolist()
    for name, positions in {"a": [0, 5], "b": [1, 2, 3], "c": [4, 6, 7]}.items():
        summed = each[:, positions].sum(1)
        np.testing.assert_allclose(found.values[:, names.index(name)], summed, atol=1e-5)


@rough_is_fine
def test_small_passes_give_the_same(model):
    question = ask(model, torch.tensor(IDS), 2)
    whole, small = (integrated_gradients(question, 3, 20, budget_bytes=b) for b in (1 << 30, 1))
    np.testing.assert_allclose(small.values, whole.values, atol=1e-5)
    assert small.attrs["passes"] - question.n_passes == small.attrs["steps"]
    assert whole.attrs["passes"] - question.n_passes <= 3


def test_cost_counts_a_backward_pass_as_two_forward_ones(absolute_model):
    question = ask(absolute_model, torch.tensor(IDS[:5]), 2)
    whole = 6 * absolute_model.cfg.n_layers
    found = gradient_x_input(question)
    assert found.attrs["token_layers"] == (1 + 2 * 2 + question.n_passes) * whole
    assert found.attrs["passes"] == 1 + question.n_passes
    assert found.attrs["backward_passes"] == 2
    found = integrated_gradients(question, 3, 7)
    assert found.attrs["token_layers"] == (7 * (1 + 2 * 2) + question.n_passes) * whole


@rough_is_fine
def test_progress_ends_with_all(model):
    seen = []
    question = ask(model, torch.tensor(IDS), 1)
    integrated_gradients(
        question, 3, 20, budget_bytes=1, progress=lambda *counts: seen.append(counts)
    )
    done = [count for count, _ in seen]
    assert done == sorted(set(done))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 0
    assert len({total for _, total in seen}) == 1


def test_nothing_is_left_on_the_model(absolute_model, snapshot, method):
    before = snapshot(absolute_model)
    method(ask(absolute_model, torch.tensor(IDS), 2))
    before.check()
    assert all(weight.grad is None for weight in absolute_model.parameters())


def test_a_model_that_trains_gets_no_gradients(absolute_model, method):
    model = copy.deepcopy(absolute_model).requires_grad_(requires_grad=True)
    found = method(ask(model, torch.tensor(IDS), 2))
    assert all(weight.grad is None for weight in model.parameters())
    frozen = method(ask(absolute_model, torch.tensor(IDS), 2))
    np.testing.assert_allclose(found.values, frozen.values, atol=1e-6)


def test_a_metric_of_the_first_answer_alone():
    model = load_model("toy:trigger")
    odds = refusal_log_odds(model, ["REFUSE"], ["COMPLY"])
    question = ask(model, "please bring the sesame", 1, odds)
    found = integrated_gradients(question)
    assert int(found[0].argmax("input")) == 4
    assert float(found.sum()) == pytest.approx(
        float(question.scores[0] - found.baseline_score[0]), rel=0.05
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"baseline": "average"}, "baseline='average' is unknown: mean, zero, or a token id"),
        ({"baseline": 37}, "a token id below 37"),
        ({"baseline": -1}, "a token id below 37"),
        ({"steps": 1}, "steps=1"),
    ],
)
def test_errors_say_what_to_do(absolute_model, options, said):
    question = ask(absolute_model, torch.tensor(IDS), 1)
    with pytest.raises(ValueError, match=said):
        integrated_gradients(question, **options)


def test_a_choice_has_no_gradient(absolute_model, method):
    question = ask(absolute_model, torch.tensor(IDS), 1, top_token())
    with pytest.raises(ValueError, match="top_token has no gradient"):
        method(question)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["mean", "zero"])
def test_a_real_model_adds_up(smollm2, baseline):
    question = ask(smollm2, "The capital of France is", 2, centred_logit())
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompletenessWarning)
        found = integrated_gradients(question, baseline)
    change = question.scores - found.baseline_score.values
    assert (np.abs(found.completeness_error.values) <= 0.05 * np.abs(change)).all()
    assert found.attrs["steps"] <= 256
