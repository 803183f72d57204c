"""Path patching, beside three passes with plain hooks of the library."""

import numpy as np
import pytest
import torch

from mechinterp import Pair, Prompts, Site, logit_diff
from mechinterp.patching import normalized, patch_heads
from mechinterp.patching.paths import path_patching

CLEAN = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
CORRUPT = torch.tensor([[3, 8, 7, 2, 6], [4, 1, 7, 9, 8]])
METRIC = logit_diff([7, 8], [1, 2])


@pytest.fixture
def pair():
    return Pair(Prompts.from_ids(CLEAN.tolist()), Prompts.from_ids(CORRUPT.tolist()))


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def diff(logits):
    rows = torch.arange(2)
    return (logits[rows, -1, torch.tensor([7, 8])] - logits[rows, -1, torch.tensor([1, 2])]).numpy()


def putting(values):
    """Hooks that replace activations by these."""
    return [(name, lambda old, hook, new=new: new) for name, new in values.items()]


def both_runs(model, direction):
    """The tokens of the base run, its cache, and that of the other run."""
    tokens = (CLEAN, CORRUPT) if direction == "noise" else (CORRUPT, CLEAN)
    return tokens[0], *(model.run_with_cache(t)[1] for t in tokens)


def three_passes(model, runs, sender, receiver, positions):
    """The metric, with the direct path from sender to receiver alone carrying the other run."""
    base_tokens, base, other = runs
    frozen = {}
    for layer in range(model.cfg.n_layers):
        frozen[f"blocks.{layer}.attn.hook_z"] = base[f"blocks.{layer}.attn.hook_z"].clone()
        if not model.cfg.attn_only:
            frozen[f"blocks.{layer}.hook_mlp_out"] = base[f"blocks.{layer}.hook_mlp_out"].clone()
    where = range(5) if positions is None else positions
    for pos in where:
        index = (slice(None), pos) if sender.head is None else (slice(None), pos, sender.head)
        frozen[sender.hook][index] = other[sender.hook][index]

    seen = {}
    if receiver.act == "logits":
        return diff(model.run_with_hooks(base_tokens, fwd_hooks=putting(frozen)))
    watched = receiver.hook
    if receiver.act == "mlp_out":  # what the MLP makes of the input that the path changed
        del frozen[receiver.hook]
    keep = [(watched, lambda value, hook: seen.update({hook.name: value.clone()}))]
    model.run_with_hooks(base_tokens, fwd_hooks=putting(frozen) + keep)

    received = base[watched].clone()
    if receiver.act == "mlp_out":
        received = seen[watched]
    else:
        received[:, :, receiver.head] = seen[watched][:, :, receiver.head]
    return diff(model.run_with_hooks(base_tokens, fwd_hooks=putting({watched: received})))


def senders_to(model, receiver):
    layers = range(model.cfg.n_layers if receiver.layer is None else receiver.layer)
    senders = [Site("z", layer, 3 - layer) for layer in layers]
    return senders if model.cfg.attn_only else [*senders, Site("mlp_out", layers[-1])]


def receivers(model):
    heads = [Site(act, layer, head) for act in ("q", "k", "v") for layer, head in ((1, 1), (2, 0))]
    heads.append(Site("logits"))
    return heads if model.cfg.attn_only else [*heads, Site("mlp_out", 1), Site("mlp_out", 2)]


@pytest.mark.parametrize(
    ("direction", "positions"),
    [("noise", None), ("noise", [1, 4]), ("noise", [1]), ("noise", "end"), ("denoise", None)],
)
def test_a_path_is_three_passes(model, pair, direction, positions):
    where = [4] if positions == "end" else positions
    runs = both_runs(model, direction)
    unchanged, moved = diff(model(runs[0])), {}
    for receiver in receivers(model):
        senders = senders_to(model, receiver)
        found = path_patching(
            model, pair, METRIC, senders, receiver, direction=direction, positions=positions
        )
        assert found.dims == ("sender", "prompt")
        assert found["sender"].values.tolist() == [str(sender) for sender in senders]
        expected = [three_passes(model, runs, sender, receiver, where) for sender in senders]
        close(found, expected)
        moved[str(receiver)] = np.abs(expected - unchanged).max()
    # What is compared are effects, not the unchanged score. In the last layer queries, the MLP
    # and the logits matter at the last position alone.
    silent = {"L2H0.q", "L2.mlp_out", "logits"} if positions == [1] else set()
    assert all((size > 5e-5) != (name in silent) for name, size in moved.items()), moved


