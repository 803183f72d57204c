"""Joint removals against the plain model: one full pass for each set, by other means."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp import ask, attribute, load_model, replace_token, run, tokenize
from mechinterp.attribution.question.definition import drops
from mechinterp.attribution.question.removals import (
    REMOVALS,
    Removal,
    removal_of,
    replacement_token,
    resampled_token,
    suppression,
)

IDS = [7, 1, 30, 8, 2, 19, 1]
SETS = [(1,), (0, 2), (2, 3, 4), (3, 6), (1, 2, 4, 5), (6,), (5, 6)]


def plain(model, question, removed, how, draw):
    """Score of each output of the question, with positions removed, by the plain model."""
    ids = question.sequence.tokens[0].tolist()
    kept = [pos for pos in range(len(ids)) if pos not in removed]
    if how == "delete":
        logits = model(torch.tensor([[ids[pos] for pos in kept]]))[0]
        rows = [sum(pos <= row for pos in kept) - 1 for row in question.reads]
    else:
        rows = list(question.reads)
        tokens = torch.tensor([ids])
        hooks = []
        if how == "replace":
            tokens[0, removed] = 4
        elif how == "resample":
            for pos in removed:
                tokens[0, pos] = int(np.random.default_rng([0, draw, pos]).choice([5, 6, 9]))
        elif how == "mean":

            def put_mean(value, hook):
                value[:, removed] = model.W_E.mean(0)
                return value

            hooks = [("hook_embed", put_mean)]
        else:

            def less(value, hook):
                for pos in removed:
                    value[:, :, pos + 1 :, pos] *= 0.1 if how == "suppress" else 0
                return value / value.sum(-1, keepdim=True)

            layers = range(model.cfg.n_layers)
            hooks = [(f"blocks.{layer}.attn.hook_pattern", less) for layer in layers]
            if how == "delete_keep":  # what stands there must not matter
                tokens[0, removed] = torch.tensor([11 + pos for pos in range(len(removed))])
                rows = [max(pos for pos in kept if pos <= row) for row in question.reads]
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks)[0]
    logs = logits[rows].double().log_softmax(-1)
    return logs[range(len(rows)), list(question.read_ids)].numpy()


@pytest.mark.parametrize("how", REMOVALS)
def test_joint_removals_equal_the_slow_loop(model, how):
    question = ask(model, torch.tensor(IDS), 3)
    removal = {
        "replace": replacement_token(model, 4),
        "resample": resampled_token(model, n_draws=3, pool=[5, 6, 9]),
    }.get(how, how)
    fallen = drops(question, SETS, removal)
    n_draws = 3 if how == "resample" else 1
    for number, removed in enumerate(SETS):
        each = [plain(model, question, list(removed), how, draw) for draw in range(n_draws)]
        wanted = question.scores - np.mean(each, 0)
        np.testing.assert_allclose(fallen["drop"].values[:, number], wanted, atol=1e-4)
        if n_draws > 1:
            error = np.std(each, 0, ddof=1) / np.sqrt(n_draws)
            np.testing.assert_allclose(fallen["error"].values[:, number], error, atol=1e-4)
        else:
            assert np.isnan(fallen["error"].values).all()


ALL = load_model("toy:either")


@settings(max_examples=settings.default.max_examples // 2)
@given(st.sets(st.integers(1, 6), max_size=5), st.sampled_from(list(REMOVALS)))
def test_a_removal_does_not_depend_on_the_order_of_a_set(chosen, how):
    question = ask(ALL, "bring the copper and the lantern", 1)
    forth, back = drops(question, [sorted(chosen), sorted(chosen, reverse=True)], how)[
        "drop"
    ].values[0]
    assert forth == back


def test_delete_in_place_keeps_learned_positions(absolute_model):
    """Against a pass over the shorter prompt, whose position embeddings are put in by hand."""
    question = ask(absolute_model, torch.tensor(IDS), 2)
    for removed in [(2,), (1, 4), (6,)]:
        ids = question.sequence.tokens[0].tolist()
        kept = [pos for pos in range(len(ids)) if pos not in removed]

        def gaps(value, hook, kept=kept):
            return absolute_model.W_pos[kept][None]

        logits = absolute_model.run_with_hooks(
            torch.tensor([[ids[pos] for pos in kept]]), fwd_hooks=[("hook_pos_embed", gaps)]
        )[0]
        rows = [sum(pos <= row for pos in kept) - 1 for row in question.reads]
        logs = logits[rows].double().log_softmax(-1)[range(2), list(question.read_ids)].numpy()
        found = drops(question, [removed], "delete_keep")["drop"].values[:, 0]
        np.testing.assert_allclose(found, question.scores - logs, atol=1e-5)


def test_suppression_by_nearly_all_is_knockout_and_by_little_is_little(model):
    ids = torch.tensor(IDS)
    cut = attribute(model, ids, 2, "knockout").values
    np.testing.assert_allclose(
        attribute(model, ids, 2, suppression(model, 1 - 1e-7)).values, cut, atol=1e-4
    )
    slight = attribute(model, ids, 2, suppression(model, 1e-6)).values
    assert np.abs(slight).max() < 1e-4 < np.abs(cut).max()


def test_a_pool_and_its_error(absolute_model):
    same = attribute(
        absolute_model, torch.tensor(IDS), 1, resampled_token(absolute_model, 5, 0, [4])
    )
    once = attribute(absolute_model, torch.tensor(IDS), 1, replacement_token(absolute_model, 4))
    np.testing.assert_allclose(same.values, once.values, atol=1e-6)
    assert np.abs(same["error"].values).max() < 1e-6
    drawn = attribute(absolute_model, torch.tensor(IDS), 1, resampled_token(absolute_model, 5))
    assert drawn.attrs["n_draws"] == 5
    assert (drawn["error"].values > 0).all()


def test_a_removal_of_ones_own_for_a_whole_set(absolute_model):
    mine = Removal("mine", lambda positions, draw: replace_token(positions[0], 4))
    fallen = drops(ask(absolute_model, torch.tensor(IDS), 1), [(2, 5)], mine)
    once = drops(
        ask(absolute_model, torch.tensor(IDS), 1), [(2,)], replacement_token(absolute_model, 4)
    )
    assert float(fallen["drop"][0, 0]) == pytest.approx(float(once["drop"][0, 0]), abs=1e-6)
    assert fallen.attrs["removal"] == "mine"


@pytest.mark.parametrize("how", ["delete", "delete_keep"])
def test_nothing_left_to_read_from_is_an_error(absolute_model, how):
    question = ask(absolute_model, torch.tensor([7, 8, 9]), 1)
    with pytest.raises(ValueError, match="leaves no position up to 2"):
        drops(question, [(0, 1, 2)], how)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda m: suppression(m, 1.0), "not between 0 and 1"),
        (lambda m: resampled_token(m, n_draws=0), "0 draws from"),
        (lambda m: resampled_token(m, pool=[]), "from 0 tokens"),
        (lambda m: removal_of(m, "remove"), "delete, delete_keep, knockout"),
        (lambda m: replacement_token(m), "Choose a token"),
    ],
)
def test_errors_say_what_to_do(absolute_model, make, said):
    with pytest.raises(ValueError, match=said):
        make(absolute_model)


def test_every_removal_is_only_specs():
    """What a user could have written: the specs of a removal run by `run` alone."""
    prompts = tokenize(ALL, "bring the copper and a box")
    for name in REMOVALS:
        specs = removal_of(ALL, name).specs((3, 5), 0)
        assert run(ALL, prompts, specs).logits.shape == (1, 1, ALL.cfg.d_vocab)
