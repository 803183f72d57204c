"""Small faults, planted one at a time in a copy of the package: does a quick test catch each?

The faults stand in scripts/planted_faults/. For each a child process with a copy of its own runs
the tests that mirror the changed file; if these pass, those of its room and the laws; then the same
as `scripts/test` runs them, on all architectures; and then all quick ones. It ends with the first
failure. What the libraries take to import is paid once: children are forked from a process that has
imported them, though nothing of mechinterp. At the end the tests that failed are run in a copy
without a fault, where they have to pass.

    scripts/mutants --jobs 2 --check
"""

import argparse
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from faults import ROOT, Fault, Stage, misfits, read_faults, stages

LIBRARIES = (
    *("torch", "transformers", "transformer_lens", "pytest", "hypothesis", "jaxtyping", "beartype"),
    *("numpy", "scipy.stats", "sklearn.linear_model", "sklearn.model_selection", "xarray"),
    *("pyarrow.parquet", "rich.console", "tyro", "jinja2", "safetensors.numpy", "einops"),
)
ONE_TEST, ONE_STAGE = 300, 3600
"""Seconds after which a test, or a child, is taken to hang."""


@dataclass(frozen=True)
class Outcome:
    """How a fault fared. `by`: the test that caught it, None if none did; `why`: how it failed.

    `speed`: of the suite in which it was caught.
    """

    by: str | None
    why: str
    speed: str
    seconds: float


class FirstFailure:
    """A plugin of pytest: which test failed first, and how."""

    found: tuple[str, str] | None = None

    def pytest_runtest_logreport(self, report) -> None:
        """Note a test that failed."""
        self._note(report)

    def pytest_collectreport(self, report) -> None:
        """Note a file that could not be collected."""
        self._note(report)

    def _note(self, report) -> None:
        if report.failed and self.found is None:
            text = str(report.longrepr).strip().splitlines()
            errors = [line for line in text if line.startswith("E ")] or text[-1:] or [""]
            self.found = report.nodeid, errors[0].removeprefix("E ").strip()


def child(tree: Path, stage: Stage, into: Path, extra: Sequence[str] = ()) -> int:
    """Start pytest in a fork, in a copy of the repository: the process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = os.open(into.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree)
        os.environ["MECHINTERP_TESTS"] = stage.speed
        sys.path.insert(0, str(tree))
        import pytest

        plugin = FirstFailure()
        options = ["-x", "-q", "-p", "no:cacheprovider", f"--timeout={ONE_TEST}", *extra]
        options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
        code = pytest.main([*options, *stage.options], plugins=[plugin])
        into.write_text(json.dumps({"code": int(code), "found": plugin.found}))
    except BaseException as error:
        into.write_text(json.dumps({"code": 3, "found": None}))
        os.write(2, repr(error).encode())
    finally:
        os._exit(0)


def do_not_shrink() -> None:
    """The first example that fails is enough: hypothesis looks for no simpler one."""
    from hypothesis.internal.conjecture.engine import ConjectureRunner

    ConjectureRunner.shrink_interesting_examples = lambda self: None


def ended(pid: int) -> bool:
    """Whether a child is over."""
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def kill(pid: int) -> None:
    """End a child and all that it started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def wait(pid: int, seconds: float) -> bool:
    """Wait for a child: false if it had to be killed."""
    end = time.monotonic() + seconds
    while not ended(pid):
        if time.monotonic() > end:
            kill(pid)
            return False
        time.sleep(0.05)
    return True


def copied(into: Path) -> None:
    """The files that git knows, as they are."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, names.split("\0")):
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, into / name)
    (into / ".venv").symlink_to((ROOT / ".venv").resolve())


def with_fault(fault: Fault, base: Path, into: Path) -> None:
    """A tree of links to another one's files, but for the file with the fault."""
    shutil.copytree(base, into, symlinks=True, copy_function=os.link)
    file = into / "mechinterp" / fault.file
    text = fault.planted(file.read_text(encoding="utf-8"))
    for kept in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
        kept.unlink()
    file.unlink()
    file.write_text(text, encoding="utf-8")


