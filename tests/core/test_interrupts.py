"""`interruptible`: when a signal is handed on. Runs that use it: `tests/laws/test_ctrl_c.py`."""

# ruff: noqa: PT012 - what happens inside the block is what is tested

import ast
import itertools
import signal
import threading
from pathlib import Path

import pytest

import mechinterp
from mechinterp.core.interrupts import holds_signals, interruptible

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


@pytest.fixture
def alarm():
    """A handler of SIGALRM that raises, as one that ends what takes too long."""

    def ring(number, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    yield ring
    signal.signal(signal.SIGALRM, before)


def test_every_signal_waits_and_its_handler_is_back(alarm):
    reached = []
    with pytest.raises(TimeoutError), interruptible() as interrupts:
        signal.raise_signal(signal.SIGALRM)
        reached.append("after the signal")
        interrupts.check()
        reached.append("after the check")
    assert reached == ["after the signal"]
    assert signal.getsignal(signal.SIGALRM) is alarm


def test_two_signals_are_both_passed_on(alarm):
    calls = []
    signal.signal(signal.SIGALRM, lambda number, frame: calls.append(number))
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGALRM)
    assert calls == [signal.SIGALRM]


HANDLED = (signal.SIGINT, signal.SIGALRM)


def handlers():
    return [signal.getsignal(number) for number in HANDLED]


def test_overlapping_contexts_that_end_in_any_order(alarm):
    before = handlers()
    for order in itertools.permutations(range(3)):
        contexts = [interruptible() for _ in order]
        for context in contexts:
            context.__enter__()
            context.open_until(closing.__code__)
        for number, at in enumerate(order):
            assert handlers() != before
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(TimeoutError):
                signal.raise_signal(signal.SIGALRM)
            contexts[at].__exit__()
            assert (handlers() == before) == (number == 2)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_handler_that_the_user_sets_meanwhile_stays():
    calls = []

    def own(number, frame):
        calls.append(number)

    with interruptible() as outer:
        outer.open_until(closing.__code__)
        ours = signal.signal(signal.SIGINT, own)
        with interruptible():
            signal.raise_signal(signal.SIGINT)
            assert calls == []
        assert calls == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is own
    assert signal.getsignal(signal.SIGINT) is own
    signal.signal(signal.SIGINT, ours)  # which the user took for the one before
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_that_calls_the_one_before_it():
    calls = []
    with interruptible() as outer:
        outer.open_until(closing.__code__)
        ours = signal.getsignal(signal.SIGINT)

        def own(number, frame):
            calls.append(number)
            ours(number, frame)

        signal.signal(signal.SIGINT, own)
        with pytest.raises(KeyboardInterrupt), interruptible():
            signal.raise_signal(signal.SIGINT)
        assert calls == [signal.SIGINT]
        signal.signal(signal.SIGINT, ours)


def test_a_context_that_another_thread_ends():
    context = interruptible()
    context.__enter__()
    ending = threading.Thread(target=context.__exit__)
    ending.start()
    ending.join()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with interruptible():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_lock_is_given_back_while_the_users_code_runs():
    lock = threading.RLock()

    def free():
        found = []

        def take():
            found.append(lock.acquire(blocking=False))
            if found[0]:
                lock.release()

        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        return found[0]

    with lock, interruptible(lock) as interrupts:
        assert not free()
        assert interrupts.call(free)


def test_what_a_handler_raises_is_not_taken_for_a_librarys_error(alarm):
    @holds_signals
    def number(text):
        try:
            signal.raise_signal(signal.SIGALRM)
            return int(text)
        except (ValueError, OSError):  # a TimeoutError is an OSError
            return None

    with pytest.raises(TimeoutError):
        number("3")


BROAD = {"Exception", "BaseException", "OSError", "RuntimeError"}
# Below a function that holds them, or a generator, which has no end to pass them on at.
HELD_ABOVE = {"_free_on_the_machine", "_left_of_the_group", "_of_original", "filled_lines"}


def caught(handler):
    """The names of the exceptions that an except clause names."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(kind) for kind in kinds if kind is not None}


def broad_functions(tree, inside=()):
    """The functions that catch what a handler may raise, each with the functions around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield from broad_functions(node, (*inside, node))
            continue
        if isinstance(node, ast.ExceptHandler) and caught(node) & BROAD:
            again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if not again:
                yield inside
        yield from broad_functions(node, inside)


def test_whoever_catches_broadly_holds_signals():
    package = Path(mechinterp.__file__).parent
    for room in ("models", "tasks", "sweeps", "storage", "layers", "engine", "circuits"):
        for file in (package / room).rglob("*.py"):
            for functions in broad_functions(ast.parse(file.read_text())):
                names = {each.name for each in functions}
                marks = {ast.unparse(mark) for each in functions for mark in each.decorator_list}
                held = "holds_signals" in marks or names & (HELD_ABOVE | {"__init__"})
                assert held, f"{file}: {names} may take a signal's TimeoutError for an error"


def test_ctrl_c_does_not_wait_for_what_holds_other_signals(alarm):
    reached = []

    @holds_signals
    def slow():
        signal.raise_signal(signal.SIGALRM)
        reached.append("the alarm waits")
        signal.raise_signal(signal.SIGINT)
        reached.append("Ctrl-C waits too")

    with pytest.raises((KeyboardInterrupt, TimeoutError)):
        slow()
    assert reached == ["the alarm waits"]
    with interruptible() as outer:
        outer.open_until(closing.__code__)
        with pytest.raises((KeyboardInterrupt, TimeoutError)):
            slow()
    assert reached == ["the alarm waits"] * 2
