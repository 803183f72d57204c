"""`run`, `hooked` and what a sweep is beside the law (`tests/laws/test_sweep_law.py`)."""

import numpy as np
import pytest
import torch

from mechinterp import (
    Prompts,
    Site,
    delete_token,
    edit,
    hooked,
    knockout,
    load_model,
    log_prob,
    models,
    patch,
    read,
    run,
    sweep,
    token_id,
    zero,
)

TOKENS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_a_run_keeps(model, ragged):
    done = run(model, ragged, read(Site("z", 1)), logits_at=("end", 0, "S2"))
    assert done.logits.shape == (3, 3, model.cfg.d_vocab)
    assert done.logits_at == ("end", 0, "S2")
    assert done.prompts is ragged
    assert list(done.acts) == [Site("z", 1)]
    assert not done.logits.requires_grad
    close(done.logits_of((0,)), done.logits[:, 1:2])
    close(done.logits_of(("S2", "end")), done.logits[:, [2, 0]])
    close(run(model, ragged, logits_at=0).logits, done.logits[:, 1:2])
    close(run(model, ragged).logits, done.logits[:, :1])


def test_token_ids_run_as_they_are(model):
    close(run(model, TOKENS).logits[:, 0], model(TOKENS)[:, -1])
    close(run(model, TOKENS[0]).logits[0, 0], model(TOKENS)[0, -1])


def test_a_text_runs():
    model = load_model("toy:trigger")
    done = run(model, "please bring the sesame")
    best = int(done.logits[0, 0].argmax())
    assert best == token_id(model, "REFUSE")
    assert done.prompts.token_text[0][0] == "<bos>"


def test_a_run_of_edited_prompts_goes_on_from_them(model, ragged):
    once = run(model, ragged, delete_token(1)).prompts
    both = run(model, once, delete_token(0) + zero(Site("z", 1, pos="S2")))
    together = run(model, ragged, delete_token(1) + delete_token(0) + zero(Site("z", 1, pos="S2")))
    assert torch.equal(both.prompts.tokens, together.prompts.tokens)
    close(both.logits, together.logits)


@pytest.mark.parametrize("with_prompts", [False, True])
def test_a_context_is_a_run_for_whatever_runs_the_model(model, with_prompts):
    specs = zero(Site("z", 0, 1)) + edit(Site("resid_post", 1, pos=2), lambda v, at: -v)
    prompts = Prompts.from_ids(TOKENS.tolist()).named(S2=[1, 2])
    if with_prompts:
        specs += zero(Site("z", 2, pos="S2")) + knockout(2, None, "end", "S2")
    expected = run(model, prompts, specs, logits_at=(0, 1, 2, 3)).logits
    with hooked(model, specs, prompts if with_prompts else None) as same:
        assert same is model
        close(model(TOKENS), expected)
        close(model.run_with_cache(TOKENS)[0], expected)
    close(model(TOKENS), run(model, TOKENS, logits_at=(0, 1, 2, 3)).logits)


LENGTHS = [torch.tensor(ids) for ids in ([[1, 2]], [[3, 4, 5], [6, 7, 8]], [[1, 2]])]


def test_a_context_takes_prompts_of_any_length(model):
    seen = []

    def look(value, at):
        seen.append(at.prompts.tokens)
        return value * 0

    specs = edit(Site("z", 1, pos=1), look)
    expected = [run(model, tokens, specs).logits for tokens in LENGTHS]
    seen.clear()
    with hooked(model, specs):
        for tokens, logits in zip(LENGTHS, expected, strict=True):
            close(model(tokens)[:, -1:], logits)
    assert all(map(torch.equal, seen, LENGTHS))
    assert len(seen) == len(LENGTHS)


def test_what_a_context_reads_is_of_the_pass_that_runs(model):
    source = Site("resid_pre", 1)
    specs = read(source) + edit(Site("resid_post", 2), lambda value, at: at.acts[source])
    expected = [run(model, tokens, specs).logits for tokens in LENGTHS]
    with hooked(model, specs):
        for tokens, logits in zip(LENGTHS, expected, strict=True):
            close(model(tokens)[:, -1:], logits)


@pytest.mark.parametrize("cached", [True, False])
def test_a_context_while_generating(model, cached):
    specs = zero(Site("z", 1, 0)) + zero(Site("z", 1, pos=1)) + knockout(2, None, None, 0)
    with hooked(model, specs):
        made = model.generate(
            TOKENS[:1],
            max_new_tokens=4,
            do_sample=False,
            stop_at_eos=False,
            verbose=False,
            use_past_kv_cache=cached,
        )
    ids = TOKENS[:1]
    for _ in range(4):
        ids = torch.cat([ids, run(model, ids, specs).logits[:, 0].argmax(-1, keepdim=True)], 1)
    assert torch.equal(made, ids)


def test_an_edit_while_generating_sees_the_whole_sequence(model):
    seen = []

    def look(value, at):
        seen.append(at.prompts.tokens[0].tolist())
        return value

    with hooked(model, edit(Site("z", 1, pos=3), look)):
        made = model.generate(
            TOKENS, max_new_tokens=3, stop_at_eos=False, verbose=False, use_past_kv_cache=False
        )
    assert seen == [made[0, :n].tolist() for n in (4, 5, 6)]