def test_a_head_reaches_the_mlp_of_its_own_layer(absolute_model, pair):
    sender, receiver = Site("z", 1, 2), Site("mlp_out", 1)
    found = path_patching(absolute_model, pair, METRIC, [sender], receiver)
    expected = three_passes(
        absolute_model, both_runs(absolute_model, "noise"), sender, receiver, None
    )
    close(found[0], expected)
    assert np.abs(expected - diff(absolute_model(CLEAN))).max() > 1e-3


def test_a_position_of_a_site_is_where_the_change_arrives(absolute_model, pair):
    sender, receiver = Site("z", 0, 2), Site("v", 2, 1)
    at_one = path_patching(absolute_model, pair, METRIC, [sender], receiver, positions=[1])
    for s, r in ((Site("z", 0, 2, 1), receiver), (sender, Site("v", 2, 1, 1))):
        close(path_patching(absolute_model, pair, METRIC, [s], r), at_one)
    none = path_patching(absolute_model, pair, METRIC, [Site("z", 0, 2, 1)], Site("v", 2, 1, 2))
    close(none[0], none["clean_score"])
    assert np.abs(at_one[0] - none["clean_score"]).max() > 1e-3


def test_all_heads_of_a_layer_write_what_attention_writes(absolute_model, pair):
    senders = [Site("z", 0), Site("attn_out", 0)]
    found = path_patching(absolute_model, pair, METRIC, senders, Site("q", 1, 2))
    close(found[0], found[1])
    assert np.abs(found[0] - found["clean_score"]).max() > 1e-3


def test_all_heads_may_receive(absolute_model, pair):
    sender = Site("z", 1, 0)
    each = [
        path_patching(absolute_model, pair, METRIC, [sender], Site("v", 2, h)) for h in range(4)
    ]
    together = path_patching(absolute_model, pair, METRIC, [sender], Site("v", 2))
    assert all(np.abs(one - together).max() > 1e-4 for one in each)
    # Each head's own: the last layer has nothing behind it but the MLP and the norm, so that
    # restoring all but one gives that one.
    frozen = three_passes_for_all(absolute_model, sender)
    close(together[0], frozen)


def three_passes_for_all(model, sender):
    _, base, other = both_runs(model, "noise")
    change = (other[sender.hook] - base[sender.hook])[:, :, sender.head]
    delta = change @ model.W_O[sender.layer, sender.head]
    resid = base["blocks.2.hook_resid_pre"] + delta
    block = model.blocks[2]
    v = torch.einsum("ptd,hdk->pthk", block.ln1(resid), block.attn.W_V) + block.attn.b_V
    return diff(model.run_with_hooks(CLEAN, fwd_hooks=putting({"blocks.2.attn.hook_v": v})))


def test_to_the_logits_from_the_last_layer_is_activation_patching(attention_only_model, pair):
    senders = [Site("z", 2, head) for head in range(5)]
    found = path_patching(attention_only_model, pair, METRIC, senders, Site("logits"))
    patched = patch_heads(attention_only_model, pair, METRIC, layers=[2])
    close(found, patched[0])
    assert np.ptp(found.values, axis=0).max() > 1e-3


def test_prompts_of_several_lengths_are_each_by_itself(model, ragged):
    other = [[3, 8, 7, 2, 6, 1, 2], [4, 1, 7, 9], [1, 2, 7, 4, 5, 6]]
    pair = Pair(ragged, Prompts.from_ids(other).named(S2=[5, 2, 3]))
    metric = logit_diff(7, 1)
    senders, receiver = [Site("z", 0, 1), Site("z", 1, 2)], Site("v", 2, 1)
    found = path_patching(model, pair, metric, senders, receiver, positions="S2")
    for row, (pos, n) in enumerate([(5, 7), (2, 4), (3, 6)]):
        ids = [side.tokens[row : row + 1, :n].tolist() for side in (pair.clean, pair.corrupt)]
        one = Pair(*(Prompts.from_ids(side) for side in ids))
        alone = path_patching(model, one, metric, senders, receiver, positions=[pos])
        close(found[:, row], alone[:, 0])
    assert np.abs(found - found["clean_score"]).max() > 1e-3


