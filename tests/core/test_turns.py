"""Locks of models and hooks with owners; runs in threads: `tests/laws/test_threads.py`."""

import copy
import gc
import threading

from mechinterp.core.turns import OwnHook, acts_here, lock_of, set_running, this_thread


class Model:
    pass


def in_another_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_a_model_has_one_lock():
    one, other = Model(), Model()
    assert lock_of(one) is lock_of(one)
    assert lock_of(one) is not lock_of(other)
    assert in_another_thread(lambda: lock_of(one)) is lock_of(one)


def test_a_lock_goes_with_its_model():
    from mechinterp.core import turns

    model = Model()
    lock_of(model)
    n = len(turns._LOCKS)
    del model
    gc.collect()
    assert len(turns._LOCKS) < n


def test_the_same_thread_may_take_it_again_and_another_has_to_wait():
    lock = lock_of(Model())

    def take():
        taken = lock.acquire(blocking=False)
        if taken:
            lock.release()
        return taken

    with lock:
        assert take()
        assert not in_another_thread(take)
    assert in_another_thread(take)


def test_a_hook_of_a_thread_acts_there_alone():
    hook = OwnHook(lambda value: value + 1, this_thread())
    assert hook(1) == 2
    assert in_another_thread(lambda: hook(1)) is None
    assert acts_here(hook)
    assert not in_another_thread(lambda: acts_here(hook))
    assert this_thread() is this_thread()
    assert in_another_thread(this_thread) is not this_thread()


def test_a_hook_of_a_pass_acts_while_it_runs():
    owner = object()
    hook = OwnHook(lambda value: value + 1, owner)
    assert hook(1) is None
    before = set_running(owner)
    try:
        assert hook(1) == 2
        assert in_another_thread(lambda: hook(1)) is None
    finally:
        assert set_running(before) is owner
    assert not acts_here(hook)


def test_somebody_elses_hook_acts_and_ours_is_not_copied():
    assert acts_here(lambda: None)
    hook = OwnHook(lambda: None, this_thread())
    assert copy.deepcopy({"a": hook})["a"] is hook
