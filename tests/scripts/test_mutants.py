"""The list of planted faults fits the code, and a fault is told from none. (It runs no mutant.)"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def faults():
    spec = importlib.util.spec_from_file_location("faults", ROOT / "scripts" / "faults.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


def test_every_fault_fits_its_file(faults):
    assert faults.misfits(faults.read_faults()) == []


def test_there_are_enough_faults_in_each_room(faults):
    rooms = [fault.file.split("/")[0] for fault in faults.read_faults()]
    assert len(rooms) >= 60
    for room in ("engine", "sweeps", "circuits", "attribution"):
        assert rooms.count(room) >= 12, room


def test_every_fault_changes_something_else(faults):
    listed = faults.read_faults()
    assert all(fault.old != fault.new for fault in listed)
    assert len({(fault.file, fault.old, fault.new) for fault in listed}) == len(listed)


def test_likely_tests_are_there(faults):
    for fault in faults.read_faults():
        for name in fault.tests:
            assert (ROOT / "tests" / name).exists(), f"{fault.file}: {name}"
        for stage in faults.stages(fault):
            assert all((ROOT / path).exists() for path in stage.tests)


def test_a_fault_that_does_not_fit_is_named(faults, tmp_path):
    (tmp_path / "file.py").write_text("a = 1\nb = 1\n")
    twice = faults.Fault("file.py", "a number", "1", "2")
    gone = faults.Fault("file.py", "a number", "3", "2")
    broken = faults.Fault("file.py", "no Python", "a = 1", "a =")
    good = faults.Fault("file.py", "a number", "a = 1", "a = 2")
    wrong = faults.misfits([twice, gone, broken, good], tmp_path)
    assert [re.search(r"\d times|no Python", each)[0] for each in wrong] == [
        "2 times",
        "0 times",
        "no Python",
    ]
    assert good.planted("a = 1\nb = 1\n") == "a = 2\nb = 1\n"


def test_the_list_is_printed(faults):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "mutants.py", "--list", "--only", "core/metrics"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines
    assert all(line.startswith("core/metrics.py: ") for line in lines)
