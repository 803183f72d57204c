"""Line coverage of the suite, its subprocesses too, in all and by room; and what has changed.

Each room's tests are a run of their own: what ends the tracing in a process, as some tests do, can
then lose no more than what follows in its room.

The data go to build/coverage. `--out` writes the figures as JSON, which `--compare` reads: then the
difference is shown in points, and it ends with 1 if the total fell by more than half a point.

    scripts/coverage --out build/coverage/now.json
    scripts/coverage --compare build/coverage/now.json
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import coverage

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "coverage"
BY_THEMSELVES = ("test_no_trace_of_presses.py", "test_signals.py", "test_ctrl_c.py")
"""Tests that press at a moment of their choice, which is another one where lines are traced."""
MOST_LOST = 0.5
"""Points that the total may fall."""

CONFIG = """[run]
source = mechinterp
relative_files = true
parallel = true
patch = subprocess
data_file = {folder}/data

[paths]
source =
    mechinterp
    */mechinterp
"""

Figures = Mapping[str, tuple[int, int]]
"""Room -> lines that ran, and lines."""


def pytest_runtest_setup(item: object) -> None:
    """As a plugin: begin to trace anew, since a test before may have ended it."""
    measuring = coverage.Coverage.current()
    if measuring is not None:
        measuring.stop()
        measuring.start()


def measured(arguments: Sequence[str]) -> int:
    """Run the suite: how pytest ended."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    config = FOLDER / "config"
    config.write_text(CONFIG.format(folder=FOLDER))
    command = ["coverage", "run", f"--rcfile={config}", "-m", "pytest", "-n", "2"]
    command += ["--dist", "loadfile", "-p", Path(__file__).stem, *arguments]
    laws = [ROOT / "tests" / "laws" / name for name in BY_THEMSELVES]
    traced = [*command, *(f"--ignore={file}" for file in laws)]
    rooms = [[*traced, *map(str, tests)] for tests in rooms_of_tests()]
    runs = [traced] if arguments else [*rooms, ["pytest", *laws]]
    found = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": found}
    codes = [
        subprocess.run([sys.executable, "-m", *run], env=environment, check=False).returncode
        for run in runs
    ]
    return next(filter(None, codes), 0)  # a negative one is that of a signal


def rooms_of_tests() -> list[list[Path]]:
    """What each run has: the doctests, the files of `tests`, and each of its folders."""
    tests = ROOT / "tests"
    folders = {file.relative_to(tests).parts[0] for file in tests.rglob("*/test_*.py")}
    files = sorted(tests.glob("test_*.py"))
    return [[ROOT / "mechinterp"], files, *([tests / folder] for folder in sorted(folders))]


def by_room(
    config: Path, data: Sequence[Path], room_of: Callable[[str], str] | None = None
) -> dict[str, tuple[int, int]]:
    """The figures of each room, from data files; the config says where the combined one goes."""
    found = coverage.Coverage(config_file=str(config))
    found.combine([str(file) for file in data], keep=True)
    report = config.with_name("report.json")
    found.json_report(outfile=str(report), ignore_errors=True)
    ran: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for name, file in json.loads(report.read_text())["files"].items():
        room = (room_of or room_of_file)(name)
        ran[room] += file["summary"]["covered_lines"]
        lines[room] += file["summary"]["num_statements"]
    return {room: (ran[room], lines[room]) for room in sorted(lines)}


def room_of_file(name: str) -> str:
    """The folder below the package; that of its own files has no name."""
    parts = Path(name[name.index("mechinterp/") :]).parts
    return parts[1] if len(parts) > 2 else "(its own)"


def total(figures: Figures) -> tuple[int, int]:
    """All rooms together."""
    return sum(ran for ran, _ in figures.values()), sum(lines for _, lines in figures.values())


def share(ran: int, lines: int) -> float:
    """Lines that ran, in percent."""
    return 100 * ran / max(lines, 1)


def table(figures: Figures, before: Figures | None = None) -> str:
    """A line for each room, and one for all."""
    rows = {**figures, "all": total(figures)}
    old = {} if before is None else {**before, "all": total(before)}
    shown = [f"{'room':14}{'lines':>8}{'covered':>10}{'' if before is None else '   points'}"]
    for room, (ran, lines) in rows.items():
        line = f"{room:14}{lines:8,}{share(ran, lines):9.2f}%"
        if room in old:
            line += f"{share(ran, lines) - share(*old[room]):+9.2f}"
        shown.append(line)
    return "\n".join(shown)


def main() -> int:
    """Measure, print, compare; 1 if the suite failed or the total fell."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--compare", type=Path, metavar="FILE.json", help="figures from before")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where to write the figures")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --")
    options = parser.parse_args()
    os.chdir(ROOT)  # names of files are relative to it
    code = measured(options.pytest)
    figures = by_room(FOLDER / "config", sorted(FOLDER.glob("data.*")))
    before = json.loads(options.compare.read_text()) if options.compare else None
    print(table(figures, before))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    if code:
        print(f"the suite ended with {code}")
        return 1
    if before is not None and share(*total(figures)) < share(*total(before)) - MOST_LOST:
        print(f"the total fell by more than {MOST_LOST} points")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