class Trial:
    """A fault in a copy of its own, stage by stage."""

    def __init__(self, fault: Fault, base: Path, folder: Path, n_stages: int) -> None:
        self.fault, self._folder = fault, folder
        self._tree, self._stages, self._stage = folder / "tree", stages(fault)[:n_stages], 0
        self._began = self._stage_began = time.monotonic()
        folder.mkdir()
        with_fault(fault, base, self._tree)
        self._start()

    def _start(self) -> None:
        self._into = self._folder / f"stage-{self._stage}.json"
        self._stage_began = time.monotonic()
        self._pid = child(self._tree, self._stages[self._stage], self._into)

    def outcome(self) -> Outcome | None:
        """How it fared, or None while it runs."""
        if not ended(self._pid):
            if time.monotonic() - self._stage_began < ONE_STAGE:
                return None
            kill(self._pid)
            return self._over("a stage that hung", f"no end after {ONE_STAGE} s")
        if not self._into.exists():
            return self._over("a crash", "the process died")
        told = json.loads(self._into.read_text())
        if told["found"]:
            return self._over(*told["found"])
        if told["code"] not in (0, 5):  # 5: no tests there
            log = self._into.with_suffix(".log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"pytest ended with {told['code']}:\n{log}")
        if self._stage + 1 == len(self._stages):
            return self._over(None, "")
        self._stage += 1
        self._start()
        return None

    def _over(self, by: str | None, why: str) -> Outcome:
        shutil.rmtree(self._tree, ignore_errors=True)
        speed = self._stages[self._stage].speed
        return Outcome(by, why, speed, time.monotonic() - self._began)


def tried(
    faults: Sequence[Fault], base: Path, work: Path, jobs: int, n_stages: int
) -> dict[Fault, Outcome]:
    """All faults, some at a time, with the time left."""
    began, done = time.monotonic(), dict[Fault, Outcome]()
    left, running = list(enumerate(faults)), list[Trial]()
    try:
        while left or running:
            while left and len(running) < jobs:
                number, fault = left.pop(0)
                running.append(Trial(fault, base, work / f"{number:03}", n_stages))
            for trial in list(running):
                if (outcome := trial.outcome()) is not None:
                    running.remove(trial)
                    done[trial.fault] = outcome
                    spent = time.monotonic() - began
                    remaining = spent / len(done) * (len(faults) - len(done)) / 60
                    told = f"caught by {outcome.by}, {outcome.speed}" if outcome.by else "SURVIVED"
                    print(
                        f"{len(done):3} of {len(faults)}, about {remaining:.0f} min left: "
                        f"{trial.fault.file}: {trial.fault.what}: {told} ({outcome.seconds:.0f} s)",
                        flush=True,
                    )
            time.sleep(0.05)
    finally:
        for trial in running:
            kill(trial._pid)
    return done


def fails_anyway(names: Sequence[str], speed: str, base: Path, work: Path) -> set[str]:
    """Which of these tests fail without a fault too."""
    failing: set[str] = set()
    left = sorted(set(names))
    while left:
        into = work / f"control-{speed}-{len(left)}.json"
        if not wait(child(base, Stage(speed, tuple(left)), into), ONE_STAGE) or not into.exists():
            return {*failing, *left}
        told = json.loads(into.read_text())
        if not told["found"]:
            return failing if told["code"] == 0 else {*failing, *left}
        name = next((n for n in left if told["found"][0].startswith(n)), None)
        if name is None:
            return {*failing, *left}
        failing.add(name)
        left.remove(name)
    return failing


def table(done: dict[Fault, Outcome]) -> str:
    """What became of each fault, as a table of Markdown."""
    lines = ["| File | Fault | Caught by | Seconds |", "|---|---|---|---|"]
    for fault, outcome in done.items():
        by = f"`{outcome.by.removeprefix('tests/')}`" if outcome.by else "**nothing**"
        by += " (not quick)" if outcome.by and outcome.speed != "quick" else ""
        lines.append(f"| {fault.file} | {fault.what} | {by} | {outcome.seconds:.0f} |")
    return "\n".join(lines)


def outcomes(
    faults: Sequence[Fault], jobs: int, *, only_near: bool, keep: bool
) -> dict[Fault, Outcome]:
    """Plant all faults in copies; what a test that fails anyway caught does not count.

    Raises:
        RuntimeError: if tests cannot be collected, or pytest itself fails.
    """
    for name in LIBRARIES:
        importlib.import_module(name)
    do_not_shrink()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no child outlives it
    os.nice(5)
    work = Path(tempfile.mkdtemp(prefix="mutants-"))
    try:
        base = work / "base"
        copied(base)
        # Compiled once: the copies link to it.
        into = work / "compile.json"
        ended_well = wait(child(base, Stage("ci", ()), into, ["--collect-only"]), ONE_STAGE)
        if not ended_well or json.loads(into.read_text())["code"]:
            log = into.with_suffix(".log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the tests could not be collected:\n{log}")
        done = tried(faults, base, work, jobs, 1 if only_near else 4)
        for speed in ("quick", "ci"):
            caught = {f: o for f, o in done.items() if o.speed == speed and o.by and ".py" in o.by}
            void = fails_anyway([str(o.by) for o in caught.values()], speed, base, work)
            for fault, outcome in caught.items():
                if outcome.by in void:
                    done[fault] = replace(outcome, by=None, why=f"{outcome.by} fails without it")
    finally:
        if keep:
            print(f"logs: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    return {fault: done[fault] for fault in faults}


def main() -> int:
    """Plant the faults; 1 with --check if one survives or no longer fits."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--only", default="", help="a regex of file and description")
    parser.add_argument("--list", action="store_true", help="print the list, run nothing")
    parser.add_argument("--check", action="store_true", help="end with 1 if one survives")
    parser.add_argument("--near", action="store_true", help="run the tests of the file alone")
    parser.add_argument("--table", type=Path, help="a file for the table, Markdown")
    parser.add_argument("--keep", action="store_true", help="keep the logs")
    options = parser.parse_args()
    faults = [f for f in read_faults() if re.search(options.only, f"{f.file}: {f.what}")]
    if options.list:
        print("\n".join(f"{fault.file}: {fault.what}" for fault in faults))
        return 0
    if wrong := misfits(faults):
        print(*wrong, sep="\n")
        return 1
    changed = subprocess.run(
        ["git", "status", "--porcelain", "mechinterp", "tests"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if changed:
        print(f"mutants: commit or stash first, so that it is known what was tested:\n{changed}")
        return 2
    done = outcomes(faults, options.jobs, only_near=options.near, keep=options.keep)
    if options.table:
        options.table.write_text(table(done) + "\n", encoding="utf-8")
    print("\n" + table(done))
    survived = [f"{f.file}: {f.what} {o.why}" for f, o in done.items() if o.by is None]
    print(f"\n{len(done) - len(survived)} of {len(done)} faults caught")
    print(*(f"SURVIVED {name}" for name in survived), sep="\n")
    return int(bool(survived) and options.check)


if __name__ == "__main__":
    sys.exit(main())
