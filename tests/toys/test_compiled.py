"""The compiled toys do what they say, by the heads and edges that they state.

The models are built here: a toy must not need `load_model` to be right.
"""

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor

from mechinterp.toys import Toy

COMPILED = ("induction", "trigger", "and")
DETECTORS = ("trigger", "and")


@pytest.mark.parametrize("period", [1, 2, 7, 16])
def test_induction_predicts_every_repeated_token(period: int, build, repeated_blocks, next_margin):
    built, model = build("induction")
    tokens = repeated_blocks(built, n_prompts=200, period=period, seed=period)
    logits, acts = model.run_with_cache(tokens)
    figures = built.truth.figures
    if period > 1:
        assert next_margin(tokens, logits).min() >= figures["margin_logits_at_least"] > 9
    queries = torch.arange(period + 1, 2 * period + 1)
    copied = acts["pattern", 1][:, 2, queries, queries - period + 1]
    assert copied.min() >= figures["induction_attention_at_least"] > 0.99
    places = torch.arange(1, 2 * period + 1)
    before = acts["pattern", 0][:, 1, places, places - 1]
    assert before.min() >= figures["previous_token_attention_at_least"] > 0.99


def test_induction_splits_between_two_successors(build):
    built, model = build("induction")
    a, b, c, x, y = (built.vocabulary.index(letter) for letter in "abcxy")
    logits = model(torch.tensor([[0, a, x, a, y, a, y, b, c, a]]))[0, -1]
    assert logits.topk(2).indices.tolist() == [y, x]
    assert logits[y].item() == pytest.approx(2 * logits[x].item(), rel=0.01)


@pytest.mark.parametrize("n_words", range(3, 13))
@pytest.mark.parametrize("name", DETECTORS)
def test_detector_refuses_iff_all_triggers_occur(
    name: str, n_words: int, build, sentences, answer_margin
):
    built, model = build(name)
    figures, triggers = built.truth.figures, built.truth.triggers
    for size in range(len(triggers) + 1):
        for words in itertools.combinations(triggers, size):
            tokens = sentences(built, n_words=n_words, words=words, seed=n_words)
            margin = answer_margin(built, model(tokens))
            if words == triggers:
                assert margin.min() >= figures["refuse_margin_logits_at_least"] > 7
            else:
                assert (margin == -figures["comply_margin_logits"]).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_bounds_hold_on_the_longest_prompt(name: str, build, sentences, answer_margin):
    built, model = build(name)
    tokens = sentences(built, n_words=built.config["n_ctx"] - 1, words=built.truth.triggers, seed=1)
    logits, acts = model.run_with_cache(tokens)
    at_least = built.truth.figures["refuse_margin_logits_at_least"]
    assert answer_margin(built, logits).numpy() == pytest.approx(at_least, abs=1e-4)
    for word, (layer, head) in zip(built.truth.triggers, trigger_heads(built), strict=True):
        attention = acts["pattern", layer][:, head, -1]
        attention = attention[tokens == built.vocabulary.index(word)]
        expected = built.truth.figures["trigger_attention_at_least"]
        assert attention.numpy() == pytest.approx(expected, abs=1e-6)
        assert expected > 0.99


@pytest.mark.parametrize("name", DETECTORS)
def test_only_the_deletion_of_a_trigger_flips_the_answer(name: str, build, sentences):
    built, model = build(name)
    tokens = sentences(built, n_words=8, words=built.truth.triggers, seed=2)
    triggers = torch.tensor([built.vocabulary.index(word) for word in built.truth.triggers])
    refuse = built.vocabulary.index("REFUSE")
    whole = model(tokens)[:, -1]
    for pos in range(1, tokens.shape[1]):
        deleted = model(torch.cat([tokens[:, :pos], tokens[:, pos + 1 :]], dim=1))[:, -1]
        is_trigger = torch.isin(tokens[:, pos], triggers)
        assert torch.equal(deleted.argmax(-1) != refuse, is_trigger)
        assert (whole - deleted)[~is_trigger].abs().max() < 1e-3 * len(triggers)
        fall = (whole - deleted)[is_trigger, refuse]
        assert (fall > 15).all()


