"""A program that presses Ctrl-C during a call of ours, and checks each time that nothing is left.

    python tests/laws/ctrl_c.py timed:run:500     at 500 random moments, by a real signal
    python tests/laws/ctrl_c.py every:hooked:1    at each moment at which Python hands signals on

A program of its own, so that a signal that comes too late ends it and not the tests. Takes several
such tasks. Prints for each, on a line, how the calls ended: interrupted, finished before, or
swallowed (Python itself drops an exception that comes while it ends a generator or runs a callback
of a weak reference).
"""

import random
import signal
import statistics
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

if __name__ == "__main__":  # the tests, which also look for examples here, import nothing
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import Snapshot, tiny_model

    from mechinterp import Prompts, Site, edit, hooked, knockout, log_prob, read, run, sweep, zero


def calls(model):
    """What is interrupted: the three ways to run a model, each by the name of its function."""
    prompts = Prompts.from_ids([[3, 1, 4, 1], [5, 9, 2, 6]])
    specs = edit(Site("z", 0), lambda value, at: value * 2) + zero(Site("mlp_out", 1, pos="end"))
    specs += knockout(2, None, "end", 0) + read(Site("resid_post", 2))

    def in_a_context():
        with hooked(model, specs, prompts) as same:
            same(prompts.tokens)

    def in_a_sweep():
        def arm(layer):
            return zero(Site("z", layer)) + specs

        sweep(model, prompts, {"layer": [0, 1]}, arm, log_prob(3), budget_bytes=1)

    return {"run": lambda: run(model, prompts, specs), "sweep": in_a_sweep, "hooked": in_a_context}


def outcome(start, call):
    """How the call ended, after a press that `start` prepares."""
    finished = False
    try:
        start()
        call()
        finished = True
        sys.setprofile(None)
        time.sleep(2)  # until a signal that is on its way
    except KeyboardInterrupt:
        return "finished" if finished else "interrupted"
    return "swallowed"


def timed(model, call, n):
    """Real signals, at random moments during the call and shortly after it."""
    sys.setswitchinterval(1e-4)  # so that the pressing thread gets its turn in time
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    chance, main = random.Random(0), threading.main_thread().ident
    for _ in range(n):
        delay = chance.uniform(0, 1.6 * statistics.median(seconds))
        pressing = threading.Thread(target=press, args=(delay, main))
        yield outcome(pressing.start, call)
        pressing.join()


def press(delay, thread):
    time.sleep(delay)
    signal.pthread_kill(thread, signal.SIGINT)


def every(model, call, step):
    """Every step-th moment: after the call of a C function, and at the begin of a Python one."""
    number = 0
    while True:
        number += step
        passed = 0

        def profile(frame, event, argument, number=number):
            nonlocal passed
            passed += event in ("call", "c_return")
            if passed == number and event in ("call", "c_return"):
                sys.setprofile(None)
                signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)

        try:
            sys.setprofile(profile)
            call()
            ended = "finished" if passed < number else "swallowed"
        except KeyboardInterrupt:
            ended = "interrupted"
        finally:
            sys.setprofile(None)
        yield ended
        if passed < number:
            return


def main(*tasks):
    """Check after each of the calls; the counts of how they ended, or where a trace was left."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for task in tasks:
        press_in(task)


def press_in(task):
    moments, name, n = task.split(":")
    model = tiny_model("absolute")
    call = calls(model)[name]
    call()
    before = Snapshot(model)
    ends = Counter()
    for ended in {"timed": timed, "every": every}[moments](model, call, int(n)):
        ends[ended] += 1
        try:
            before.check()
        except AssertionError:
            traceback.print_exc()
            sys.exit(f"{task}: press {sum(ends.values())} ({ended}) left a trace")
    print(*(f"{ends[end]}" for end in ("interrupted", "finished", "swallowed")))


if __name__ == "__main__":
    main(*sys.argv[1:])
