"""The bytes that are planned are those that are taken; and a sweep keeps to them."""

import copy
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from torch.profiler import ProfilerActivity, profile

from mechinterp import (
    Prompts,
    Site,
    edit,
    log_prob,
    logit_diff,
    patch,
    read,
    run,
    scale,
    sweep,
    zero,
)
from mechinterp.models.hook_points import axis_size
from mechinterp.sweeps.pass_memory import Footprint, PassShape

ACTS = ("resid_pre", "z", "q", "v", "pattern", "attn_out", "resid_post")


def taken(call):
    """What a call gives, and the most bytes that were alive at once in it, as torch allocated."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        result = call()
    events, waiting = [], list(profiled.profiler.kineto_results.experimental_event_tree())
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.name == "[memory]":
            fields = event.typed[1]
            events.append((event.start_time_ns, fields.ptr, fields.alloc_size))
    alive, peak, known = 0, 0, {}
    for _, pointer, size in sorted(events):
        if size > 0:
            known[pointer] = size
            alive += size
        else:
            alive -= known.pop(pointer, 0)
        peak = max(peak, alive)
    return result, peak


def drawn(model, chance):
    """A sweep at random: its prompts, what it ranges over, its arms and its metric."""
    n_prompts, width = chance.choice([1, 2, 5]), chance.randint(8, 15)
    ids = [[chance.randrange(30) for _ in range(width)] for _ in range(n_prompts)]
    prompts = Prompts.from_ids(ids)
    acts = [act for act in ACTS if Site(act, 0).hook in model.hook_dict]
    act = chance.choice(acts)
    over = {"layer": range(model.cfg.n_layers)}
    if "head" in Site(act, 0).axes and chance.random() < 0.8:
        over["head"] = range(axis_size(model, act, "head"))
    if chance.random() < 0.6:
        over["pos"] = range(0, width, chance.choice([1, 2]))
    source = run(model, prompts, read(*(Site(act, n) for n in range(model.cfg.n_layers)))).acts
    makers = [zero, lambda site: scale(site, 0.5), lambda site: patch(site, source)]
    maker = chance.choice(makers)

    def arm(layer, head=None, pos=None):
        return maker(Site(act, layer, head, pos))

    return prompts, over, arm, chance.choice([log_prob(3), logit_diff(3, 5)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_the_planned_bytes_are_those_that_are_taken(model, seed):
    prompts, over, arm, metric = drawn(model, random.Random(seed))
    sweep(model, prompts, over, arm, metric)  # what is found once for a model is found now
    budget = random.Random(seed).choice([None, 300_000, 1_000_000])
    swept, peak = taken(lambda: sweep(model, prompts, over, arm, metric, budget_bytes=budget))
    assert swept.attrs["peak_bytes_planned"] == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("specs", [edit(Site("logits"), lambda value, at: value * 2), ()])
def test_a_whole_pass_with_all_logits(model, specs):
    prompts = Prompts.from_ids([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]] * 4)

    def swept():
        return sweep(model, prompts, {"i": [0]}, lambda i: specs, log_prob(3), exact="naive")

    swept()
    found, peak = taken(swept)
    assert found.attrs["peak_bytes_planned"] == pytest.approx(peak, rel=0.15)


def test_a_layer_that_cannot_run_without_data_is_estimated(absolute_model, monkeypatch, caplog):
    model = copy.deepcopy(absolute_model)
    batch = PassShape(4, 8, 2, 1, 2, 1)
    counted = Footprint(model).peak_bytes(batch)

    def looks(*given, **named):
        raise NotImplementedError("Cannot copy out of meta tensor; no data!")

    footprint = Footprint(model)
    monkeypatch.setattr(footprint._layer, "forward", looks)
    with caplog.at_level("INFO"):
        assert counted / 2 < footprint.peak_bytes(batch, [Site("z", 1)]) < 4 * counted
    assert "estimated, not counted: Cannot copy" in caplog.text


def test_more_rows_and_positions_take_more(absolute_model):
    footprint = Footprint.from_model(absolute_model)
    assert footprint is Footprint.from_model(absolute_model)

    def peak(rows, width, first=0, edited=()):
        return footprint.peak_bytes(PassShape(rows, width, first, 1, 2, 1), edited)

    assert peak(1, 8) < peak(2, 8) < peak(2, 9)
    assert peak(2, 9, first=4) < peak(2, 9)
    assert peak(2, 9) < peak(2, 9, edited=[Site("resid_pre", 1)])


@pytest.mark.slow
def test_a_sweep_keeps_to_the_memory_that_a_process_may_have():
    program = Path(__file__).parents[1] / "laws" / "small_memory.py"
    done = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(program.parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    passes, planned, too_much = done.stdout.split()
    assert int(passes) > 3
    assert int(planned) < 200 << 20
    assert too_much == "RuntimeError"
