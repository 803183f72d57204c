"""Nothing silent: what cannot be done raises, and the text names the spec and what to do instead.

Each case is a call, and pieces that the message must hold.
"""

import pytest
import torch

from mechinterp import (
    HookError,
    Prompts,
    Site,
    add,
    delete_token,
    edit,
    knockout,
    log_prob,
    mean,
    patch,
    put,
    read,
    replace_token,
    resample,
    run,
    sweep,
    zero,
)

Z = Site("z", 1)
METRIC = log_prob(1)


# Where


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (("resid_prr", 0), ["'resid_prr'", "Did you mean 'resid_pre'"]),
        (("paterns", 0), ["Did you mean 'pattern'"]),
        (("mlp_pots", 0), ["Did you mean 'mlp_post'"]),
        (("Z", 0), ["'Z' is no activation", "Did you mean 'z'"]),
        (("z",), ["z exists in every layer", "layer=0"]),
        (("embed", 0), ["embed belongs to no layer", "Leave layer out"]),
        (("resid_pre", 0, 2), ["prompt pos d_model, no head", "Did you mean"]),
        (("z", 0, None, None, 3), ["no neuron", "mlp_post"]),
        (("tokens", None, 1), ["tokens has axes prompt pos, no head"]),
        (("z", -1), ["layer=-1 is negative", "Count from 0"]),
        (("z", 0, -2), ["head=-2 is negative"]),
        (("z", 0, 0, -1), ["pos=-1 is negative", 'pos="end"']),
        (("mlp_post", 0, None, None, -4), ["neuron=-4 is negative"]),
        (("blocks.0.ln1.hook_scale", 0), ["cannot be narrowed", "Use a short name"]),
        (("blocks.0.ln1.hook_scale", None, None, 2), ["cannot be narrowed"]),
        (("blocks.0.attn.hook_z", 1), ["of layer 0", "Leave layer out"]),
    ],
)
def test_a_site_that_cannot_be(arguments, pieces, refuses):
    refuses(lambda: Site(*arguments), *pieces, kind=ValueError)


ABSENT = [
    (Site("blocks.0.attn.hook_zz"), ["no blocks.0.attn.hook_zz"]),
    (Site("q_input", 0, 1), ["q_input", "switched off", "load_model(..., split_qkv=True)"]),
    (Site("k_input", 0), ["load_model(..., split_qkv=True)"]),
    (Site("attn_in", 0), ["load_model(..., attn_in=True)"]),
    (Site("mlp_in", 0), ["load_model(..., mlp_in=True)"]),
    (Site("result", 0), ["load_model(..., head_result=True)"]),
    (Site("blocks.2.attn.hook_result"), ["switched off", "load_model(..., head_result=True)"]),
    (Site("rot_q", 0), ["no blocks.0.attn.hook_rot_q", "describe(model)"]),
    (Site("z", 3), ["layer 3 is out of range", "layers 0 to 2"]),
    (Site("z", 0, 4), ["L0H4.z", "head 4 is out of range", "heads 0 to 3"]),
    (Site("pattern", 0, 4), ["head 4 is out of range"]),
    (Site("mlp_post", 0, neuron=28), ["neuron 28 is out of range", "neurons 0 to 27"]),
    (Site("z", 0, pos=4), ["L0.z@4", "outside prompt 1, which has 4 tokens", '"end"']),
    (Site("embed", pos=99), ["embed@99", "position 99"]),
    (Site("tokens", pos=4), ["tokens@4", "outside prompt 1"]),
    (Site("z", 0, pos="S3"), ["L0.z@S3", "'S3'", "end, S2", "prompts.named(S3="]),
]


@pytest.mark.parametrize(("site", "pieces"), ABSENT, ids=lambda x: str(x) if x else "")
@pytest.mark.parametrize("make", [zero, read, lambda site: edit(site, lambda value, at: value)])
def test_a_site_that_the_model_or_the_prompts_lack(
    absolute_model, ragged, site, pieces, make, refuses
):
    (spec,) = make(site)
    refuses(lambda: run(absolute_model, ragged, (spec,)), spec.name, *pieces, kind=HookError)
    later = (*zero(Site("embed")), spec)
    refuses(
        lambda: sweep(absolute_model, ragged, {"i": [0]}, lambda i: later, log_prob(1)),
        spec.name,
        *pieces,
    )


def test_a_misspelt_full_name_gets_the_right_one(absolute_model, ragged, refuses):
    wrong = zero(Site("blocks.0.attn.hook_zz"))
    refuses(lambda: run(absolute_model, ragged, wrong), "Did you mean blocks.0.attn.hook_z ")


def test_key_value_heads_under_grouped_queries(grouped_model, ragged, refuses):
    run(grouped_model, ragged, zero(Site("k", 0, 1)) + zero(Site("q", 0, 5)))
    for act in ("k", "v", "rot_k"):
        wrong = zero(Site(act, 0, 2))
        refuses(
            lambda w=wrong: run(grouped_model, ragged, w), wrong[0].name, "key-value heads 0 to 1"
        )


def test_a_point_that_is_registered_and_never_runs(attention_only_model, ragged, refuses):
    wrong = zero(Site("mlp_out", 0))
    assert "blocks.0.hook_mlp_out" in attention_only_model.hook_dict
    says = ["zero L0.mlp_out never ran", "describe(model)"]
    refuses(lambda: run(attention_only_model, ragged, wrong), *says, kind=HookError)
    refuses(lambda: run(attention_only_model, ragged, read(Site("mlp_out", 0))), "never ran")
    arms = [zero(Z), wrong]
    refuses(
        lambda: sweep(attention_only_model, ragged, {"i": [0, 1]}, lambda i: arms[i], log_prob(1)),
        *says,
    )


