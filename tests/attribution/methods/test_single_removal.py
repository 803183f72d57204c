"""`attribute` against the slow loop: one full pass of the plain model per input token."""

import re
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechinterp import (
    HookError,
    Site,
    attribute,
    centred_logit,
    delete_token,
    kl,
    last,
    load_model,
    log_prob,
    logit,
    logit_diff,
    prob,
    replace_token,
    sweep_each,
    tokenize,
    zero,
)
from mechinterp.attribution.question.removals import REMOVALS, replacement_token
from mechinterp.core.prompts import Prompts

N_OUTPUTS = 4
IDS = [7, 1, 30, 8, 2, 19, 1, 33]
A, B = 5, 11  # the two tokens of the logit difference


def plain_greedy(model, ids, n):
    made = []
    for _ in range(n):
        made.append(int(model(torch.tensor([ids + made]))[0, -1].argmax()))
    return made


N_DRAWS = {"resample": 4}


def logits_without(model, ids, j, removal, draw=0):
    """All logits of the sequence with token j removed, by the plain model."""
    tokens = torch.tensor([ids])
    if removal == "delete":
        return model(torch.tensor([ids[:j] + ids[j + 1 :]]))[0]
    if removal in ("replace", "resample"):
        drawn = int(np.random.default_rng([0, draw, j]).choice(ordinary_ids(model)))
        tokens[0, j] = unknown_id(model) if removal == "replace" else drawn
        return model(tokens)[0]
    if removal == "mean":

        def put_mean(value, hook):
            value[:, j] = model.W_E.mean(0)
            return value

        return model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", put_mean)])[0]

    def less(value, hook):
        """The weight of j, made less after the softmax, and the others to make up for it."""
        value[:, :, j + 1 :, j] *= 0.1 if removal == "suppress" else 0
        return value / value.sum(-1, keepdim=True)

    hooks = [(f"blocks.{layer}.attn.hook_pattern", less) for layer in range(model.cfg.n_layers)]
    if removal == "delete_keep":  # whatever stands there
        tokens[0, j] = (tokens[0, j] + 1) % model.cfg.d_vocab
    return model.run_with_hooks(tokens, fwd_hooks=hooks)[0]


def ordinary_ids(model):
    special = set(model.tokenizer.all_special_ids) if model.tokenizer else set()
    return [i for i in range(model.cfg.d_vocab) if i not in special]


def unknown_id(model):
    return model.tokenizer.unk_token_id if model.tokenizer else 0


def number(metric, row, base, answer):
    """A metric by its definition, on one row of logits."""
    row, base = row.double(), base.double()
    if metric == "kl":
        p = base.softmax(-1)
        return float((p * (base.log_softmax(-1) - row.log_softmax(-1))).sum())
    return float(
        {
            "log_prob": row.log_softmax(-1)[answer],
            "prob": row.softmax(-1)[answer],
            "centred_logit": row[answer] - row.mean(),
            "logit": row[answer],
            "logit_diff": row[A] - row[B],
        }[metric]
    )


def slow_passes(model, ids, made, inputs, removal):
    """The logits of the whole prompt, and of one full pass for each input token and draw."""
    sequence = ids + made[:-1]
    draws = range(N_DRAWS.get(removal, 1))
    return model(torch.tensor([sequence]))[0], [
        [logits_without(model, sequence, j, removal, draw) for draw in draws] for j in inputs
    ]


def slow_scores(passes, ids, made, inputs, removal, metric):
    """Scores by the slow loop's passes, and whether the top token changes."""
    whole, variants = passes
    scores = np.zeros((len(made), len(inputs)))
    flips = np.zeros(scores.shape)
    for column, j in enumerate(inputs):
        n_draws = len(variants[column])
        for variant in variants[column]:
            for i, answer in enumerate(made):
                row = len(ids) - 1 + i
                at = row
                if (removal == "delete" and j <= row) or (removal == "delete_keep" and j == row):
                    at = row - 1
                before = number(metric, whole[row], whole[row], answer)
                after = number(metric, variant[at], whole[row], answer)
                scores[i, column] += (after if metric == "kl" else before - after) / n_draws
                flips[i, column] += bool(whole[row].argmax() != variant[at].argmax()) / n_draws
    return scores, flips > 0.5


