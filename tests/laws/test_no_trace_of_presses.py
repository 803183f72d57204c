"""No trace of Ctrl-C: while an exception is cleaned up, twice at once, and in an edit without end.

After one Ctrl-C at any moment: `test_ctrl_c.py`.
"""

import gc
import random
import signal
import statistics
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import mechinterp
from mechinterp import (
    Site,
    edit,
    hooked,
    log_prob,
    read,
    run,
    sweep,
    zero,
)

# A press that comes while Python deletes an object is reported and dropped, not raised.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class OwnError(Exception):
    """What a user's edit may raise."""


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


@pytest.fixture
def no_garbage_collection():
    """So that a call passes the same moments each time: a collection has callbacks of its own."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.slow
@pytest.mark.usefixtures("no_garbage_collection")
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
    assert ended(call) is first  # what is done only the first time is done
    watch = Watch()
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
    assert n_pressed > max(20, 0.9 * len(moments)), (n_pressed, len(moments))


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
