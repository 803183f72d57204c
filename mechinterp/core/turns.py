"""Several threads on one model: they take turns, and each sees its own hooks alone.

A model has one lock. A pass of ours holds it, and gives it back between passes and while the user's
code runs. A hook of ours (`OwnHook`) does something only in the pass, or in the thread, that put it
on the model: for all others the model is as if it were not there.

>>> from mechinterp.core.turns import lock_of
>>> class Model: pass
>>> model = Model()
>>> with lock_of(model), lock_of(model):  # the same thread may take it again
...     lock_of(model) is lock_of(model)
True
"""

import os
import threading
from _thread import RLock
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
R = TypeVar("R")


def lock_of(model: object) -> RLock:
    """The model's lock. Use it in a `with` alone: Python enters and leaves it as one step."""
    lock = _LOCKS.get(model)
    if lock is None:
        with _MAKING:
            lock = _LOCKS.setdefault(model, RLock())
    return lock


_LOCKS: "WeakKeyDictionary[object, RLock]" = WeakKeyDictionary()
_MAKING = RLock()


class _Here(threading.local):
    """What is peculiar to this thread: an object that stands for it, and the pass that runs."""

    def __init__(self) -> None:
        self.thread = object()
        self.running: object = None


_HERE = _Here()


def this_thread() -> object:
    """An owner of hooks: they act in this thread. A later thread is another one."""
    return _HERE.thread


class OwnHook(Generic[P, R]):
    """A hook that acts for its owner alone: `this_thread()`, or the owner given to `running`."""

    __slots__ = ("_function", "_owner")

    def __init__(self, function: Callable[P, R], owner: object) -> None:
        self._function = function
        self._owner = owner

    @property
    def acts(self) -> bool:
        """True if the hook would do something here and now."""
        return self._owner is _HERE.running or self._owner is _HERE.thread

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
        if self._owner is _HERE.running or self._owner is _HERE.thread:
            return self._function(*args, **kwargs)
        return None

    def __deepcopy__(self, memo: object) -> "OwnHook[P, R]":
        return self


def acts_here(hook: object) -> bool:
    """True unless the hook is one of ours that belongs to another thread or pass."""
    return not isinstance(hook, OwnHook) or hook.acts


def set_running(owner: object) -> object:
    """Let the hooks of this owner act in this thread; the owner before it, to be set again."""
    before, _HERE.running = _HERE.running, owner
    return before


def _unlock_all() -> None:
    """In a forked process: the threads that held the locks are gone."""
    global _MAKING
    _MAKING = RLock()
    _LOCKS.clear()


os.register_at_fork(after_in_child=_unlock_all)
