"""What a toy is: whole weights, words that can be typed, roles for all heads, example prompts."""

import itertools

import pytest
import torch

from mechinterp.toys import TOYS, example_inputs, toy


@pytest.mark.parametrize("name", TOYS)
def test_weights_are_a_whole_float32_state_dict_without_buffers(name: str, build):
    built, model = build(name)
    assert set(built.weights) == set(dict(model.named_parameters()))
    assert {weight.dtype for weight in built.weights.values()} == {torch.float32}
    assert all(weight.isfinite().all() for weight in built.weights.values())


@pytest.mark.parametrize("name", TOYS)
def test_vocabulary_fits_the_model_and_can_be_typed(name: str, build):
    built, _ = build(name)
    assert len(built.vocabulary) == len(set(built.vocabulary)) == built.config["d_vocab"]
    assert all(word.split() == [word] for word in built.vocabulary)
    assert built.vocabulary[0] == built.bos == "<bos>"
    assert set(built.truth.triggers + built.truth.answers) <= set(built.vocabulary)


@pytest.mark.parametrize("name", TOYS)
def test_sizes_are_all_different(name: str, build):
    built, _ = build(name)
    sizes = [size for size in built.config.values() if type(size) is int]
    assert len(sizes) == len(set(sizes)) >= 6


@pytest.mark.parametrize("name", TOYS)
def test_every_head_has_exactly_one_role(name: str, build):
    built, model = build(name)
    named = sorted(head for heads in built.truth.heads.values() for head in heads)
    assert named == sorted(itertools.product(range(model.cfg.n_layers), range(model.cfg.n_heads)))


@pytest.mark.parametrize("name", [name for name in TOYS if "trained" not in name])
def test_example_inputs_are_words_of_the_toy(name: str, build):
    built, model = build(name)
    prompts = example_inputs(built, 20, seed=1)
    assert len({tuple(words) for words in prompts}) == 20
    assert all(len(words) == len(built.places) < model.cfg.n_ctx for words in prompts)
    assert {word for words in prompts for word in words} <= set(built.vocabulary) - {built.bos}
    assert prompts == example_inputs(built, 20, seed=1) != example_inputs(built, 20, seed=2)
    if built.truth.answers:  # both answers occur
        tokens = [[built.vocabulary.index(word) for word in ("<bos>", *ws)] for ws in prompts]
        chosen = model(torch.tensor(tokens))[:, -1].argmax(-1).unique().tolist()
        assert {built.vocabulary[at] for at in chosen} == set(built.truth.answers)


def test_example_inputs_that_are_not_there():
    histogram, trained = toy("rasp-histogram"), toy("induction-trained")
    assert len(example_inputs(histogram, 3**6)) == 3**6
    with pytest.raises(ValueError, match=r'^toy "rasp-histogram" has 729 prompts: 730 were'):
        example_inputs(histogram, 730)
    with pytest.raises(ValueError, match=r'^toy "induction-trained" has no prompts of random'):
        example_inputs(trained, 1)
