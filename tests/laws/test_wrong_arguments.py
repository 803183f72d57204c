"""What a user gives by mistake: each is a sentence that names it, or means what it says."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import mechinterp as mi
from mechinterp import (
    HookError,
    Pair,
    Prompts,
    Site,
    edit,
    hooked,
    log_prob,
    patch,
    read,
    run,
    sweep,
    zero,
)
from mechinterp.patching import patch_heads, patch_neurons, patch_residual

Z = Site("z", 1)
IDS = [[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]]
METRIC = log_prob(1)
NO_INDEX = (True, np.bool_(True), 1.0, np.float64(1), torch.tensor(True), "1", [1], float("nan"))
pytestmark = pytest.mark.usefixtures("as_users_call_it")


@pytest.fixture(scope="module")
def prompts():
    return Prompts.from_ids(IDS)


@pytest.fixture(scope="module")
def hugging_face():
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=31, n_positions=16)
    return GPT2LMHeadModel(config)


def test_a_full_hook_name_is_the_site_of_its_short_name(model, prompts):
    assert Site("blocks.1.attn.hook_z", head=2, pos="end") == Site("z", 1, 2, "end")
    assert zero("blocks.0.attn.hook_z")[0].site == Site("z", 0)
    acts = run(model, prompts, read("blocks.1.hook_resid_pre", Z)).acts
    assert torch.equal(acts["blocks.1.hook_resid_pre"], acts[Site("resid_pre", 1)])
    assert "blocks.1.attn.hook_z" in acts
    assert "z" not in acts
    narrowed = run(model, prompts, zero(Site("blocks.1.attn.hook_z", head=2))).logits
    assert torch.equal(narrowed, run(model, prompts, zero(Site("z", 1, 2))).logits)


def test_lists_of_token_ids_need_no_tokenizer(absolute_model, prompts, refuses):
    expected = run(absolute_model, prompts).logits
    for given in (IDS, np.array(IDS), torch.tensor(IDS), [torch.tensor(row) for row in IDS]):
        assert torch.equal(run(absolute_model, given, ()).logits, expected)
    assert torch.equal(run(absolute_model, IDS[0]).logits, run(absolute_model, IDS[:1]).logits)
    assert run(absolute_model, [[1, 2, 3], [1]], ()).prompts.lengths.tolist() == [3, 1]
    for wrong in ([[1, True]], [[1, 2.0]], torch.ones(1, 2), torch.ones(1, 2) > 0, [[1, "2"]]):
        refuses(lambda w=wrong: run(absolute_model, w), "prompt 0", "whole number")


def test_a_cache_of_the_library_is_patched_in(model, prompts, refuses):
    other = Prompts.from_ids([row[::-1] for row in IDS])
    _, cache = model.run_with_cache(other.tokens)
    for site in (Site("z", 1, 1, 2), Site("resid_pre", 1), Site("pattern", 0, 1)):
        acts = run(model, other, read(site)).acts
        found = [run(model, prompts, patch(site, given)).logits for given in (cache, acts)]
        torch.testing.assert_close(*found)
    refuses(lambda: patch(Site("z", 1, pos="end"), cache), "'end'", "Give its number", "read(site)")
    refuses(lambda: patch(Site("z", 9), cache), "no blocks.9.attn.hook_z")
    refuses(lambda: patch(Site("z", 1, pos=9), cache), "no pos 9")
    refuses(lambda: mi.mean(Z, cache), "read(site)", "not ActivationCache")


def test_a_model_that_is_not_ours(hugging_face, prompts, refuses):
    def arm(layer):
        return zero(Z)

    for other, named in ((hugging_face, "GPT2LM"), (nn.Linear(2, 2), "Linear"), (None, "None")):
        for call in (
            lambda m: run(m, IDS),
            lambda m: run(m, "a text"),
            lambda m: hooked(m, ()),
            lambda m: mi.tokenize(m, "a text"),
            lambda m: mi.token_id(m, "a"),
            lambda m: mi.describe(m),
            lambda m: mi.attribute(m, "a text"),
            lambda m: sweep(m, prompts, {"layer": [0]}, arm, METRIC),
            lambda m: patch_heads(m, Pair(prompts, prompts), METRIC),
            lambda m: mi.task("induction", m, n=2),
            lambda m: mi.refusal_log_odds(m),
        ):
            refuses(lambda m=other, c=call: c(m), named, "load_model(model)")
    refuses(lambda: run("smollm2", IDS), "load_model('smollm2')")


def test_a_sweep_that_was_written_otherwise(absolute_model, prompts, refuses):
    def swept(over=None, arm=lambda layer: zero(Z), metric=METRIC, **options):
        over = {"layer": [0]} if over is None else over
        return lambda: sweep(absolute_model, prompts, over, arm, metric, **options)

    refuses(swept(metric=[METRIC]), "metric: a list", "sweep_each")
    refuses(lambda: mi.sweep_each(absolute_model, prompts, {"layer": [0]}, zero, METRIC), "[log_")
    refuses(swept(arm=lambda place: zero(Z)), "arm(layer=...)", "'place'", "Name its parameters so")
    refuses(swept(arm=lambda: zero(Z)), "arm(layer=...)", "'layer'")
    refuses(swept(arm=zero(Z)), "arm is a tuple", "a function of (layer)")
    refuses(swept(over=["layer"]), "over is a list", '{"layer": [0, 1]}')
    refuses(swept(over={0: [0]}), "0 is no name")
    refuses(swept(buget_bytes=1), "sweep() takes no option", "'budget_bytes'", kind=TypeError)
    for wrong in (0, -1, True, "1 GiB", 1.5):
        refuses(swept(budget_bytes=wrong), "budget_bytes", repr(wrong))
    refuses(swept(progress=True), "progress=True", "progress_bar")
    refuses(swept(out=3), "out=3")


def test_an_edit_of_other_parameters(refuses):
    refuses(lambda: edit(Z, lambda value: value), "fn(value, at)", "<lambda>(value)")
    refuses(lambda: edit(Z, lambda: None), "fn(value, at)")
    refuses(lambda: edit(Z, 3.0), "not a function of (value, at)")
    for fn in (torch.mul, lambda value, *rest: value, lambda value, at, by=2: value):
        assert edit(Z, fn)[0].edit is fn


def test_a_pair_of_texts(prompts, refuses):
    refuses(lambda: Pair(["a"], ["b"]), "Pair: clean is a list", "tokenize(model, texts)")
    refuses(lambda: Pair(prompts, "b"), "Pair: corrupt is a str")


@pytest.mark.parametrize("wrong", NO_INDEX, ids=repr)
def test_nothing_but_a_whole_number_is_an_index(absolute_model, prompts, wrong, refuses):
    model, pair = absolute_model, Pair(prompts, prompts)
    calls = [
        lambda: Site("z", wrong),
        lambda: Site("z", 1, wrong),
        lambda: Site("mlp_post", 1, neuron=wrong),
        lambda: mi.replace_token(0, wrong),
        lambda: mi.knockout(wrong, None, None, 1),
        lambda: log_prob([wrong]),
        lambda: Prompts.from_ids([[1, wrong]]),
        lambda: patch_heads(model, pair, METRIC, layers=[wrong]),
        lambda: patch_heads(model, pair, METRIC, heads=[wrong]),
        lambda: patch_neurons(model, pair, METRIC, wrong),
        lambda: mi.resample(Z, run(model, prompts, read(Z)).acts, wrong),
    ]
    if not isinstance(wrong, list):
        calls += [lambda: log_prob(wrong), lambda: prompts.named(x=wrong)]
    if not isinstance(wrong, str):
        calls += [
            lambda: Site("z", 1, pos=wrong),
            lambda: mi.delete_token(wrong),
            lambda: run(model, prompts, mi.knockout(1, None, None, wrong)),
            lambda: run(model, prompts, logits_at=[wrong]),
            lambda: sweep(model, prompts, {}, lambda: (), log_prob(1, at=wrong)),
            lambda: patch_residual(model, pair, METRIC, positions=[wrong]),
        ]
    for call in calls:
        refuses(call)


def test_numbers_that_are_none(absolute_model, prompts, refuses):
    for wrong in (True, "2", None, [2.0]):
        refuses(lambda w=wrong: mi.scale(Z, w), "the factor is", "give a number")
        refuses(lambda w=wrong: mi.put(Z, w), "neither a number nor a tensor")
        refuses(lambda w=wrong: mi.add(Z, w), "Give a tensor")
    refuses(lambda: mi.add(Z, torch.ones(6), float("nan")), "give a number")
    for wrong in ([Z], ("z", 1), 3, None):
        refuses(lambda w=wrong: zero(w), "is no site")
        refuses(lambda w=wrong: read(w), "is no site")
    refuses(lambda: zero("z"), "z exists in every layer")
    refuses(lambda: log_prob(torch.ones(2)), "whole number")
    refuses(lambda: log_prob([]), "no token id")
    refuses(lambda: log_prob([" a"]), "' a'")
    refuses(lambda: mi.logit_diff([1, 2], [1, 2, 3]), "2 answers and 3 others")
    refuses(lambda: mi.kl("a"), "the base is str")
    two = mi.kl(torch.zeros(1, 37))
    refuses(lambda: two(run(absolute_model, prompts)), "shape [1, 37]", "of the same prompts")


def test_right_ones_are_taken(absolute_model, prompts):
    three = np.arange(4)[3]
    assert Site("z", three, three, three) == Site("z", torch.tensor(3), 3, 3)
    pair = Pair(prompts, prompts)
    for heads in (range(2), np.arange(2), (0, 1), torch.arange(2)):
        found = patch_heads(absolute_model, pair, METRIC, heads=heads)
        assert found["head"].values.tolist() == [0, 1]
    expected = log_prob([1, 1])(run(absolute_model, prompts))
    for answers in (1, np.int64(1), torch.tensor(1), np.ones(2, int), torch.ones(2).int()):
        assert torch.equal(log_prob(answers)(run(absolute_model, prompts)), expected)
    with pytest.raises(HookError, match="layer 3 is out of range"):
        run(absolute_model, prompts, zero("blocks.3.attn.hook_z"))
