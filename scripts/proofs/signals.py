"""What a signal's handler raises, at any moment, leaves no trace; nor do contexts that overlap.

    python scripts/proofs/signals.py [--check] [--quick]

5,000 signals, SIGALRM and SIGTERM in turn, at random moments of ten operations; their handlers
raise. After each: the model's hooks, the handlers, torch's modes and the model's lock are as
before. Then 300 sets of contexts (`hooked`) that overlap in one thread, by hand, as generators and
as asyncio tasks, and end in random order, some by an exception: the same. Prints how many left a
trace; with --check, exits with 1 if any did. `--quick`: 300 signals and 30 sets.
"""

import argparse
import asyncio
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import torch

from mechinterp import (
    Pair,
    Site,
    ask,
    describe,
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
from mechinterp.attribution import integrated_gradients
from mechinterp.circuits import Contrast, eap, exact_edges
from mechinterp.core.turns import lock_of
from mechinterp.engine import site_gradients
from mechinterp.engine.generation import generate_greedy
from mechinterp.layers import logit_lens, train_lens
from mechinterp.models import Model

HANDLED = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)
TEXT = "please bring the sesame"
GREEDY = {"max_new_tokens": 2, "do_sample": False, "stop_at_eos": False, "verbose": False}


class StopError(Exception):
    """What the handlers raise."""


def stop(number: int, frame: object) -> None:
    """The handler."""
    raise StopError(number)


def operations(model: Model) -> dict[str, Callable[[], object]]:
    """What is interrupted."""
    refuse, site = log_prob(token_id(model, "REFUSE")), Site("z", 1)
    pair = Pair(*(tokenize(model, t) for t in (TEXT, "please bring the letter")))
    contrast, question = Contrast.from_pair(model, pair, refuse), ask(model, TEXT, outputs=1)

    def generated() -> None:
        with hooked(model, zero(site)) as same:
            same.generate(tokenize(model, TEXT).tokens, **GREEDY)

    def swept() -> None:
        sweep(model, TEXT, {"head": range(3)}, lambda head: zero(Site("z", 1, head)), refuse)

    return {
        "run": lambda: run(model, TEXT, zero(site) + read(Site("resid_post", 1))),
        "sweep": swept,
        "generate": generated,
        "greedy": lambda: generate_greedy(model, tokenize(model, TEXT), 2),
        "gradient": lambda: site_gradients(model, TEXT, [site], refuse),
        "attribution": lambda: integrated_gradients(question, steps=9),
        "circuit": lambda: (Contrast.from_pair(model, pair, refuse), eap(contrast)),
        "exact edges": lambda: exact_edges(contrast),
        "lens": lambda: (logit_lens(model, TEXT), train_lens(model, [TEXT, "bring"], steps=2)),
        "describe": lambda: describe(model),
    }


def state(model: Model) -> dict[str, object]:
    """All that could keep a trace."""
    modules = list(model.modules())
    free: list[bool] = []

    def take() -> None:
        free.append(lock_of(model).acquire(blocking=False))
        if free[0]:
            lock_of(model).release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return {
        "hooks": [[*m._forward_hooks, *m._forward_pre_hooks] for m in modules],
        "training": [m.training for m in modules],
        "gradients": [p.requires_grad for p in model.parameters()],
        "handlers": [signal.getsignal(number) for number in HANDLED],
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "dispatch": torch._C._len_torch_dispatch_stack(),
        "lock": free,
    }


def traces(before: dict[str, object], model: Model) -> list[str]:
    """The names of what is not as before."""
    now = state(model)
    return [name for name, value in before.items() if now[name] != value]


def send(number: int, delay: float) -> Callable[[], None]:
    """Have the main thread get the signal after a delay; the function waits until it was sent."""
    if number == signal.SIGALRM:
        signal.setitimer(signal.ITIMER_REAL, delay)
        return lambda: None
    main = threading.main_thread().ident
    assert main is not None

    def later() -> None:
        time.sleep(delay)
        signal.pthread_kill(main, number)

    sending = threading.Thread(target=later)
    sending.start()
    return sending.join


