"""Whether two things are the same in another process."""

import collections
import copy
import datetime
import functools
import importlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from mechinterp import HookError, Prompts, Site, edit, log_prob, patch, read, run, sweep
from mechinterp.storage import function_reads
from mechinterp.storage.digest import digest
from mechinterp.storage.function_reads import version_of

HERE = Path(__file__).parents[1]


def prompts():
    return Prompts.from_ids([[3, 1, 4, 1, 5], [5, 9, 2]])


def test_what_functions_close_over_counts():
    def factor(n):
        return lambda value: value * n

    def added(n):
        return lambda value: value + n

    assert digest(factor(2)) == digest(factor(2))
    assert digest(factor(torch.ones(2))) == digest(factor(torch.ones(2)))
    different = [factor(2), factor(3), factor(torch.ones(2)), factor(torch.zeros(2)), added(2)]
    different += [factor(torch.ones(2).double()), factor(np.ones(2)), factor([2]), factor({"a": 2})]
    assert len({digest(f) for f in different}) == len(different)


@pytest.mark.slow
def test_digests_are_those_of_another_process():
    program = (
        "from mechinterp import *; from mechinterp.storage.digest import digest; import torch\n"
        "from mechinterp.core.arguments import checks_arguments; import os\n"
        "@checks_arguments\n"
        "def twice(value: int) -> int:\n"
        "    return value * 2\n"
        "if os.environ['PYTHONHASHSEED'] == '1':\n"
        "    twice(1)  # what a check keeps from its first call on is no part of a function\n"
        "print(digest([zero(Site('z', 1)), logit_diff(3, 1), {'a': {1, 2, 'b'}}, torch.ones(3)]))\n"
        "print(digest(twice))"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1


def test_what_an_object_has_looked_up_is_not_part_of_it():
    before = digest(Looks(3))
    looked = Looks(3)
    assert (looked.twice, digest(looked)) == (6, before)
    assert digest(Looks(4)) != before


class Looks:
    """Something with a derived value that is kept."""

    def __init__(self, number):
        self.number = number

    @functools.cached_property
    def twice(self):
        return 2 * self.number


def test_acts_and_objects_that_hold_themselves_have_digests(absolute_model):
    acts = run(absolute_model, prompts(), read(Site("z", 1))).acts
    other = run(absolute_model, prompts(), read(Site("z", 2))).acts
    first, second = patch(Site("z", 1), acts), patch(Site("z", 1), other, Site("z", 2))
    assert digest(first) == digest(patch(Site("z", 1), acts)) != digest(second)
    loop = []
    loop.append(loop)
    assert digest(loop)
    assert issubclass(HookError, RuntimeError)


class Times:
    """An edit that is an object."""

    def __call__(self, value, at):
        return value * 2


def test_what_an_object_does_counts_beside_what_it_holds(monkeypatch):
    before = digest(Times())
    assert digest(Times()) == before
    monkeypatch.setattr(Times, "__call__", lambda self, value, at: value * -3)
    assert digest(Times()) != before


def test_what_is_bound_or_set_on_a_function_counts():
    one, other = torch.ones(2), torch.zeros(2)
    assert digest(one.add) == digest(torch.ones(2).add) != digest(other.add)
    probes = [torch.nn.Linear(2, 1) for _ in range(2)]
    assert digest(probes[0]) == digest(copy.deepcopy(probes[0])) != digest(probes[1])

    def made(k):
        def edit_by(value, at):
            return value * edit_by.k

        edit_by.k = k
        return edit_by

    assert digest(made(2)) == digest(made(2)) != digest(made(3))
    assert digest(lambda *a: a) != digest(lambda a: a)


# F5: what a function reads by name

FACTOR = 2.0
LOCK = threading.Lock()


def scaled(value):
    return value * FACTOR


def an_edit(value, at):
    return scaled(value) + np.pi * torch.ones(1)


class Scale:
    """A class whose attribute and method are read."""

    by = 3

    def __call__(self, value, at):
        return scaled(value) * self.by


@functools.lru_cache
def kept(value):
    return scaled(value)


@torch.no_grad()
def without_gradients(value, at):
    return scaled(value)


@pytest.mark.parametrize(
    ("name", "value"), [("FACTOR", 3.0), ("scaled", lambda value: value + 1), ("FACTOR", None)]
)
def test_globals_and_helpers_count(monkeypatch, name, value):
    """With the same digest after either changed, `out=` gave the old numbers."""
    readers = [an_edit, Scale(), kept, without_gradients, lambda value, at: kept(value)]
    before = list(map(digest, readers))
    assert before == list(map(digest, readers))
    monkeypatch.setattr(sys.modules[__name__], name, value)
    assert not set(before) & set(map(digest, readers))


def test_what_a_class_holds_counts(monkeypatch):
    before = digest(Scale())
    monkeypatch.setattr(Scale, "by", 4)
    assert digest(Scale()) != before


def test_modules_of_the_user_count_by_what_is_read(tmp_path, monkeypatch, refuses):
    (tmp_path / "of_the_user.py").write_text(
        "import threading\nBY = 2\nLOCK = threading.Lock()\ndef scale(x): return x * BY\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("of_the_user")

    def outside(value, at):
        return module.scale(value)

    def inside(value, at):
        from of_the_user import scale

        return scale(value)

    monkeypatch.setitem(globals(), "of_the_user", module)
    read = eval("lambda value, at: of_the_user.scale(value)", globals())
    before = digest(read), digest(inside)
    monkeypatch.setattr(module, "BY", 3)
    assert digest(read) != before[0]
    assert digest(inside) != before[1]
    refuses(lambda: digest(outside), "the module 'of_the_user' holds 'LOCK'", "nothing by which")


def test_modules_of_packages_count_by_version(monkeypatch):
    before = digest(an_edit)
    monkeypatch.setattr(np, "pi", 3.0)
    assert digest(an_edit) == before
    version_of.cache_clear()
    monkeypatch.setattr(np, "__version__", "0.0")
    monkeypatch.setattr(function_reads, "package_version", lambda package: "0.0")
    try:
        assert digest(an_edit) != before
    finally:
        version_of.cache_clear()


def test_what_cannot_be_told_is_refused_by_name(refuses):
    refuses(
        lambda: digest(lambda value, at: LOCK.acquire() * value),
        "the function 'test_what_cannot_be_told_is_refused_by_name.<locals>",
        "reads 'LOCK'",
        "nothing by which another process",
    )
    refuses(lambda: digest(lambda value, at: eval("FACTOR") * value), "reads 'eval'", "Write them")
    refuses(lambda: digest(lambda value, at: globals()["FACTOR"]), "reads 'globals'")
    refuses(
        lambda: digest(lambda value, at: importlib.import_module("a").b), "importlib.import_module"
    )


def test_a_global_that_is_changed_makes_another_sweep(absolute_model, tmp_path, monkeypatch):
    """F5 as it was met: the old numbers came back."""

    def swept():
        arm = {"layer": [0]}, lambda layer: edit(Site("z", layer), an_edit)
        return sweep(absolute_model, prompts(), *arm, log_prob(3), out=tmp_path)

    swept()
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 5.0)
    with pytest.raises(ValueError, match="holds another sweep: the specs"):
        swept()


def test_objects_of_packages_and_subclasses_count_whole():
    class Degrees(float):
        pass

    linear, same = torch.nn.LayerNorm(2, eps=1e-5), torch.nn.LayerNorm(2, eps=1e-3)
    pairs = [
        (re.compile("a"), re.compile("b")),
        (datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)),
        (collections.deque([1]), collections.deque([2])),
        (Degrees(1), Degrees(2)),
        (xr.DataArray([1.0]), xr.DataArray([2.0])),
        (prompts(), Prompts.from_ids([[1]])),
        (np.random.default_rng(0), np.random.default_rng(1)),
        (functools.partial(scaled, 1), functools.partial(scaled, 2)),
        (linear, same),
    ]
    for one, other in pairs:
        assert digest(one) == digest(copy.deepcopy(one)) != digest(other)