def test_a_path_result_has_a_scale_and_says_what_it_is(grouped_model, pair):
    receiver = Site("k", 2, 1)
    found = path_patching(grouped_model, pair, METRIC, [Site("z", 0, 5)], receiver)
    close(found["clean_score"], diff(grouped_model(CLEAN)))
    close(found["corrupt_score"], diff(grouped_model(CORRUPT)))
    assert normalized(found).dims == ("sender",)
    said = {name: found.attrs[name] for name in ("method", "receiver", "direction", "unit")}
    assert said == {
        "method": "path patching",
        "receiver": "L2H1.k",
        "direction": "noise",
        "unit": "logits",
    }


def test_what_is_no_path_is_refused(absolute_model, model, pair, refuses):
    def patching(sender, receiver, of=absolute_model, **options):
        return lambda: path_patching(of, pair, METRIC, [sender], receiver, **options)

    z, q = Site("z", 1, 0), Site("q", 1, 0)
    refuses(patching(z, q), "does not come before", "up to layer 0")
    refuses(patching(Site("mlp_out", 1), Site("mlp_out", 1)), "does not come before")
    refuses(patching(Site("z", 2, 0), Site("mlp_out", 1)), "up to layer 1")
    refuses(patching(Site("q", 0, 0), q), "sender='q'", "'mlp_out'")
    refuses(patching(Site("z", 0, 0), Site("pattern", 1)), "receiver='pattern'", "'logits'")
    refuses(patching(Site("z", 0, 4), q), "path from L0H4.z", "head 4 is out of range")
    refuses(patching(Site("z", 0, 0), Site("q", 3, 0)), "path to L3H0.q", "out of range")
    refuses(patching(Site("z", 0, 0), q, direction="both"), "'denoise'")
    if model.cfg.attn_only:
        refuses(patching(Site("z", 0, 0), Site("mlp_out", 1), model), "no MLPs")
        refuses(patching(Site("mlp_out", 0), q, model), "never passes blocks.0.hook_mlp_out")
    if model.cfg.parallel_attn_mlp:
        refuses(patching(z, Site("mlp_out", 1), model), "up to layer 0")


@pytest.mark.parametrize(
    ("flag", "value"),
    [("use_normalization_before_and_after", True), ("original_architecture", "Olmo2ForCausalLM")],
)
def test_heads_behind_a_norm_are_refused(absolute_model, pair, refuses, monkeypatch, flag, value):
    monkeypatch.setattr(absolute_model.cfg, flag, value)
    senders = [Site("z", 0, 0)]
    refuses(
        lambda: path_patching(absolute_model, pair, METRIC, senders, Site("q", 1, 0)),
        "normalizes the joint output",
        'Site("attn_out", 0)',
    )


def test_a_path_costs_the_receivers_layers_alone(absolute_model, pair):
    senders = [Site("z", 0, head) for head in range(4)]
    found = path_patching(absolute_model, pair, METRIC, senders, Site("q", 2, 1))
    # Four arms of ten tokens in layer 2, and the unchanged run before it.
    assert found.attrs["token_layers"] <= 4 * 10 + 2 * 10
    seen = []
    again = path_patching(
        absolute_model,
        pair,
        METRIC,
        senders,
        Site("q", 2, 1),
        budget_bytes=1,
        progress=lambda done, total: seen.append(done),
    )
    close(again, found)
    assert len(seen) >= 4


def test_nothing_stays_on_the_model(absolute_model, pair, snapshot):
    before = snapshot(absolute_model)
    path_patching(absolute_model, pair, METRIC, [Site("z", 0, 0)], Site("v", 1, 0))
    before.check()