def metric_named(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "log_prob": log_prob,
            "prob": prob,
            "centred_logit": centred_logit,
            "logit": logit,
            "logit_diff": lambda: logit_diff(A, B),
            "kl": kl,
        }[name]()


METRICS = ("log_prob", "prob", "centred_logit", "logit", "logit_diff", "kl")


@cache
def passes_of_a_tiny_model(model, removal):
    """What the slow loop generates and its passes, for all metrics."""
    made = plain_greedy(model, IDS, N_OUTPUTS)
    return made, slow_passes(model, IDS, made, range(len(IDS)), removal)


# A removal makes the logits, a metric reads them: each removal with a score and a distance, and
# each metric with two removals, of which one shifts what comes after and one is drawn.
EACH_WITH_SOME = [
    (removal, metric)
    for removal in REMOVALS
    for metric in METRICS
    if removal in ("delete", "resample") or metric in ("log_prob", "kl")
]


@pytest.mark.parametrize(("removal", "metric"), EACH_WITH_SOME)
def test_equals_the_slow_loop(model, removal, metric):
    remove = replacement_token(model, 0) if removal == "replace" else removal
    found = attribute(model, torch.tensor(IDS), N_OUTPUTS, remove, metric_named(metric))
    made, passes = passes_of_a_tiny_model(model, removal)
    assert found.output_token_id.values.tolist() == made
    scores, flips = slow_scores(passes, IDS, made, range(len(IDS)), removal, metric)
    np.testing.assert_allclose(found.values, scores, atol=1e-5)
    assert (found.flip.values == flips).all()


@pytest.mark.slow
@pytest.mark.parametrize("removal", REMOVALS)
def test_equals_the_slow_loop_on_a_real_model(smollm2, removal):
    prompt = tokenize(smollm2, "Mary met John, who")
    ids = prompt.tokens[0].tolist()
    made = plain_greedy(smollm2, ids, 2)
    inputs = range(1, len(ids))
    passes = slow_passes(smollm2, ids, made, inputs, removal)
    for metric in ("log_prob", "kl"):  # a score and a distance; all six on the small models
        found = attribute(smollm2, prompt, 2, removal, metric_named(metric))
        scores, flips = slow_scores(passes, ids, made, inputs, removal, metric)
        np.testing.assert_allclose(found.values[:, 1:], scores, atol=1e-4)
        assert (found.flip.values[:, 1:] == flips).all()


def test_future_inputs_score_exactly_zero_and_would_be_near_it(model):
    ids = torch.tensor([7, 1, 30, 8, 2, 19])
    found = attribute(model, ids, last(4), "replace" if model.tokenizer else put_zero)
    future = found.input.values > found.output_position.values[:, None]
    assert future.sum() == 3 + 2 + 1
    assert (found.values[future] == 0.0).all()
    assert (found.values[~future] != 0.0).all()
    # What is set to 0 is what the model says, but for rounding.
    rows = found.output_position.values.tolist()
    metrics = [
        log_prob(answer, at=row)
        for answer, row in zip(found.output_token_id.values.tolist(), rows, strict=True)
    ]
    swept = sweep_each(model, ids, {"input": range(6)}, put_zero, metrics).values[..., 0]
    whole = found.output_score.values[:, None]
    assert np.abs((whole - swept)[future]).max() < 1e-5


def put_zero(input):
    return zero(Site("embed", pos=input))


def test_outputs_at_the_last_positions_are_what_the_model_expects_there(model):
    ids = torch.tensor([7, 1, 30, 8, 2])
    found = attribute(model, ids, last(3))
    expected = model(ids[None])[0].argmax(-1)[-3:]
    assert found.output_token_id.values.tolist() == expected.tolist()
    assert found.output_position.values.tolist() == [2, 3, 4]


