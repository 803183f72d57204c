"""Ctrl-C without a trace: while hooks are on a model, SIGINT waits for a safe moment.

Python raises KeyboardInterrupt between any two bytecodes, also between adding a hook and noting
that it was added. Inside `interruptible()` the signal is only noted; `check()` hands it to
whoever handled it before, at a moment when the `finally` blocks around will run. While code of
the user runs (`call`, `open_until`), it is handed on at once, as the user expects.

    >>> from mechinterp.engine.interrupts import interruptible
    >>> with interruptible() as interrupts:
    ...     interrupts.check()
"""

import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class interruptible:  # noqa: N801 - used as a context manager, like contextlib's
    """The context: SIGINT is deferred until `check()`, or until its end."""

    def __init__(self) -> None:
        self._before: Callable[[int, FrameType | None], Any] | None = None
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
        """Hand on a SIGINT that came since the last check."""
        if self._pending and self._before is not None:
            self._pending = False
            self._before(signal.SIGINT, None)

    def open_until(self, closing: CodeType) -> None:
        """Hand SIGINT on at once, until a function with this code begins: the one that cleans up.

        At its first bytecode an exception would leave everything as it is. It calls `close`.
        """
        self._closing = closing
        self.check()

    def close(self) -> None:
        """Defer SIGINT again."""
        self._in_user_code = False
        self._closing = None

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call code of the user's, which Ctrl-C may end at any point."""
        self._in_user_code = True
        try:
            self.check()
            return function(*args)
        finally:
            self._in_user_code = False

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._pending = True
        if self._in_user_code:
            self._in_user_code = False  # a second one must not cut short the cleaning up
            self.check()
        elif self._closing is not None and not _runs(self._closing, frame):
            self.check()


def _runs(code: CodeType, frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None
