"""Signals without a trace: while hooks are on a model, signals wait for a safe moment.

Python runs the handler of a signal (Ctrl-C, an alarm, a request to end) between any two bytecodes,
also between adding a hook and noting that it was added. What the handler raises comes up there.
Inside `interruptible()` a signal is only noted. `check()` passes it to the user's handler, at a
moment when the surrounding `finally` blocks will run. While the user's code runs (`call`,
`open_until`), the signal is passed on at once, as the user expects.

    >>> from mechinterp.core.interrupts import interruptible
    >>> with interruptible() as interrupts:
    ...     interrupts.check()

Contexts may overlap and end in any order, as in asyncio tasks and generators. The user's handlers
are back when the last one ends. Python runs handlers in its main thread alone, so a context in
another thread has nothing to do with them.
"""

import functools
import inspect
import os
import signal
import threading
from _thread import RLock
from collections.abc import Callable
from types import CodeType, FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Handler = Callable[[int, FrameType | None], object]

_handler_of = inspect.unwrap(signal.getsignal)  # without a search for its name, ten times faster
_SIGNALS = tuple(int(each) for each in signal.valid_signals())


class interruptible:  # noqa: N801 - used as a context manager, like contextlib's
    """The context: signals wait until `check()`, or until its end.

    `lock`: held around this context, and given back while the user's code runs, so that this code
    may wait for another thread that needs it. `but_ctrl_c`: KeyboardInterrupt does not wait.
    """

    def __init__(self, lock: RLock | None = None, *, but_ctrl_c: bool = False) -> None:
        self._lock = lock
        self._but_ctrl_c = but_ctrl_c
        self._thread: int | None = None
        self._in_user_code = False
        self._closing: CodeType | None = None
        self._taken: dict[int, Handler] = {}  # the user's handlers in whose place ours stands

    def __enter__(self) -> "interruptible":
        if threading.current_thread() is threading.main_thread():
            try:
                self._thread = threading.get_ident()
                _ACTIVE.append(self)
                self._take_handlers()
            except BaseException:  # from a handler that was not taken yet
                self._leave()
                raise
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
        if self._thread is not None:
            self._leave()
            _pass_on_waiting()

    def check(self) -> None:
        """Pass on the signals that came since the last check."""
        if _WAITING and self._thread is not None:
            _pass_on_waiting(self)

    def open_until(self, closing: CodeType) -> None:
        """Pass signals on at once, until the function with this code begins: it cleans up.

        From its first bytecode on, an exception would leave everything as it is: there the signal
        waits. The function calls `close`.
        """
        self._closing = closing
        self.check()

    def close(self) -> None:
        """Let signals wait again."""
        self._in_user_code = False
        self._closing = None

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Call the user's code, which a signal may end at any point."""
        if self._lock is not None:
            self._lock.release()
        try:
            self._in_user_code = True
            self.check()
            return function(*args)
        finally:
            self._in_user_code = False
            if self._lock is not None:
                self._lock.acquire()

    def _is_open(self, number: int, frame: FrameType | None) -> bool:
        if self._in_user_code:
            return True
        if self._but_ctrl_c and _user_handler(number) is signal.default_int_handler:
            return True
        return self._closing is not None and not _runs(self._closing, frame)

    def _take_handlers(self) -> None:
        """Put our handler in the place of each of the user's."""
        for number in _SIGNALS:
            handler = _handler_of(number)
            if not callable(handler):
                continue
            if self._but_ctrl_c and handler is signal.default_int_handler:
                continue
            taken = any(number in each._taken for each in _ACTIVE)
            if handler is not _on_signal:
                if not taken:
                    _BEHIND[number] = handler
                self._taken[number] = handler
                signal.signal(number, _on_signal)
            elif not taken:  # ours was put back after its context had ended
                self._taken[number] = _BEHIND[number]

    def _leave(self) -> None:
        """Give the handlers back, or leave that to a context that began later and goes on."""
        first: BaseException | None = None
        for _ in range(100):  # a handler that is back may raise: the others have to follow it
            try:
                self._give_back()
                break
            except BaseException as error:
                first = first or error
        if first is not None:
            raise first

    def _give_back(self) -> None:
        if self in _ACTIVE:
            later = _ACTIVE[_ACTIVE.index(self) + 1 :]
            if later:
                later[0]._taken = {**self._taken, **later[0]._taken}
                self._taken = {}
            _ACTIVE.remove(self)
        self._thread = None
        if threading.current_thread() is threading.main_thread():
            while self._taken:
                number = next(iter(self._taken))
                if _handler_of(number) is _on_signal:  # not if the user set another one meanwhile
                    signal.signal(number, self._taken[number])
                del self._taken[number]


def holds_signals(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which signals do not end: for those that catch what a library raises.

    What a signal's handler raises, such as a TimeoutError, must not be taken for the library's. A
    KeyboardInterrupt, which nobody takes for an error, does not wait.
    """

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with interruptible(but_ctrl_c=True):
            return function(*args, **kwargs)

    return inside


_ACTIVE: list[interruptible] = []
"""The contexts that are on, in the order in which they began."""
_WAITING: list[int] = []
"""The signals that were noted."""
_BEHIND: dict[int, Handler] = {}
"""The user's handler behind ours, which may be called when no context is on any more."""
_PASSING: list[int] = []
"""The signals whose handlers run now, and may call the ones before them."""


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Our handler: note the signal, or pass it on if all contexts are open to it."""
    if number in _PASSING:  # a second one, or the user's handler calls the one before it
        if _PASSING.count(number) < 3:
            _call_handler(number, frame)
        return
    if number not in _WAITING:
        _WAITING.append(number)
    _pass_on_waiting(frame=frame)


def _pass_on_waiting(safe: interruptible | None = None, frame: FrameType | None = None) -> None:
    """Call the handlers of the signals that wait, unless a context other than `safe` is shut."""
    while (number := _next_to_pass_on(safe, frame)) is not None:
        _WAITING.remove(number)
        # Another signal must not interrupt the clean-up after this one.
        ended = [each for each in _ACTIVE if each._in_user_code]
        for each in ended:
            each._in_user_code = False
        try:
            _call_handler(number, frame or inspect.currentframe())
        except BaseException:
            if not _ACTIVE:  # nobody would pass on the others
                _pass_on_waiting(frame=frame)
            raise
        for each in ended:
            each._in_user_code = True


def _next_to_pass_on(safe: interruptible | None, frame: FrameType | None) -> int | None:
    for number in _WAITING:
        if all(each is safe or each._is_open(number, frame) for each in _ACTIVE):
            return number
    return None


def _call_handler(number: int, frame: FrameType | None) -> None:
    handler = _user_handler(number)
    try:  # around the note too: a second signal may come right after it
        _PASSING.append(number)
        handler(number, frame)
    finally:
        _PASSING.remove(number)


def _user_handler(number: int) -> Handler:
    """The user's handler of a signal; within it, the one before it."""
    now = _handler_of(number)
    if callable(now) and now is not _on_signal and number not in _PASSING:
        set_by_user: Handler = now
        return set_by_user
    taken = [each._taken[number] for each in reversed(_ACTIVE) if number in each._taken]
    before = _PASSING.count(number)
    return taken[before] if before < len(taken) else _BEHIND[number]


def _runs(code: CodeType, frame: FrameType | None) -> bool:
    """True if a function with this code is on the stack."""
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _forget_other_threads() -> None:
    """In a forked process: contexts of threads that are gone will not end."""
    for each in list(_ACTIVE):
        if each._thread != threading.get_ident():
            each._leave()


os.register_at_fork(after_in_child=_forget_other_threads)
