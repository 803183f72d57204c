"""Whether two things are the same in another process."""

import copy
import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mechinterp import HookError, Prompts, Site, patch, read, run
from mechinterp.storage.digest import digest

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
        "print(digest([zero(Site('z', 1)), logit_diff(3, 1), {'a': {1, 2, 'b'}}, torch.ones(3)]))"
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
