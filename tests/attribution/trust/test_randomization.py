"""Cascading randomisation: what it does to the copy, to the model (nothing), and to the scores."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from mechinterp import Prompts, ask, load_model
from mechinterp.attribution.methods.single_removal import leave_one_out, single_removals
from mechinterp.attribution.scores import label_scores
from mechinterp.attribution.trust.randomization import cascading_randomization
from mechinterp.models.weights import copy_model, shuffle_weights, weights_by_part

IDS = torch.tensor([7, 1, 30, 8, 2, 19, 3, 11])


def test_every_weight_is_in_one_part(model):
    parts = weights_by_part(model)
    layers = [f"L{n}" for n in reversed(range(model.cfg.n_layers))]
    assert list(parts) == ["unembed", *layers, "embed"]
    given = [id(p) for weights in parts.values() for p in weights]
    assert sorted(given) == sorted(id(p) for p in model.parameters())
    assert any(p is model.W_U for p in parts["unembed"])
    assert any(p is model.W_E for p in parts["embed"])
    assert any(p is model.blocks[1].attn.W_O for p in parts["L1"])
    if model.cfg.normalization_type == "LN":
        assert any(p is model.ln_final.w for p in parts["unembed"])


def test_each_step_shuffles_one_part_more_and_keeps_its_numbers(model):
    seen = []

    def watched(question):
        weights = {name: p.clone() for name, p in question.model.named_parameters()}
        seen.append(weights)
        return single_removals(question)

    question = ask(model, IDS, 1)
    cascading_randomization(question, watched, seed=4)
    names = {id(p): name for name, p in model.named_parameters()}
    parts = [[names[id(p)] for p in group] for group in weights_by_part(model).values()]
    assert len(seen) == len(parts) + 1
    assert all(torch.equal(seen[0][name], p) for name, p in model.named_parameters())
    for part, (before, after) in zip(parts, itertools.pairwise(seen), strict=True):
        for name in names.values():
            same = torch.equal(before[name], after[name])
            assert same or name in part
            if name in part and before[name].unique().numel() > 3:
                assert not same
            sorted_before, sorted_after = (w[name].flatten().sort()[0] for w in (before, after))
            assert torch.equal(sorted_before, sorted_after)
            assert before[name].shape == after[name].shape


def test_equals_the_slow_way(absolute_model):
    """Scores of a model that was shuffled by hand, ranked by scipy."""
    prompts = Prompts.from_ids([IDS.tolist()])
    question = ask(absolute_model, prompts, 2)
    found = cascading_randomization(question, single_removals, steps=[2], seed=7)
    by_hand = copy_model(absolute_model)
    for number, part in enumerate(list(weights_by_part(by_hand).values())[:2]):
        shuffle_weights(part, [7, number])
    answers = [int(i) for i in question.output_ids]
    scores = ask(by_hand, prompts, answers)  # the outputs of the trained model
    for output in range(2):
        expected = spearmanr(
            single_removals(question).values[output], single_removals(scores).values[output]
        )
        assert float(found[0, output]) == pytest.approx(expected.statistic)
    assert found.part.values.tolist() == ["L2"]


def test_some_steps_are_those_of_all(model):
    question = ask(model, IDS, 2)
    whole = cascading_randomization(question, single_removals, seed=1)
    some = cascading_randomization(question, single_removals, steps=[3, 1], seed=1)
    assert some.n_randomized.values.tolist() == [1, 3]
    assert some.equals(whole.sel(n_randomized=[1, 3]))
    other = cascading_randomization(question, single_removals, steps=[3, 1], seed=2)
    assert not other.equals(some)
    assert (abs(whole) <= 1).all()


def test_the_model_is_left_as_it_was(model, snapshot):
    before = snapshot(model)
    asked = []

    def watched(question):
        asked.append(question)
        return single_removals(question)

    question = ask(model, IDS, 2)
    cascading_randomization(question, watched)
    before.check()
    assert asked[0].model is model
    copies = {id(one.model) for one in asked[1:]}
    assert copies.isdisjoint({id(model)})
    assert len(copies) == 1  # one copy, made once
    assert asked[1].model.tokenizer is model.tokenizer
    assert all(one.output_ids == question.output_ids for one in asked)


def by_position(question):
    n = len(question.attributed)
    return label_scores(
        question, np.tile(np.arange(n, dtype=float), (len(question.metrics), 1)), {}
    )


def test_what_does_not_look_at_the_weights_stays():
    question = ask(load_model("toy:induction-trained"), "a b c d e f g h a b c", 1)
    found = cascading_randomization(question, by_position)
    assert found.values.ravel().tolist() == [1] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("toy", "prompt"),
    [
        ("toy:induction-trained", "k r w q e t z u k r w"),
        ("toy:refusal", "please bring the sesame to my old garden near the river today"),
    ],
)
def test_the_scores_of_removals_fall(toy, prompt):
    question = ask(load_model(toy), prompt, 1)
    alike = [
        cascading_randomization(question, leave_one_out, steps=[4], seed=seed) for seed in range(10)
    ]
    ends = np.array([found.values[-1, 0] for found in alike])
    # Of independent scores the mean is 0, its standard error 1 / sqrt(10 * (11 - 1)).
    assert abs(ends.mean()) < 0.4
    assert ends.std() > 0.1


def test_equal_scores_are_alike_to_nothing():
    question = ask(load_model("toy:induction-trained"), "a b c d e f g h a b c", 1)

    def nothing(question):
        return label_scores(question, np.ones((1, len(question.attributed))), {})

    assert np.isnan(cascading_randomization(question, nothing)).all()

    def once(asked):
        return by_position(asked) if asked is question else nothing(asked)

    assert (cascading_randomization(question, once) == 0).all()


@pytest.mark.parametrize("steps", [[], [0, 1], [6], [-1]])
def test_steps_out_of_range(absolute_model, steps):
    question = ask(absolute_model, IDS, 1)
    with pytest.raises(ValueError, match=r"numbers of parts from 1 to 5.* 3 layers"):
        cascading_randomization(question, single_removals, steps=steps)


def test_a_model_with_hooks_is_refused(absolute_model):
    question = ask(absolute_model, IDS, 1)
    handle = absolute_model.blocks[0].register_forward_hook(lambda *_: None)
    try:
        with pytest.raises(ValueError, match="foreign hooks"):
            cascading_randomization(question, single_removals)
    finally:
        handle.remove()


@pytest.mark.slow
def test_removals_fall_on_a_real_model(smollm2):
    question = ask(smollm2, "Mary met John in the store, and John told", 2)
    found = cascading_randomization(question, leave_one_out, steps=[2, 16, 32])
    assert found.part.values.tolist() == ["L29", "L15", "embed"]
    assert abs(found[-1].mean()) < 0.5
    assert found[-1].mean() < 0.9