def test_axes_that_are_others_on_this_model(ragged, switched_on_model, refuses):
    if switched_on_model.cfg.normalization_type is None:
        return
    wrong = zero(Site("ln1_normalized", 1))
    says = ["zero L1.ln1_normalized", "4 axes", "Site('blocks.1.ln1.hook_normalized')"]
    refuses(lambda: run(switched_on_model, ragged, wrong), *says, kind=HookError)


# What


@pytest.mark.parametrize(
    ("fn", "pieces"),
    [
        (lambda value, at: None, ["returned None", "Return the new value"]),
        (lambda value, at: value.mul_(2) and None, ["ambiguous", "raised by the edit"]),
        (lambda value, at: value[:1], ["shape [1, 7, 4, 6], not [3, 7, 4, 6]", "head d_head"]),
        (lambda value, at: value.sum(), ["shape [], not"]),
        (lambda value, at: value[..., None], ["shape [3, 7, 4, 6, 1]"]),
        (lambda value, at: value.double(), ["torch.float64", "End it with .to(value)"]),
        (lambda value, at: value.half(), ["torch.float16"]),
        (lambda value, at: value > 0, ["torch.bool"]),
        (lambda value, at: value.to("meta"), ["on meta, not", "End it with .to(value)"]),
        (lambda value, at: value.numpy(), ["returned ndarray, not a tensor"]),
        (lambda value, at: 0.0, ["returned float, not a tensor"]),
    ],
)
def test_an_edit_that_gives_what_does_not_fit(absolute_model, ragged, fn, pieces, refuses):
    wrong = edit(Z, fn, name="mine")

    def call():
        return run(absolute_model, ragged, wrong)

    refuses(call, "mine L1.z", *pieces, kind=(HookError, RuntimeError, TypeError))


@pytest.mark.parametrize("site", [Z, Site("tokens", pos=1)])
def test_an_edit_that_raises_keeps_its_type(absolute_model, ragged, site, refuses):
    class OwnError(LookupError):
        pass

    def mine(value, at):
        raise OwnError("no such thing")

    calls = (
        lambda: run(absolute_model, ragged, edit(site, mine)),
        lambda: sweep(absolute_model, ragged, {"i": [0]}, lambda i: edit(site, mine), METRIC),
    )
    for call in calls:
        refuses(call, "no such thing", f"raised by the edit of mine {site}", kind=OwnError)


@pytest.mark.parametrize(
    ("make", "pieces"),
    [
        (lambda acts: put(Z, torch.ones(3)), ["put L1.z", "[3]", "[3, 7, 4, 6]", "narrow"]),
        (lambda acts: add(Z, torch.ones(4)), ["add L1.z", "[4]", "prompt pos head d_head"]),
        (lambda acts: patch(Z, acts), ["L1.z was not read", "L1.pattern", "Add read(Site("]),
        (lambda acts: mean(Z, acts), ["L1.z was not read"]),
        (lambda acts: resample(Z, acts, 0), ["L1.z was not read"]),
        (lambda acts: patch(Z, acts, Site("q", 0)), ["patch L1.z from L0.q", "[2, 5, 4, 6]"]),
        (lambda acts: mean(Site("pattern", 1), acts), ["mean L1.pattern", "Give the site a pos"]),
        (lambda acts: replace_token(0, -1), ["token id -1 is negative", "delete_token"]),
        (lambda acts: replace_token(0, 37), ["replace tokens@0", "vocabulary of 37"]),
        (
            lambda acts: edit(Site("tokens"), lambda ids, at: ids - 5),
            ["edit tokens", "outside the vocabulary"],
        ),
        (
            lambda acts: edit(Site("tokens", pos=0), lambda ids, at: ids.float()),
            ["edit tokens@0", "torch.float32", "torch.int64"],
        ),
        (lambda acts: read(Z, Z), ["read L1.z", "read twice", "Read it once"]),
        (lambda acts: knockout(1, None, 1, 2), ["@1 to 2", "the query comes before the key"]),
        (lambda acts: knockout(1, None, "end", 9), ["attn_scores@end to 9", "outside prompt 1"]),
        (lambda acts: knockout(1, None, "end", "S4"), ["attn_scores@end to S4", "named(S4="]),
        (lambda acts: knockout(1, 4, "end", 0), ["head 4 is out of range"]),
        (lambda acts: knockout(3, 0, "end", 0), ["layer 3 is out of range"]),
    ],
)
def test_a_spec_that_cannot_be_done(absolute_model, ragged, make, pieces, refuses):
    two = Prompts.from_ids([[1, 2, 3, 4, 5], [6, 7, 8]])
    acts = run(absolute_model, two, read(Site("q", 0), Site("pattern", 1))).acts
    refuses(lambda: run(absolute_model, ragged, make(acts)), *pieces)


def test_deleted_tokens(absolute_model, ragged, refuses):
    model = absolute_model
    for other in (zero(Site("z", 0, pos=1)), knockout(1, None, "end", 1)):
        for specs in (delete_token(1) + other, other + delete_token(1)):
            says = [other[0].name, "position 1 of prompt 0 was deleted by the same arm"]
            refuses(lambda s=specs: run(model, ragged, s), *says)
    only = torch.tensor([[3]])
    refuses(lambda: run(model, only, delete_token(0)), "delete tokens@0", "the only token")
    every = sum((delete_token(pos) for pos in range(4)), ())
    refuses(lambda: run(model, ragged, every), "delete tokens@0 + ", "prompt 1 leaves nothing")
    says = ["every token up to position 0 was deleted", "Keep a token before it"]
    refuses(lambda: run(model, ragged, delete_token(0), logits_at=0), *says)
    refuses(lambda: sweep(model, ragged, {"pos": [0]}, delete_token, log_prob(1, at=0)), *says)
