"""Every signal, and contexts that overlap: handlers, hooks and modes are back in every order.

`scripts/proofs/signals.py` sends thousands; here a few of each. Ctrl-C alone: `test_ctrl_c.py`.
"""

import asyncio
import signal
import sys
import threading

import pytest
import torch

from mechinterp import (
    HookError,
    Pair,
    Prompts,
    Site,
    describe,
    edit,
    hooked,
    load_model,
    log_prob,
    read,
    run,
    sweep,
    token_id,
    tokenize,
    zero,
)
from mechinterp.circuits import Contrast, eap
from mechinterp.core.turns import lock_of
from mechinterp.engine import site_gradients

# What comes while Python deletes an object is reported and dropped, not raised.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CLEAN, CORRUPT = [[3, 1, 4, 1], [6, 5, 3, 5]], [[3, 1, 7, 1], [6, 5, 8, 5]]
ENDED = (signal.SIGALRM, signal.SIGTERM)


def late(number, frame):
    raise TimeoutError(number)


@pytest.fixture
def handlers():
    """Handlers of three signals that raise."""
    mine = dict.fromkeys(ENDED, late) | {signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in mine.items()}
    yield mine
    for number, handler in before.items():
        signal.signal(number, handler)


def check_nothing_is_left(before, handlers):
    assert before.hooks_now() == before.hooks
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert torch._C._len_torch_dispatch_stack() == 0
    assert is_free(lock_of(before.model))
    for number, kind in (*((number, TimeoutError) for number in ENDED), (2, KeyboardInterrupt)):
        with pytest.raises(kind):
            signal.raise_signal(number)


def is_free(lock):
    """Whether another thread could take the lock."""
    taken = []

    def take():
        taken.append(lock.acquire(blocking=False))
        if taken[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return taken[0]


def operations(model):
    clean, corrupt = Prompts.from_ids(CLEAN), Prompts.from_ids(CORRUPT)
    specs = edit(Site("z", 0), lambda value, at: value * 2) + read(Site("resid_post", 2))

    def in_a_context():
        with hooked(model, specs, clean) as same:
            same(clean.tokens)

    return {
        "run": lambda: run(model, clean, specs),
        "sweep": lambda: sweep(model, clean, {"n": range(2)}, lambda n: specs, log_prob(3)),
        "hooked": in_a_context,
        "gradient": lambda: site_gradients(model, clean, [Site("z", 1)], log_prob(3)),
        "circuit": lambda: eap(Contrast.from_pair(model, Pair(clean, corrupt), log_prob(3))),
        "describe": lambda: describe(model),
    }


DROPPING = ("weakref", "jaxtyping", "beartype")


def is_dropped(frame):
    """True where what is raised is dropped: in a weak reference's callback, and checks of tests."""
    while frame is not None and not any(name in frame.f_code.co_filename for name in DROPPING):
        frame = frame.f_back
    return frame is not None


STEPS = {"run": 17, "sweep": 101, "hooked": 61, "gradient": 41, "circuit": 101, "describe": 17}


@pytest.mark.parametrize(("name", "step"), STEPS.items())
def test_an_alarm_at_many_moments_leaves_no_trace(absolute_model, snapshot, handlers, name, step):
    operation, before = operations(absolute_model)[name], snapshot(absolute_model)
    operation()
    ended, moment = 0, 1
    while True:
        passed = 0

        def ring(frame, event, argument, moment=moment):
            nonlocal passed
            if event not in ("call", "c_return") or is_dropped(frame):
                return
            passed += 1
            if passed == moment:
                sys.setprofile(None)
                signal.getsignal(signal.SIGALRM)(signal.SIGALRM, frame)

        try:
            sys.setprofile(ring)
            operation()
        except TimeoutError:
            ended += 1
        finally:
            sys.setprofile(None)
        check_nothing_is_left(before, handlers)
        if passed < moment:
            break
        moment += step
    before.check()
    assert ended >= moment // step - 2


def test_an_alarm_inside_the_tokenizer_is_not_its_error(handlers, monkeypatch):
    model = load_model("toy:trigger")
    plain = type(model.tokenizer).__call__

    def slow(self, text, **options):
        signal.raise_signal(signal.SIGALRM)
        return plain(self, text, **options)

    monkeypatch.setattr(type(model.tokenizer), "__call__", slow)
    for call in (tokenize, token_id):
        with pytest.raises(TimeoutError):
            call(model, "sesame")


def spec(number):
    return zero(Site("z", 1, head=number))


ORDERS = [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)]


@pytest.mark.parametrize("order", ORDERS)
def test_contexts_that_overlap_end_in_any_order(absolute_model, snapshot, handlers, order):
    before = snapshot(absolute_model)
    contexts = [hooked(absolute_model, spec(number)) for number in range(3)]
    for context in contexts:
        context.__enter__()
    before.logits_now()
    for number in order:
        for signum in ENDED:
            with pytest.raises(TimeoutError):
                signal.raise_signal(signum)
        contexts[number].__exit__(None, None, None)
    check_nothing_is_left(before, handlers)
    before.check()


@pytest.mark.parametrize("order", ORDERS)
def test_generators_that_are_closed_in_any_order(absolute_model, snapshot, handlers, order):
    before = snapshot(absolute_model)

    def one(number):
        with hooked(absolute_model, spec(number)):
            yield before.logits_now()

    made = [one(number) for number in range(3)]
    for each in made:
        next(each)
    for number in order:
        made[number].close()
    check_nothing_is_left(before, handlers)
    before.check()


@pytest.mark.parametrize("order", ORDERS)
def test_tasks_that_end_in_any_order(absolute_model, snapshot, handlers, order):
    before = snapshot(absolute_model)

    async def one(number, ends):
        with hooked(absolute_model, spec(number)):
            before.logits_now()
            place = order.index(number)
            if place:
                await ends[order[place - 1]].wait()
            run(absolute_model, Prompts.from_ids(CLEAN))
        ends[number].set()

    async def together():
        ends = [asyncio.Event() for _ in order]
        await asyncio.wait_for(asyncio.gather(*(one(n, ends) for n in range(3))), 30)

    asyncio.run(together())
    check_nothing_is_left(before, handlers)
    before.check()


def test_a_context_inside_itself_is_refused_and_goes_on(absolute_model, snapshot, handlers):
    before, context = snapshot(absolute_model), hooked(absolute_model, spec(0))
    with context:
        with pytest.raises(HookError, match="this context is on already"), context:
            pass
        assert not torch.equal(before.logits_now(), before.logits)
    check_nothing_is_left(before, handlers)
    before.check()
