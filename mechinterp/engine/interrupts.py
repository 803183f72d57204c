"""Ctrl-C without a trace: while hooks are on a model, SIGINT waits for a safe moment.

Python raises KeyboardInterrupt between any two bytecodes, also between adding a hook and noting
that it was added. Inside `interruptible()` the signal is only noted. `check()` passes it to the
previous handler, at a moment when the surrounding `finally` blocks will run. While the user's code
runs (`call`, `open_until`), the signal is passed on at once, as the user expects.

    >>> from mechinterp.engine.interrupts import interruptible
    >>> with interruptible() as interrupts:
    ...     interrupts.check()
"""

import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import TypeVar

T = TypeVar("T")


class interruptible:  # noqa: N801 - used as a context manager, like contextlib's
    """The context: SIGINT is deferred until `check()`, or until its end."""

    def __init__(self) -> None:
        self._before: Callable[[int, FrameType | None], object] | None = None
        self._pending = False
        self._in_user_code = False
        self._closing: CodeType | None = None

    def __enter__(self) -> "interruptible":
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(before):
            self._before = before
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self.check()

    def check(self) -> None:
        """Pass on a SIGINT that came since the last check."""
        if self._pending and self._before is not None:
            self._pending = False
            self._before(signal.SIGINT, None)

    def open_until(self, closing: CodeType) -> None:
        """Pass SIGINT on at once, until the function with this code begins: the one that cleans up.

        From its first bytecode on, an exception would leave everything as it is: there the signal
        waits. The function calls `close`.
        """
        self._closing = closing
        self.check()

    def close(self) -> None:
        """Defer SIGINT again."""
        self._in_user_code = False
        self._closing = None

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Call the user's code, which Ctrl-C may end at any point."""
        self._in_user_code = True
        try:
            self.check()
            return function(*args)
        finally:
            self._in_user_code = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._pending = True
        if self._in_user_code:
            self._in_user_code = False  # a second one must not interrupt the clean-up
            self.check()
        elif self._closing is not None and not _runs(self._closing, frame):
            self.check()


def _runs(code: CodeType, frame: FrameType | None) -> bool:
    """True if a function with this code is on the stack."""
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None
