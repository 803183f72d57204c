"""The named sweeps of activation patching, beside TransformerLens' own and a slow loop."""

import warnings

import numpy as np
import pytest
import torch
from transformer_lens import patching as library

from mechinterp import Pair, Prompts, Site, log_prob, logit_diff, run
from mechinterp.patching.activation import (
    patch_heads,
    patch_heads_by_position,
    patch_neurons,
    patch_outputs,
    patch_residual,
)

CLEAN = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]
CORRUPT = [[3, 8, 4, 1, 5], [9, 2, 7, 9, 3]]
METRIC = logit_diff([7, 8], [1, 2])


@pytest.fixture
def pair():
    return Pair(Prompts.from_ids(CLEAN), Prompts.from_ids(CORRUPT))


@pytest.fixture
def ragged_pair(ragged):
    ids = [[3, 1, 4, 8, 5, 9, 2], [6, 7, 3, 5], [8, 9, 7, 9, 1, 2]]
    return Pair(ragged, Prompts.from_ids(ids).named(S2=[5, 2, 3]))


def diff(logits):
    """The metric of the tests from the library's logits, per prompt."""
    rows = torch.arange(2)
    return logits[rows, -1, torch.tensor([7, 8])] - logits[rows, -1, torch.tensor([1, 2])]


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def looped(model, tokens, site, source):
    """The metric after one activation, narrowed by indexing, is that of another run."""

    def hook(value, hook):
        index = [slice(None)] * value.ndim
        axes = {"head": 1 if site.act == "pattern" else 2, "neuron": 2}
        axes["pos"] = 2 if site.act == "pattern" else 1
        for name, axis in axes.items():
            if getattr(site, name) is not None:
                index[axis] = getattr(site, name)
        value = value.clone()
        value[tuple(index)] = source[site.hook][tuple(index)]
        return value

    return diff(model.run_with_hooks(tokens, fwd_hooks=[(site.hook, hook)])).numpy()


class Slow:
    """Both runs of the library, each with the other's cache."""

    def __init__(self, model, direction):
        clean, corrupt = torch.tensor(CLEAN), torch.tensor(CORRUPT)
        self.model = model
        self.tokens, other = (clean, corrupt) if direction == "noise" else (corrupt, clean)
        self.cache = model.run_with_cache(other)[1]

    def check(self, found, sites):
        """Fails unless `found`, `[..., prompt]`, is what the loop over the sites gives."""
        expected = [looped(self.model, self.tokens, site, self.cache) for site in sites]
        assert np.ptp(expected, axis=0).min() > 1e-4
        close(found.values.reshape(len(sites), -1), expected)


@pytest.fixture(params=["noise", "denoise"])
def slow(request, model):
    slow = Slow(model, request.param)
    slow.direction = request.param
    return slow


def has(model, act):
    if act == "resid_mid":
        return not model.cfg.attn_only and not model.cfg.parallel_attn_mlp
    return act not in ("mlp_out", "mlp_post") or not model.cfg.attn_only


# TransformerLens' own functions