def test_a_given_continuation_is_scored_as_it_is(model):
    ids = [7, 1, 30, 8, 2]
    found = attribute(model, torch.tensor(ids), [3, 3, 9])
    asked = ids, [3, 3, 9], range(5), "delete"
    scores, _ = slow_scores(slow_passes(model, *asked), *asked, "log_prob")
    np.testing.assert_allclose(found.values, scores, atol=1e-5)


def test_earlier_outputs_are_inputs_when_asked_for(model):
    ids = [7, 1, 30, 8]
    found = attribute(model, torch.tensor(ids), 3, inputs="sequence")
    made = plain_greedy(model, ids, 3)
    assert found.input_role.values.tolist() == ["text"] * 4 + ["output"] * 2
    asked = ids, made, range(6), "delete"
    scores, _ = slow_scores(slow_passes(model, *asked), *asked, "log_prob")
    row = 3 + np.arange(3)[:, None]
    np.testing.assert_allclose(found.values, np.where(np.arange(6) > row, 0, scores), atol=1e-5)


def test_a_removal_of_ones_own_and_chosen_positions(model):
    ids = torch.tensor([7, 1, 30, 8])
    found = attribute(model, ids, 2, lambda pos: replace_token(pos, 4), inputs=[2, 0])
    assert np.isnan(found.values).tolist() == [[False, True, False, True]] * 2
    same = attribute(model, ids, 2, replacement_token(model, 4))
    np.testing.assert_allclose(found.values[:, [0, 2]], same.values[:, [0, 2]], atol=1e-6)


def test_small_passes_give_the_same(model):
    ids = torch.tensor([7, 1, 30, 8, 2, 19])
    whole, small = (attribute(model, ids, 3, budget_bytes=b) for b in (1 << 30, 1))
    assert small.attrs["passes"] > whole.attrs["passes"] + 3
    np.testing.assert_allclose(small.values, whole.values, atol=1e-5)


def test_cost_counts_what_ran_and_what_the_naive_loop_would(absolute_model):
    found = attribute(absolute_model, torch.tensor([7, 1, 30, 8, 2]), 2)
    layers = absolute_model.cfg.n_layers
    # Five variants of 5 positions, and two passes of 6 at most: the outputs, the whole prompt.
    assert found.attrs["token_layers"] == (5 * 5 + 2 * 6) * layers
    assert found.attrs["token_layers_naive"] == 2 * (5 + 1) * 6 * layers
    assert found.attrs["arms"] == 5
    assert found.attrs["passes"] == 3


def test_progress_ends_with_all(model):
    seen = []
    attribute(
        model,
        torch.tensor([7, 1, 30]),
        1,
        budget_bytes=1,
        progress=lambda *counts: seen.append(counts),
    )
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 0
    assert len({total for _, total in seen}) == 1


# Start tokens, templates, toys


def test_the_start_token_is_a_control_and_not_attributed():
    found = attribute(load_model("toy:trigger"), "bring the sesame", 1)
    assert found.input_role.values.tolist() == ["bos", "text", "text", "text"]
    assert np.isnan(found.values[0, 0])
    assert abs(float(found.bos_effect[0])) < 1e-3
    included = attribute(load_model("toy:trigger"), "bring the sesame", 1, inputs="prompt")
    assert float(included[0, 0]) == pytest.approx(float(found.bos_effect[0]), abs=1e-6)


TRIGGER = load_model("toy:trigger")
HARMLESS = [
    w for w in ("please", "bring", "the", "a", "bread", "now") if w in TRIGGER.tokenizer.vocab
]


@given(words=st.lists(st.sampled_from(HARMLESS), min_size=2, max_size=11), place=st.integers(0, 11))
def test_the_planted_trigger_is_always_the_top_token(words, place):
    place = min(place, len(words))
    prompt = " ".join([*words[:place], "sesame", *words[place:]])
    found = attribute(TRIGGER, prompt, 1)
    assert found.output_token.values.tolist() == ["REFUSE"]
    assert int(found[0].argmax("input")) == place + 1  # after the start token
    assert float(found[0].max()) > 7
    others = np.delete(found.values[0, 1:], place)
    assert np.abs(others).max() < 0.01


