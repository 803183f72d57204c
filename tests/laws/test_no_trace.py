"""No trace: whatever happens during a run, the model is afterwards what it was before.

Its hooks, flags and weights are the same, bit by bit, and so are its logits: after a run that ended
well, and after an exception in an edit at any site. After presses of Ctrl-C:
`test_no_trace_of_presses.py` and `test_ctrl_c.py`.
"""

from dataclasses import replace

import pytest
import torch

from mechinterp import (
    HookError,
    Site,
    delete_token,
    edit,
    hooked,
    log_prob,
    patch,
    read,
    run,
    sweep,
    zero,
)
from mechinterp.core.sites import ACTS
from mechinterp.models.facts import fired_points


def sites_that_run(model):
    fired = fired_points(model)
    last = model.cfg.n_layers - 1
    return [
        Site(name, last if act.per_layer else None)
        for name, act in ACTS.items()
        if name == "tokens" or act.hook.format(layer=last) in fired
    ]


class OwnError(Exception):
    """What a user's edit may raise."""


def raises(value, at):
    raise OwnError


def test_after_an_exception_in_an_edit_at_any_site(model, ragged, snapshot):
    before = snapshot(model)
    for site in sites_that_run(model):
        # The specs beside it have run, and changed what the model computed, when it raises.
        specs = zero(Site("resid_pre", 0)) + read(Site("z", 0)) + edit(site, raises)
        with pytest.raises(OwnError) as caught:
            run(model, ragged, specs)
        assert f"raised by the edit of raises {site}" in caught.value.__notes__
        with pytest.raises(OwnError):
            sweep(
                model,
                ragged,
                {"number": range(3)},
                lambda number, s=specs: s if number else zero(Site("z", 1)),
                log_prob(3),
            )
        if site.act != "tokens":
            with pytest.raises(OwnError), hooked(model, specs):
                before.logits_now()
        before.check()


def test_after_an_edit_that_is_refused(switched_on_model, ragged, snapshot):
    before = snapshot(switched_on_model)
    for site in sites_that_run(switched_on_model):
        with pytest.raises(HookError):
            run(switched_on_model, ragged, edit(site, lambda value, at: None))
    before.check()


def test_after_edits_that_change_their_value_in_place(model, ragged, snapshot):
    def spoil(value, at):
        value.zero_()
        return value + 1

    before = snapshot(model)
    for site in sites_that_run(model):
        run(model, ragged, edit(site, spoil))
    before.check()


def test_what_was_passed_in_is_not_written_to(model, ragged):
    ids, lengths = ragged.tokens.clone(), ragged.lengths.clone()
    sites = sites_that_run(model)
    other = run(model, ragged, read(*sites)).acts
    kept = {site: value.clone() for site, value in other.items()}
    spoil = [patch(site, other) + edit(site, lambda value, at: value.fill_(1)) for site in sites]
    sweep(model, ragged, {"n": range(len(spoil))}, lambda n: spoil[n], log_prob(3))
    run(model, ragged, delete_token(1) + edit(Site("embed"), lambda value, at: value.fill_(1)))
    assert torch.equal(ragged.tokens, ids)
    assert torch.equal(ragged.lengths, lengths)
    assert all(torch.equal(other[site], value) for site, value in kept.items())


def test_what_was_read_is_a_copy(model, ragged):
    def spoil(value, at):
        assert len(at.acts) > 10
        for seen in at.acts.values():
            seen.fill_(1)
        return value

    sites = [site for site in sites_that_run(model) if site.act != "tokens"]
    plain = run(model, ragged, read(*sites), logits_at=("end", 0))
    spoilt = run(model, ragged, read(*sites) + edit(Site("logits"), spoil), logits_at=("end", 0))
    assert torch.equal(spoilt.logits, plain.logits)
    kept = {site: value.clone() for site, value in plain.acts.items()}
    for value in plain.acts.values():
        value.fill_(7)
    again = run(model, ragged, read(*sites)).acts
    assert all(torch.equal(again[site], value) for site, value in kept.items())


def test_an_edit_that_writes_into_what_was_read_changes_nothing(model, ragged):
    def spoil(value, at):
        seen = [at.acts[site] for site in at.acts] + [at.acts[Site("z", 0, head=1, pos="end")]]
        for each in (*seen, *at.acts.values(), *(x for _, x in at.acts.items())):
            each.fill_(1)
        assert Site("z", 0, head=1) in at.acts
        assert not torch.equal(at.acts[Site("z", 0)], seen[0])  # asked again: what was read
        return value

    reads = read(Site("tokens"), Site("z", 0), Site("resid_pre", 1), Site("pattern", 1, pos="end"))
    spoiling = reads + edit(Site("resid_post", 1), spoil)
    plain, spoilt = run(model, ragged, reads), run(model, ragged, spoiling)
    assert torch.equal(spoilt.logits, plain.logits)
    assert [*spoilt.acts] == [*plain.acts]
    assert all(torch.equal(spoilt.acts[site], value) for site, value in plain.acts.items())


def test_an_edit_that_writes_into_the_prompts_is_refused(absolute_model, ragged):
    def spoil(value, at):
        at.prompts.tokens[0, 1] = 2
        return value

    given = replace(ragged, tokens=ragged.tokens.clone())
    with pytest.raises(HookError, match=r"wrote into at\.prompts\.tokens"):
        run(absolute_model, given, edit(Site("z", 1), spoil))


def test_the_users_own_hooks_stay_and_act(absolute_model, ragged, snapshot):
    model = absolute_model
    plain = run(model, ragged).logits
    model.blocks[1].hook_mlp_out.add_perma_hook(lambda value, hook: value * 0.5)
    handle = model.blocks[0].hook_attn_out.register_forward_hook(lambda m, args, value: value * 2)
    try:
        before = snapshot(model)
        hooks = before.hooks
        assert len(hooks["blocks.1.hook_mlp_out"]) > 1
        theirs = run(model, ragged).logits
        assert (theirs - plain).abs().max() > 1e-2
        run(model, ragged, zero(Site("mlp_out", 1)))
        with pytest.raises(OwnError):
            run(model, ragged, edit(Site("mlp_out", 1), raises))
        with hooked(model, zero(Site("attn_out", 0))):
            before.logits_now()
        sweep(model, ragged, {"n": range(2)}, lambda n: zero(Site("z", n)), log_prob(3))
        before.check()
        assert torch.equal(run(model, ragged).logits, theirs)
        # Theirs came first, so that ours sees what it left.
        seen = run(model, ragged, read(Site("mlp_out", 1), Site("mlp_post", 1))).acts
        mlp = model.blocks[1].mlp
        by_hand = (seen[Site("mlp_post", 1)] @ mlp.W_out + mlp.b_out) * 0.5
        torch.testing.assert_close(seen[Site("mlp_out", 1)], by_hand, atol=1e-5, rtol=1e-5)
    finally:
        handle.remove()
        model.reset_hooks(including_permanent=True)
    assert torch.equal(run(model, ragged).logits, plain)