def interrupt(operation: Callable[[], object], number: int, delay: float) -> str:
    """How the operation ended: stopped, finished before the signal came, or swallowed it."""
    ended = "stopped"
    try:
        wait = send(number, delay)
        operation()
        ended = "finished"
        wait()
        for _ in range(1000):
            time.sleep(0.001)
        ended = "swallowed"
    except StopError:
        pass
    return ended


def signals(model: Model, times: int) -> int:
    """Interrupt `times` times; how many left a trace."""
    chance, before, left = random.Random(0), state(model), 0
    for name, operation in operations(model).items():
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            operation()
            seconds.append(time.perf_counter() - began)
        ends: Counter[str] = Counter()
        for turn in range(times // 10):
            delay = max(1e-5, chance.uniform(0, 1.1 * sorted(seconds)[2]))
            number = (signal.SIGALRM, signal.SIGTERM)[turn % 2]
            ends[interrupt(operation, number, delay)] += 1
            found = traces(before, model)
            if found:
                left += 1
                print(f"{name}: {found} left by signal {number} after {delay:.6f} s")
                return left  # what follows would compare with what is spoilt
        print(f"{name}: {dict(ends)}")
    return left


def spec_of(number: int) -> object:
    """A spec for one context."""
    return zero(Site("z", 1, head=number % 3))


def by_hand(model: Model, order: list[int]) -> None:
    """Contexts that end in an order of their own."""
    contexts = [hooked(model, spec_of(number)) for number in order]
    for context in contexts:
        context.__enter__()
    model(tokenize(model, TEXT).tokens)
    for at in order:
        if at % 3:
            contexts[at].__exit__(None, None, None)
        else:
            contexts[at].__exit__(StopError, StopError(), None)


def as_generators(model: Model, order: list[int]) -> None:
    """Generators that are closed in an order of their own."""

    def one(number: int) -> Iterator[None]:
        with hooked(model, spec_of(number)) as same:
            same(tokenize(model, TEXT).tokens)
            yield

    made = [one(number) for number in order]
    for each in made:
        next(each)
    for at in order:
        made[at].close()


def as_tasks(model: Model, order: list[int]) -> None:
    """Asyncio tasks that end in an order of their own."""

    async def one(number: int, turn: int, ends: list[asyncio.Event]) -> None:
        with hooked(model, spec_of(number)) as same:
            same(tokenize(model, TEXT).tokens)
            if turn:
                await ends[turn - 1].wait()
        ends[turn].set()

    async def together() -> None:
        ends = [asyncio.Event() for _ in order]
        await asyncio.gather(*(one(n, order.index(n), ends) for n in range(len(order))))

    asyncio.run(together())


def overlaps(model: Model, times: int) -> int:
    """Let contexts overlap; how many sets left a trace, or a handler that is not called."""
    chance, before, left = random.Random(0), state(model), 0
    for turn in range(times):
        order = list(range(chance.randint(2, 5)))
        chance.shuffle(order)
        (by_hand, as_generators, as_tasks)[turn % 3](model, order)
        found = traces(before, model)
        try:
            signal.raise_signal(HANDLED[turn % 2])
            found.append("a signal is swallowed")
        except StopError:
            pass
        if found:
            left += 1
            print(f"contexts that end in the order {order}: {found}")
    print(f"{times} sets of contexts: {left} left a trace")
    return left


def main() -> None:
    """Count and print, and exit with 1 if there is a trace and `--check` is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.setswitchinterval(1e-4)
    model = load_model("toy:trigger")
    for number in HANDLED[:2]:
        signal.signal(number, stop)
    left = overlaps(model, 30 if options.quick else 300)
    left += signals(model, 300 if options.quick else 5000)
    print(f"traces: {left}")
    if options.check and left:
        sys.exit(1)


if __name__ == "__main__":
    main()
