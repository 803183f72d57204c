"""Figures of coverage by room, and their comparison. (It runs no suite.)"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def line_coverage():
    file = ROOT / "scripts" / "line_coverage.py"
    spec = importlib.util.spec_from_file_location("line_coverage", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_file_is_in_the_room_of_its_first_folder(line_coverage):
    assert line_coverage.room_of_file("mechinterp/circuits/scores/eap.py") == "circuits"
    assert line_coverage.room_of_file("/x/mechinterp/core/sites.py") == "core"
    assert line_coverage.room_of_file("mechinterp/__init__.py") == "(its own)"


def test_differences_are_in_points(line_coverage):
    shown = line_coverage.table({"core": [9, 10], "new": [5, 10]}, {"core": [8, 10]})
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[1:]}
    assert rows["core"] == ["10", "90.00%", "+10.00"]
    assert rows["new"] == ["10", "50.00%"]
    assert rows["all"] == ["20", "70.00%", "-10.00"]


def test_lines_of_subprocesses_and_of_other_folders_are_counted(
    line_coverage, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mechinterp" / "core").mkdir(parents=True)
    (tmp_path / "mechinterp" / "__init__.py").touch()
    (tmp_path / "mechinterp" / "core" / "__init__.py").touch()
    (tmp_path / "mechinterp" / "core" / "one.py").write_text(
        "a = 1\nif a:\n    b = 2\nelse:\n    c"
    )
    (tmp_path / "config").write_text(line_coverage.CONFIG.format(folder=tmp_path))
    code = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'mechinterp.core.one'])"
    (tmp_path / "starts_another.py").write_text(code)
    config = f"--rcfile={tmp_path / 'config'}"
    command = [sys.executable, "-m", "coverage", "run", config, tmp_path / "starts_another.py"]
    subprocess.run(command, cwd=tmp_path, check=True, env={"PYTHONPATH": str(tmp_path)})
    data = list(tmp_path.glob("data.*"))
    figures = line_coverage.by_room(tmp_path / "config", data)
    assert figures["core"] == (3, 4)