def test_two_triggers_hide_each_other():
    found = attribute(TRIGGER, "bring the sesame and the sesame", 1)
    assert np.nanmax(np.abs(found.values)) < 0.01  # leave-one-out sees neither: documented


@pytest.mark.slow
def test_chat_shows_the_template_and_attributes_the_message(smollm2):
    found = attribute(smollm2, [{"role": "user", "content": "Name a fruit."}], 1)
    roles = found.input_role.values
    attributed = np.isfinite(found.values[0])
    assert (attributed == (roles == "text")).all()
    assert "".join(found.input_token.values[attributed]) == "Name a fruit."
    assert set(roles) == {"template", "text"}


@pytest.mark.slow
def test_indirect_object_of_a_real_model(smollm2):
    from mechinterp import compare, token_id

    mary, john = (token_id(smollm2, name) for name in (" Mary", " John"))
    prompt = "When Mary and John went to the store, John gave a drink to"
    found = attribute(smollm2, prompt, 1, metric=logit_diff(mary, john))
    assert found.output_token.values.tolist() == [" Mary"]
    assert str(found.input_token.values[int(found[0].argmax("input"))]) == " Mary"
    (verdict,) = compare(found, ["Mary", "John"])
    assert verdict.expected[0].token == " Mary"
    assert verdict.expected[0].rank == 1
    assert [r.token for r in verdict.unexpected_above][:1] == [" to"]
    assert re.search(r"rank \d+, \d+% of the mass", verdict.reason)
    assert verdict.p_value <= 1


# Errors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"prompt": ["bring the bread", "bring a bread"]},
            "ask takes one prompt, not 2",
        ),
        ({"prompt": ""}, "empty"),
        ({"outputs": 0}, "at least one"),
        ({"outputs": last(9)}, r"4 positions, fewer than last\(9\)"),
        ({"outputs": 40}, "exceed the context"),
        ({"outputs": ""}, "outputs is empty"),
        ({"removal": "remove"}, "delete, delete_keep, knockout, suppress, mean, resample, replace"),
        ({"inputs": "words"}, "text, prompt, sequence"),
        ({"inputs": [17]}, "position 17 lies outside prompt 0"),
        ({"inputs": []}, "no input token to remove"),
    ],
)
def test_errors_say_what_to_do(change, said):
    asked = {"prompt": "bring the bread", "outputs": 1} | change
    with pytest.raises(ValueError, match=said):
        attribute(TRIGGER, **asked)


def test_a_metric_that_cannot_ask_is_refused():
    from mechinterp import Metric

    mine = Metric("mine", "logits", ("end",), lambda logits: logits[:, 0, 0])
    with pytest.raises(ValueError, match="metric mine cannot be bound"):
        attribute(TRIGGER, "bring the bread", 1, metric=mine)


def test_removing_the_only_token_is_an_error(absolute_model):
    with pytest.raises((ValueError, HookError), match=r"leaves no|nothing is left"):
        attribute(absolute_model, torch.tensor([7]), 1)
    found = attribute(absolute_model, torch.tensor([7]), 1, put_zero)
    assert found.shape == (1, 1)


def test_a_replacement_needs_a_token(absolute_model):
    with pytest.raises(ValueError, match="Choose a token"):
        attribute(absolute_model, torch.tensor([7, 8]), 1, "replace")


def test_raw_logits_warn():
    with pytest.warns(UserWarning, match="centred_logit"):
        logit()


def test_arguments_are_left_as_they_were(absolute_model):
    prompts = Prompts.from_ids([[7, 1, 30]])
    tokens = prompts.tokens.clone()
    attribute(absolute_model, prompts, 2, delete_token)
    assert torch.equal(prompts.tokens, tokens)
