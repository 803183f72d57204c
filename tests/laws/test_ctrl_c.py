"""Ctrl-C at any moment of a run, a sweep or a context leaves no trace; `ctrl_c.py` presses it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from mechinterp import Site, edit, hooked, run, zero

HERE = Path(__file__).parent


TIMED = {"run": 150, "sweep": 100, "hooked": 150}
STEPS = {"run": 13, "sweep": 71, "hooked": 9}


@pytest.fixture(scope="module")
def ends():
    """How the calls ended, each of them checked: interrupted, finished, swallowed."""
    tasks = [f"timed:{name}:{times}" for name, times in TIMED.items()]
    tasks += [f"every:{name}:{step}" for name, step in STEPS.items()]
    done = subprocess.run(
        [sys.executable, HERE / "ctrl_c.py", *tasks],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    return dict(zip(tasks, counts, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "times"), TIMED.items())
def test_real_presses_at_random_moments(ends, name, times):
    interrupted, finished, swallowed = ends[f"timed:{name}:{times}"]
    assert interrupted + finished + swallowed == times
    assert interrupted > times / 8  # how many come in time depends on the machine's load
    assert finished > 0
    assert swallowed <= times / 100


@pytest.mark.slow
@pytest.mark.parametrize(("name", "step"), STEPS.items())
def test_every_moment_at_which_python_hands_a_signal_on(ends, name, step):
    interrupted, finished, swallowed = ends[f"every:{name}:{step}"]
    assert interrupted > 120
    assert finished == 1  # the last one, after the end of the call
    assert swallowed <= interrupted / 200


@pytest.fixture
def python_handles_ctrl_c():
    """Python's own handler; a test runner may have put its own there."""
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pressing(value, at):
    signal.raise_signal(signal.SIGINT)
    time.sleep(30)
    return value


def test_an_edit_is_ended_at_once(absolute_model, ragged, snapshot, python_handles_ctrl_c):
    before = snapshot(absolute_model)
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        run(absolute_model, ragged, edit(Site("z", 1), pressing))
    with pytest.raises(KeyboardInterrupt), hooked(absolute_model, edit(Site("z", 1), pressing)):
        absolute_model(before.tokens)
    assert time.perf_counter() - began < 20
    before.check()


def test_the_body_of_a_context_is_ended_at_once_and_may_go_on(
    absolute_model, snapshot, python_handles_ctrl_c
):
    before = snapshot(absolute_model)
    presses = 0
    with hooked(absolute_model, zero(Site("z", 1))):
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                pressing(None, None)
            presses += 1
        logits = before.logits_now()
    assert presses == 3
    assert (logits - before.logits).abs().max() > 1e-3
    before.check()


def test_an_inner_context_leaves_the_outer_one(absolute_model, snapshot, python_handles_ctrl_c):
    before = snapshot(absolute_model)
    with hooked(absolute_model, zero(Site("z", 1))):
        outer = before.logits_now()
        with pytest.raises(KeyboardInterrupt), hooked(absolute_model, edit(Site("z", 0), pressing)):
            before.logits_now()
        assert torch.equal(before.logits_now(), outer)
    before.check()


def test_an_ignored_signal_stays_ignored(absolute_model, ragged, python_handles_ctrl_c):
    def press_once(value, at):
        signal.raise_signal(signal.SIGINT)
        return value

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ignored = run(absolute_model, ragged, edit(Site("z", 1), press_once))
    assert torch.equal(ignored.logits, run(absolute_model, ragged).logits)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_ones_own_handler_is_called_once_per_press(
    absolute_model, ragged, snapshot, python_handles_ctrl_c
):
    calls = []
    signal.signal(signal.SIGINT, lambda signum, frame: calls.append(signum))
    before = snapshot(absolute_model)

    def press_once(value, at):
        signal.raise_signal(signal.SIGINT)
        return value * 0

    done = run(absolute_model, ragged, edit(Site("z", 0), press_once) + zero(Site("z", 1)))
    assert calls == [signal.SIGINT]
    expected = run(absolute_model, ragged, zero(Site("z", 0)) + zero(Site("z", 1)))
    assert torch.equal(done.logits, expected.logits)
    before.check()


def test_a_run_in_another_thread_is_not_concerned(absolute_model, ragged):
    found = []
    thread = threading.Thread(target=lambda: found.append(run(absolute_model, ragged).logits))
    thread.start()
    thread.join()
    assert torch.equal(found[0], run(absolute_model, ragged).logits)
