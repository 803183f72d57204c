"""No trace: whatever happens during a run, the model is afterwards what it was before.

Its hooks, flags and weights are the same, bit by bit, and so are its logits: after a run that ended
well, after an exception in an edit at any site, and after Ctrl-C while that is cleaned up. After
one Ctrl-C at any moment: `test_ctrl_c.py`.
"""

import random
import signal
import statistics
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mechinterp
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

# A press that comes while Python deletes an object is reported and dropped, not raised.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


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


class Handler:
    """Of SIGINT: ends the call under test, and only that, so that a late signal hurts no test."""

    def __init__(self):
        self.presses = 0

    def __call__(self, signum, frame):
        self.presses += 1
        while frame is not None and frame.f_code.co_name != "under_test":
            frame = frame.f_back
            if frame is None:
                return
        raise KeyboardInterrupt  # also without a frame: then it is the framework that hands it on


@pytest.fixture
def handler():
    assert threading.current_thread() is threading.main_thread()
    ours = Handler()
    before = signal.signal(signal.SIGINT, ours)
    yield ours
    signal.signal(signal.SIGINT, before)


WAYS = ("run", "sweep", "hooked", "generated", "nested")


def calls_with(model, other, prompts, own):
    """The ways to run a model, `own` an edit in the middle of each.

    Nested: in an edit on one model, a run of the other.
    """
    specs = zero(Site("mlp_out", 0)) + edit(Site("z", 1), own) + read(Site("resid_post", 1))

    def in_a_context():
        with hooked(model, specs, prompts) as same:
            same(prompts.tokens)

    def while_generating():
        at_a_step = specs[:1] + edit(Site("z", 1, pos=8), own) + specs[2:]
        with hooked(model, at_a_step) as same:
            same.generate(
                prompts.tokens, max_new_tokens=3, do_sample=False, stop_at_eos=False, verbose=False
            )

    def in_an_edit(value, at):
        run(model, prompts, specs)
        return value

    return {
        "run": lambda: run(model, prompts, specs),
        "sweep": lambda: sweep(
            model, prompts, {"n": range(2)}, lambda n: zero(Site("z", n)) + specs, log_prob(3)
        ),
        "hooked": in_a_context,
        "generated": while_generating,
        "nested": lambda: run(other, prompts, edit(Site("z", 0), in_an_edit)),
    }


def ended(call, start=lambda: None):
    """How a call ended, after `start`: by which exception, or None."""

    def under_test():
        call()

    try:
        start()
        under_test()
    except (KeyboardInterrupt, OwnError) as error:
        return type(error)
    finally:
        sys.setprofile(None)
    return None


# Where Python drops exceptions: a weak reference's callback, the end of a generator. That is one of
# the progress bar in the library's own generate; the junk drawer is what hypothesis lets the
# garbage collector call. And the checks of types, which no user has: moments enough without them.
PRODUCT = str(Path(mechinterp.__file__).parent)
NOT_PRESSED = ("weakref", "tqdm", "junkdrawer", "jaxtyping", "beartype")


def pressed_at(frame):
    """False in what is not to be pressed at, or is called from it, up to the product's own code."""
    while frame is not None and not frame.f_code.co_filename.startswith(PRODUCT):
        if any(name in frame.f_code.co_filename for name in NOT_PRESSED):
            return False
        frame = frame.f_back
    return True


class Watch:
    """Of the moments of a call from `begin` on: presses at one, or notes which may be pressed at.

    A moment is a call or the return of one: it is there that Python hands a signal on.
    """

    def __init__(self, moment=None):
        self.moment, self.passed, self.pressed, self.may = moment, 0, False, []

    def begin(self):
        sys.setprofile(self.see)

    def see(self, frame, event, argument):
        if event not in ("call", "c_return"):
            return
        if self.moment is None and pressed_at(frame):
            self.may.append(self.passed)
        if self.passed == self.moment:
            sys.setprofile(None)
            self.pressed = pressed_at(frame)
            if self.pressed:
                signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)
        self.passed += 1


@pytest.mark.parametrize("first", [OwnError, KeyboardInterrupt])
@pytest.mark.parametrize("way", WAYS)
def test_a_press_at_any_moment_of_the_cleaning_up(
    absolute_model, attention_only_model, ragged, snapshot, handler, way, first
):
    before = [snapshot(absolute_model), snapshot(attention_only_model)]
    watch = Watch()

    def goes_wrong(value, at):
        watch.begin()
        if first is KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
        raise OwnError

    call = calls_with(absolute_model, attention_only_model, ragged, goes_wrong)[way]
    assert ended(call) is first
    moments = watch.may
    n_pressed = 0
    for moment in moments:
        watch = Watch(moment)
        assert ended(call) is (KeyboardInterrupt if watch.pressed else first)
        n_pressed += watch.pressed
        assert all(each.hooks_now() == each.hooks for each in before)
        assert signal.getsignal(signal.SIGINT) is handler
        assert torch.is_grad_enabled()
    for check in before:
        check.check()
    assert n_pressed > max(20, 0.9 * len(moments))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_presses_at_random_moments(
    absolute_model, attention_only_model, ragged, snapshot, handler, way
):
    call = calls_with(absolute_model, attention_only_model, ragged, lambda value, at: value * 2)[
        way
    ]
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    whole, chance = statistics.median(seconds), random.Random(way)
    main = threading.main_thread().ident
    before = snapshot(absolute_model)
    ends = []
    for number in range(60):
        delays = chance.uniform(0, 1.3 * whole), chance.uniform(0, 0.1 * whole)

        def press_twice(delays=delays):
            for delay in delays:
                time.sleep(delay)
                signal.pthread_kill(main, signal.SIGINT)

        pressing = threading.Thread(target=press_twice)
        ends.append(ended(call, pressing.start))
        pressing.join()
        assert before.hooks_now() == before.hooks
        assert signal.getsignal(signal.SIGINT) is handler
        assert torch.is_grad_enabled()
        if number % 10 == 0:
            before.check()
    before.check()
    # Two that come at once are one signal.
    assert 60 < handler.presses <= 120
    # How many come to their end is up to what else the machine does.
    assert ends.count(KeyboardInterrupt) >= 20
    assert ends.count(None) >= 1


@pytest.mark.parametrize("way", WAYS)
def test_an_edit_without_an_end_is_ended(
    absolute_model, attention_only_model, ragged, snapshot, handler, way
):
    before = snapshot(absolute_model)

    main = threading.main_thread().ident

    def press():
        time.sleep(0.02)
        signal.pthread_kill(main, signal.SIGINT)

    def without_end(value, at):
        pressing = threading.Thread(target=press)
        pressing.start()
        began = time.perf_counter()
        while time.perf_counter() < began + 20:
            value = value + 0
        return value

    began = time.perf_counter()
    assert (
        ended(calls_with(absolute_model, attention_only_model, ragged, without_end)[way])
        is KeyboardInterrupt
    )
    assert time.perf_counter() - began < 10
    before.check()
