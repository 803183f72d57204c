"""`interruptible`: when a signal is handed on. Runs that use it: `tests/laws/test_ctrl_c.py`."""

# ruff: noqa: PT012 - what happens inside the block is what is tested

import signal
import threading

import pytest

from mechinterp.engine.interrupts import interruptible

# A press that comes while Python deletes an object is reported and dropped, not raised.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def python_handles_ctrl_c():
    """Python's own handler; a test runner may have put its own there."""
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_it_is_deferred_to_the_next_check():
    reached = []
    with pytest.raises(KeyboardInterrupt), interruptible() as interrupts:
        signal.raise_signal(signal.SIGINT)
        reached.append("after the signal")
        interrupts.check()
        reached.append("after the check")
    assert reached == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_is_deferred_to_the_end():
    reached = []
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)
        reached.append("after the signal")
    assert reached == ["after the signal"]


def test_a_call_of_user_code_is_ended_and_the_cleaning_up_after_it_is_not():
    reached = []

    def clean_up():
        signal.raise_signal(signal.SIGINT)
        reached.append("cleaned up")

    def user():
        try:
            signal.raise_signal(signal.SIGINT)
            reached.append("not ended")
        finally:
            clean_up()

    with pytest.raises(KeyboardInterrupt), interruptible() as interrupts:
        interrupts.call(user)
    assert reached == ["cleaned up"]


def test_a_call_hands_on_what_came_before_it():
    called = []
    with pytest.raises(KeyboardInterrupt), interruptible() as interrupts:
        signal.raise_signal(signal.SIGINT)
        interrupts.call(called.append, 1)
    assert called == []


def test_a_call_gives_what_the_function_gives():
    assert interruptible().call(lambda a, b: a - b, 5, 3) == 2


def closing(reached):
    signal.raise_signal(signal.SIGINT)
    reached.append("closing was not ended")


def test_once_open_it_is_handed_on_at_once_except_in_the_closing():
    reached = []
    with pytest.raises(KeyboardInterrupt), interruptible() as interrupts:
        interrupts.open_until(closing.__code__)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            reached.append("open")
        closing(reached)
    assert reached == ["open", "open", "closing was not ended"]


def test_opening_hands_on_what_came_before():
    with pytest.raises(KeyboardInterrupt), interruptible() as interrupts:
        signal.raise_signal(signal.SIGINT)
        interrupts.open_until(closing.__code__)
        pytest.fail("the signal was kept")


def test_closed_again_it_is_deferred():
    reached = []
    with pytest.raises(KeyboardInterrupt), interruptible() as interrupts:
        interrupts.open_until(closing.__code__)
        interrupts.close()
        signal.raise_signal(signal.SIGINT)
        reached.append("after the signal")
    assert reached == ["after the signal"]


def test_one_inside_another_hands_on_to_it():
    reached = []
    with pytest.raises(KeyboardInterrupt), interruptible() as outer:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
        reached.append("the inner one hands on to the outer one, which waits")
        outer.check()
    assert len(reached) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