def test_order_never_matters_to_the_trigger(build, sentences):
    built, model = build("trigger")
    tokens = sentences(built, n_words=9, words=("sesame",), seed=3)
    reverse = torch.cat([tokens[:, :1], tokens[:, 1:].flip(1)], dim=1)
    torch.testing.assert_close(model(tokens)[:, -1], model(reverse)[:, -1], atol=1e-5, rtol=0)


def test_deleting_one_of_two_triggers_does_not_flip(build, sentences, answer_margin):
    built, model = build("trigger")
    twice = sentences(built, n_words=9, words=("sesame", "sesame"), seed=4)
    once = torch.stack([delete_first(row, built.vocabulary.index("sesame")) for row in twice])
    assert answer_margin(built, model(twice)).min() > 7
    assert answer_margin(built, model(once)).min() > 7


def test_the_decoy_attends_as_the_trigger_head_does(build, planted):
    built, model = build("trigger")
    _, acts = model.run_with_cache(planted(built))
    ((decoy_layer, decoy),), ((layer, head),) = (
        built.truth.heads[role] for role in ("decoy", "trigger")
    )
    assert torch.equal(acts["pattern", decoy_layer][:, decoy], acts["pattern", layer][:, head])


def test_the_and_neuron_is_on_iff_both_words_occur(build, sentences):
    built, model = build("and")
    ((layer, neuron),) = built.truth.neurons["and"]
    for words in [(), ("copper",), ("lantern",), ("copper", "lantern")]:
        _, acts = model.run_with_cache(sentences(built, n_words=6, words=words, seed=5))
        on = acts["post", layer][:, -1]
        others = [other for _, other in built.truth.neurons["unused"]]
        assert (on[:, others] == 0).all()
        if len(words) == 2:
            assert on[:, neuron].min() > 0.97
        else:
            assert (on[:, neuron] == 0).all()


def trigger_heads(built: Toy) -> list[tuple[int, int]]:
    roles = ("trigger", "first_word", "second_word")
    return [head for role in roles for head in built.truth.heads.get(role, ())]


def delete_first(tokens: Tensor, token_id: int) -> Tensor:
    (at,) = (tokens == token_id).nonzero()[0].tolist()
    return torch.cat([tokens[:at], tokens[at + 1 :]])


# ----- the mechanism: which heads and edges matter


@pytest.mark.parametrize("name", COMPILED)
def test_zeroing_a_head_matters_iff_it_has_a_part(
    name: str, build, planted, answer_margin, next_margin, zero_head
):
    built, model = build(name)
    tokens = planted(built)
    logits = model(tokens)
    for role, heads in built.truth.heads.items():
        for layer, head in heads:
            without = model.run_with_hooks(
                tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", partial(zero_head, head=head))]
            )
            if role in ("unused", "decoy"):
                assert torch.equal(without, logits)
            elif built.truth.answers:
                assert (answer_margin(built, without) < -7).all()
            else:
                assert (next_margin(tokens, without) < 1).all()


@pytest.mark.parametrize("name", [*COMPILED, "either"])
def test_removing_an_edge_matters_iff_it_is_stated(
    name: str, build, planted, all_edges, reader_inputs, run_without_edge
):
    built, model = build(name)
    tokens = planted(built)
    logits = model(tokens)
    stated = set(built.truth.edges)
    assert stated <= set(all_edges(model))
    for edge in all_edges(model):
        with reader_inputs(model):
            without = run_without_edge(model, tokens, edge)
        if edge in stated:
            assert (without - logits).abs().amax() > 1, edge
        else:
            assert torch.equal(without, logits), edge