def theirs(model, fn):
    tokens, cache = torch.tensor(CORRUPT), model.run_with_cache(torch.tensor(CLEAN))[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fn(model, tokens, cache, lambda logits: diff(logits).mean())


@pytest.mark.parametrize("act", ["resid_pre", "resid_mid", "attn_out", "mlp_out"])
def test_residual_and_outputs_are_the_librarys(model, pair, act):
    if not has(model, act):
        pytest.skip("this architecture has none")
    fn = patch_residual if act.startswith("resid") else patch_outputs
    found = fn(model, pair, METRIC, act, direction="denoise")
    assert found.dims == ("layer", "pos", "prompt")
    close(found.mean("prompt"), theirs(model, getattr(library, f"get_act_patch_{act}")))


@pytest.mark.parametrize("act", ["z", "q", "k", "v", "pattern"])
def test_heads_are_the_librarys(model, pair, act):
    name = "out" if act == "z" else act
    found = patch_heads(model, pair, METRIC, act, direction="denoise")
    fn = getattr(library, f"get_act_patch_attn_head_{name}_all_pos")
    close(found.mean("prompt"), theirs(model, fn))


@pytest.mark.slow
@pytest.mark.parametrize("act", ["z", "q", "k", "v", "pattern"])
def test_heads_by_position_are_the_librarys(model, pair, act):
    name = "out" if act == "z" else act
    found = patch_heads_by_position(model, pair, METRIC, act, direction="denoise").mean("prompt")
    expected = theirs(model, getattr(library, f"get_act_patch_attn_head_{name}_by_pos"))
    # The library's axes are layer, pos, head, but for the pattern.
    close(found, expected if act == "pattern" else expected.transpose(1, 2))


# A slow loop, both directions, per prompt


@pytest.mark.parametrize("act", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"])
def test_each_layer_and_position_is_a_run_of_its_own(model, pair, slow, act):
    if not has(model, act):
        pytest.skip("this architecture has none")
    fn = patch_residual if act.startswith("resid") else patch_outputs
    found = fn(model, pair, METRIC, act, direction=slow.direction, layers=[2, 0], positions=[4, 1])
    slow.check(found, [Site(act, layer, pos=pos) for layer in (2, 0) for pos in (4, 1)])
    assert found["layer"].values.tolist() == [2, 0]
    assert found["pos"].values.tolist() == [4, 1]


@pytest.mark.parametrize("act", ["z", "q", "v", "pattern"])
def test_each_head_is_a_run_of_its_own(model, pair, slow, act):
    found = patch_heads(
        model, pair, METRIC, act, direction=slow.direction, layers=[1], heads=[1, 0]
    )
    slow.check(found, [Site(act, 1, head) for head in (1, 0)])
    found = patch_heads_by_position(
        model, pair, METRIC, act, direction=slow.direction, layers=[1], heads=[1, 0]
    )
    slow.check(found, [Site(act, 1, head, pos) for head in (1, 0) for pos in range(5)])


def test_each_neuron_is_a_run_of_its_own(model, pair, slow):
    if not has(model, "mlp_post"):
        pytest.skip("this architecture has none")
    found = patch_neurons(model, pair, METRIC, 1, direction=slow.direction)
    assert found.dims == ("neuron", "prompt")
    assert int(found["layer"]) == 1
    slow.check(found, [Site("mlp_post", 1, neuron=n) for n in range(model.cfg.d_mlp)])
    found = patch_neurons(model, pair, METRIC, 1, [3, 2], direction=slow.direction, positions="end")
    slow.check(found, [Site("mlp_post", 1, neuron=n, pos=4) for n in (3, 2)])


def test_positions_of_heads_are_patched_together(absolute_model, pair):
    both = patch_heads(absolute_model, pair, METRIC, positions=[1, 3])
    alone = patch_heads_by_position(absolute_model, pair, METRIC, positions=[1, 3])
    every = patch_heads(absolute_model, pair, METRIC)
    assert not np.allclose(both, every)
    # In the last layer, what a head writes at 1 and 3 does not reach the last position at all.
    close(both.sel(layer=2), np.broadcast_to(both["clean_score"], (4, 2)))
    assert np.abs(both - alone.sel(pos=3)).max() > 1e-3
    together = patch_heads(absolute_model, pair, METRIC, positions=[0, 1, 2, 3, 4])
    close(together, every)


# What a result says


def test_heads_of_grouped_models_are_named(grouped_model, pair, refuses):
    shape = {
        act: patch_heads(grouped_model, pair, METRIC, act).sizes for act in ("q", "k", "v", "z")
    }
    assert shape["q"] == shape["z"] == {"layer": 3, "head": 6, "prompt": 2}
    assert shape["k"] == shape["v"] == {"layer": 3, "kv_head": 2, "prompt": 2}
    by_position = patch_heads_by_position(grouped_model, pair, METRIC, "v", layers=[0])
    assert by_position.sizes == {"layer": 1, "kv_head": 2, "pos": 5, "prompt": 2}
    refuses(
        lambda: patch_heads(grouped_model, pair, METRIC, "k", heads=[2]),
        "head 2 is out of range",
        "key-value heads 0 to 1",
    )


def test_a_result_has_the_scores_of_both_runs(model, pair, slow):
    found = patch_residual(model, pair, METRIC, direction=slow.direction, layers=[1])
    for name, ids in (("clean_score", CLEAN), ("corrupt_score", CORRUPT)):
        assert found[name].dims == ("prompt",)
        close(found[name], diff(model(torch.tensor(ids))))
    said = {name: found.attrs[name] for name in ("direction", "act", "method", "unit")}
    assert said == {
        "direction": slow.direction,
        "act": "resid_pre",
        "method": "activation patching",
        "unit": "logits",
    }
    assert "2202.05262" in found.attrs["source"]
    assert found.name == "logit_diff"


def test_tokens_stand_beside_positions(absolute_model):
    names = "abcdefghijklmnopqrstuvwxyz".__getitem__
    ids = [[3, row, 4 + min(row, 2), 1] for row in range(5)]
    other = [[7, *row[1:]] for row in ids]
    pair = Pair(Prompts.from_ids(ids, decode=names), Prompts.from_ids(other, decode=names))
    found = patch_residual(absolute_model, pair, log_prob(3), layers=[1])
    assert found["token"].dims == ("pos",)
    assert found["token"].values.tolist() == ["d", "a/b/c/…", "e/f/g", "b"]
    assert found["pos"].values.tolist() == [0, 1, 2, 3]
    found = patch_residual(absolute_model, pair, log_prob(3), layers=[1], positions=[2, "end"])
    assert found["pos"].values.tolist() == [2, "end"]
    assert found.sel(pos=2).shape == found.sel(pos="end").shape == (1, 5)
    assert found["token"].values.tolist() == ["e/f/g", "b"]


# Prompts of several lengths


def test_prompts_of_several_lengths_are_patched_at_names(model, ragged_pair):
    found = patch_residual(model, ragged_pair, log_prob(3), direction="denoise", layers=[1])
    assert found["pos"].values.tolist() == ["S2"]
    assert found["token"].values.tolist() == ["9/3"]
    for row, (pos, length) in enumerate([(5, 7), (2, 4), (3, 6)]):
        sides = (ragged_pair.clean, ragged_pair.corrupt)
        clean, corrupt = (s.tokens[row : row + 1, :length] for s in sides)
        source = model.run_with_cache(clean)[1]["blocks.1.hook_resid_pre"]

        def hook(value, hook, pos=pos, source=source):
            value = value.clone()
            value[:, pos] = source[:, pos]
            return value

        logits = model.run_with_hooks(corrupt, fwd_hooks=[("blocks.1.hook_resid_pre", hook)])
        close(found[0, 0, row], logits[0, -1].log_softmax(-1)[3])


def test_prompts_of_several_lengths_without_names(absolute_model, ragged_pair, refuses):
    ids = [row[:n].tolist() for row, n in zip(ragged_pair.clean.tokens, (7, 4, 6), strict=True)]
    pair = Pair(Prompts.from_ids(ids), Prompts.from_ids(ids))
    refuses(
        lambda: patch_residual(absolute_model, pair, log_prob(3)),
        "4 to 7 tokens",
        "positions=[...]",
    )
    assert patch_residual(absolute_model, pair, log_prob(3), positions="end").sizes["pos"] == 1
    assert patch_heads(absolute_model, pair, log_prob(3)).sizes == {
        "layer": 3,
        "head": 4,
        "prompt": 3,
    }


# Errors, and what is handed on


def test_unknown_words_are_refused(absolute_model, pair, refuses):
    refuses(lambda: patch_residual(absolute_model, pair, METRIC, "z"), "'z'", "'resid_post'")
    refuses(
        lambda: patch_outputs(absolute_model, pair, METRIC, "resid_pre"), "'attn_out', 'mlp_out'"
    )
    refuses(lambda: patch_heads(absolute_model, pair, METRIC, "mlp_out"), "'mlp_out'", "'pattern'")
    for fn in (patch_residual, patch_outputs, patch_heads, patch_heads_by_position):
        refuses(lambda fn=fn: fn(absolute_model, pair, METRIC, direction="clean"), "'denoise'")
    refuses(lambda: patch_neurons(absolute_model, pair, METRIC, 0, direction="x"), "'denoise'")
    refuses(
        lambda: patch_residual(absolute_model, pair, METRIC, layers=[3]), "layer 3 is out of range"
    )


def test_what_a_model_lacks_is_refused(pair, attention_only_model, refuses):
    refuses(lambda: patch_outputs(attention_only_model, pair, METRIC, "mlp_out"), "mlp_out")
    refuses(lambda: patch_residual(attention_only_model, pair, METRIC, "resid_mid"), "resid_mid")
    refuses(lambda: patch_neurons(attention_only_model, pair, METRIC, 0), "mlp.hook_post")


def test_an_unaligned_pair_is_refused(refuses):
    refuses(
        lambda: Pair(Prompts.from_ids([[1, 2, 3]]), Prompts.from_ids([[1, 2]])), "unaligned pair"
    )


def test_options_are_those_of_sweep(absolute_model, pair):
    seen = []
    kept = {"budget_bytes": 1, "progress": lambda done, total: seen.append(done)}
    whole = patch_heads(absolute_model, pair, METRIC)
    close(patch_heads(absolute_model, pair, METRIC, **kept), whole)
    assert len(seen) >= 12
    with pytest.raises(TypeError):
        patch_heads(absolute_model, pair, METRIC, nonsense=True)


def test_the_pair_is_left_as_it_was(absolute_model, pair, snapshot):
    before = snapshot(absolute_model)
    patch_residual(absolute_model, pair, METRIC)
    before.check()
    assert pair.clean.tokens.tolist() == CLEAN
    assert run(absolute_model, pair.clean).logits.isfinite().all()