def test_contexts_inside_one_another(model):
    outer, inner = zero(Site("z", 1)), zero(Site("attn_out", 0))
    with hooked(model, outer):
        with hooked(model, inner):
            close(model(TOKENS)[:, -1:], run(model, TOKENS).logits)
            both = model(TOKENS)[:, -1:]
        close(model(TOKENS)[:, -1:], run(model, TOKENS).logits)
    close(both, run(model, TOKENS, outer + inner).logits)


def test_a_sweep_inside_a_context_sees_it(model, ragged):
    around = zero(Site("attn_out", 0))
    points = {"layer": [0, 1, 2]}
    with hooked(model, around):
        swept = sweep(model, ragged, points, lambda layer: zero(Site("z", layer, 1)), log_prob(3))
    for layer in points["layer"]:
        expected = log_prob(3)(run(model, ragged, around + zero(Site("z", layer, 1))))
        np.testing.assert_allclose(swept.sel(layer=layer), expected, atol=1e-5)


def test_reading_alone_ends_with_the_last_layer_that_is_touched(model, ragged, monkeypatch):
    sites = [Site("z", 1), Site("resid_pre", 0), Site("tokens")]
    specs = zero(Site("z", 0, 2)) + delete_token("S2") + read(*sites)
    whole = run(model, ragged, specs)
    layers, block = [], models.run_block

    def counted(model, layer, *given, **named):
        layers.append(layer)
        return block(model, layer, *given, **named)

    monkeypatch.setattr(models, "run_block", counted)
    alone = run(model, ragged, specs, logits_at=())
    assert layers == [0, 1]
    assert alone.logits.shape == (3, 0, model.cfg.d_vocab)
    assert set(alone.acts) == set(sites)
    for site in sites:
        assert torch.equal(alone.acts[site], whole.acts[site])
    late = run(model, ragged, read(Site("logits", pos=1)), logits_at=())
    close(late.acts[Site("logits", pos=1)], run(model, ragged, logits_at=1).logits[:, 0])


def test_the_dims_and_coordinates_of_a_sweep(model, ragged):
    other = run(model, TOKENS[:, :1].repeat(2, 7)[:1].repeat(3, 1), read(Site("z", 1))).acts
    swept = sweep(
        model,
        ragged,
        {"head": (h for h in (0, 2)), "pos": ("end", "S2")},
        lambda head, pos: patch(Site("z", 1, head, pos), other, Site("z", 1, head, 0)),
        log_prob(3),
    )
    assert swept.dims == ("head", "pos", "prompt")
    assert swept.name == "log_prob"
    assert swept["head"].values.tolist() == [0, 2]
    assert swept["pos"].values.tolist() == ["end", "S2"]
    assert swept["prompt"].values.tolist() == [0, 1, 2]
    assert swept.dtype == np.float64


def test_the_budget_is_kept(model, ragged):
    def swept(budget_bytes):
        return sweep(
            model,
            ragged,
            {"head": range(4)},
            lambda head: zero(Site("z", 1, head)),
            log_prob(3),
            budget_bytes=budget_bytes,
        )

    whole = swept(None).attrs
    least = swept(1).attrs  # less than one arm cannot be
    assert whole["passes"] == 2  # one, and the one that the layers start from
    assert least["passes"] >= 4
    n_passes = []
    for share in (0.3, 0.6, 0.9, 1.0):
        attrs = swept(int(share * whole["peak_bytes_planned"])).attrs
        bound = max(share * whole["peak_bytes_planned"], least["peak_bytes_planned"])
        assert attrs["peak_bytes_planned"] <= bound
        n_passes.append(attrs["passes"])
    assert n_passes == sorted(n_passes, reverse=True)
    assert n_passes[-1] == 2


def test_the_attributes_say_what_was_run(model, ragged):
    attrs = sweep(
        model, ragged, {"layer": [1]}, lambda layer: zero(Site("z", layer)), log_prob(3)
    ).attrs
    assert {"arms", "passes", "token_layers", "token_layers_naive", "seconds"} <= set(attrs)
    assert {"peak_bytes_planned", "model", "size", "weights"} <= set(attrs)
    assert attrs["token_layers"] == 21 * 2 + 21 * 1
    assert attrs["token_layers_naive"] == 21 * 3


def test_deleting_each_token_batches_by_width(absolute_model):
    prompts = Prompts.from_ids([[3, 1, 4, 1, 5]])
    swept = sweep(absolute_model, prompts, {"pos": range(5)}, delete_token, log_prob(3))
    assert swept.attrs["passes"] == 1
    # All from position 0 on: on so few tokens more passes would cost more than they save.
    assert swept.attrs["token_layers"] == 5 * 4 * 3
    for pos in range(5):
        ids = torch.tensor([[t for i, t in enumerate([3, 1, 4, 1, 5]) if i != pos]])
        expected = absolute_model(ids)[0, -1].double().log_softmax(-1)[3]
        assert swept.sel(pos=pos).item() == pytest.approx(expected.item(), abs=1e-5)
