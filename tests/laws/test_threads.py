"""Threads never mix interventions: on one model each gets the numbers that it gets alone."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from mechinterp import (
    HookError,
    Pair,
    Prompts,
    Site,
    edit,
    hooked,
    load_model,
    log_prob,
    read,
    run,
    sweep,
    zero,
)
from mechinterp.circuits import Contrast, eap, exact_edges
from mechinterp.engine import site_gradients
from mechinterp.models import has_foreign_hooks

CLEAN, CORRUPT = [[3, 1, 4, 1], [6, 5, 3, 5]], [[3, 1, 7, 1], [6, 5, 8, 5]]
GREEDY = {"max_new_tokens": 3, "do_sample": False, "stop_at_eos": False, "verbose": False}


def in_threads(functions, times=1):
    """What each function gives in its own thread, again and again, all at once."""
    begin = threading.Barrier(len(functions))

    def again(function):
        begin.wait(10)
        return [function() for _ in range(times)]

    with ThreadPoolExecutor(len(functions)) as threads:
        futures = [threads.submit(again, function) for function in functions]
        return [future.result(60) for future in futures]


def check_as_alone(functions, times):
    alone = [function() for function in functions]
    for found, right in zip(in_threads(functions, times), alone, strict=True):
        for one in found:
            np.testing.assert_array_equal(np.asarray(one), np.asarray(right))


def test_runs_of_three_heads():
    model = load_model("toy:induction")

    def zeroed(head):
        return run(model, "c k e c", zero(Site("z", 1, head=head))).logits

    check_as_alone([lambda head=head: zeroed(head) for head in range(3)], 20)


def test_every_way_to_run_a_model(absolute_model, snapshot):
    model, before = absolute_model, snapshot(absolute_model)
    clean, corrupt = Prompts.from_ids(CLEAN), Prompts.from_ids(CORRUPT)

    def heads(layer):
        arms = {"head": range(3)}
        return sweep(
            model,
            clean,
            arms,
            lambda head: zero(Site("z", layer, head)),
            log_prob(3),
            exact="naive",
        ).values

    def in_a_context(head):
        with hooked(model, zero(Site("z", 1, head))) as same:
            return same.generate(clean.tokens, **GREEDY)

    def gradient():
        specs = zero(Site("z", 0, 1))
        return site_gradients(model, clean, [Site("z", 1)], log_prob(3), specs)[Site("z", 1)]

    def edges():
        contrast = Contrast.from_pair(model, Pair(clean, corrupt), log_prob(3))
        return np.stack([eap(contrast).mean, exact_edges(contrast).mean])

    ways = [lambda: heads(1), lambda: heads(2), lambda: in_a_context(2), gradient, edges]
    check_as_alone(ways, 3)
    before.check()


def test_other_threads_do_not_see_a_context(absolute_model):
    model, prompts = absolute_model, Prompts.from_ids(CLEAN)
    plain = run(model, prompts).logits
    with hooked(model, zero(Site("z", 1))) as same, ThreadPoolExecutor(1) as other:
        ours = run(model, prompts).logits
        assert not torch.equal(ours, plain)
        assert torch.equal(other.submit(lambda: run(model, prompts).logits).result(20), plain)
        logits = other.submit(lambda: same(prompts.tokens)[:, -1:]).result(20)
        torch.testing.assert_close(logits, plain)
        assert has_foreign_hooks(model)
        assert not other.submit(has_foreign_hooks, model).result(20)
    assert not has_foreign_hooks(model)


def test_a_context_that_only_another_thread_ran_in_says_so(absolute_model, refuses):
    def elsewhere():
        with hooked(absolute_model, zero(Site("z", 1))) as same, ThreadPoolExecutor(1) as other:
            other.submit(same, torch.tensor(CLEAN)).result(20)

    refuses(elsewhere, "zero L1.z never ran", "by the thread that entered it", kind=HookError)


def test_an_edit_may_run_the_same_model_and_wait_for_other_threads(absolute_model):
    model, prompts = absolute_model, Prompts.from_ids(CLEAN)
    site = Site("resid_pre", 1)
    plain = run(model, prompts, read(site))
    found = []

    def again(value, at):
        with ThreadPoolExecutor(1) as other:
            found.append(other.submit(run, model, prompts).result(20).logits)
        found.append(run(model, prompts).logits)
        found.append(model(prompts.tokens)[:, -1:])
        return value

    done = run(model, prompts, edit(site, again) + read(site))
    for logits in (*found, done.logits):
        torch.testing.assert_close(logits, plain.logits)
    assert len(found) == 3


def test_threads_take_turns(absolute_model):
    prompts, ended, between = Prompts.from_ids(CLEAN), threading.Event(), []

    def long():
        while not ended.is_set():
            run(absolute_model, prompts)

    others = [threading.Thread(target=long) for _ in range(2)]
    for other in others:
        other.start()
    began = time.perf_counter()
    for _ in range(5):
        between.append(run(absolute_model, prompts).logits)
    ended.set()
    for other in others:
        other.join()
    assert time.perf_counter() - began < 30
    assert all(torch.equal(between[0], logits) for logits in between)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads, which is tested
def test_a_process_that_is_forked_during_a_pass_of_another_thread(absolute_model):
    prompts, inside, go_on = Prompts.from_ids(CLEAN), threading.Event(), threading.Event()
    right = run(absolute_model, prompts).logits

    def wait(value, at):
        return value

    def watch(module, args, value):
        inside.set()
        go_on.wait(20)

    handle = absolute_model.blocks[1].attn.hook_z.register_forward_hook(watch)
    other = threading.Thread(target=run, args=(absolute_model, prompts, edit(Site("z", 0), wait)))
    other.start()
    inside.wait(20)  # the other thread holds the model's lock
    process = os.fork()
    if process == 0:
        handle.remove()
        fine = torch.equal(run(absolute_model, prompts).logits, right)
        os._exit(0 if fine else 1)
    began = time.perf_counter()
    while not (ended := os.waitpid(process, os.WNOHANG))[0] and time.perf_counter() < began + 20:
        time.sleep(0.01)
    if not ended[0]:
        os.kill(process, 9)
        os.waitpid(process, 0)
    go_on.set()
    other.join()
    handle.remove()
    assert ended[0] == process
    assert os.waitstatus_to_exitcode(ended[1]) == 0
