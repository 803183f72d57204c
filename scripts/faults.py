"""The list of small faults that scripts/mutants plants, and the tests that each has to fail.

A file of scripts/planted_faults/ for each room. By file of mechinterp/: what is wrong = [old text,
new text]; the old text stands exactly once in the file (a test says so). The tests that mirror the
file's path run first; `tests`: others of tests/ that run then, the quickest and likeliest to tell
first. A fault is worth its place if somebody could make it and nothing would fail at once. What
changes the speed alone is none.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FAULTS = ROOT / "scripts" / "planted_faults"
NOT_RUN = ("tests/test_style.py", "tests/scripts", "tests/experiments")
"""Style sees a fault as text; the list of faults is another one in a copy that holds one."""


@dataclass(frozen=True)
class Fault:
    """What is wrong in a file of the package if its text `old` is `new`."""

    file: str
    what: str
    old: str
    new: str
    tests: tuple[str, ...] = ()  # of tests/, to run early

    def planted(self, text: str) -> str:
        """The text of the file with the fault.

        Raises:
            ValueError: if the old text does not stand there exactly once, or the new is no Python.
        """
        n = text.count(self.old)
        if n != 1:
            raise ValueError(f"{self.file}: {self.old!r} stands there {n} times ({self.what}).")
        made = text.replace(self.old, self.new)
        try:
            compile(made, self.file, "exec")
        except SyntaxError as error:
            raise ValueError(f"{self.file}: {self.new!r} is no Python ({self.what}).") from error
        return made


def read_faults(folder: Path = FAULTS) -> list[Fault]:
    """The faults of all files of a folder, by file and in its order."""
    return [
        Fault(name, what, old, new, tuple(faults.get("tests", ())))
        for file in sorted(folder.glob("*.toml"))
        for name, faults in tomllib.loads(file.read_text(encoding="utf-8")).items()
        for what, (old, new) in ((k, v) for k, v in faults.items() if k != "tests")
    ]


@dataclass(frozen=True)
class Stage:
    """Tests that run, and how: "quick", or "ci", on all architectures and with slow ones."""

    speed: str
    tests: tuple[str, ...]

    @property
    def options(self) -> list[str]:
        """Of pytest."""
        chosen = ["-m", "not slow"] if self.speed == "quick" else []
        return [*chosen, *(f"--ignore={path}" for path in NOT_RUN), *self.tests]


def stages(fault: Fault, root: Path = ROOT) -> list[Stage]:
    """The tests of a fault's file first, then those of its room, and all quick ones last."""
    path = Path(fault.file)
    mirrors = sorted((root / "tests" / path.parent).glob(f"test_{path.stem}*.py"))
    near = [*(str(file.relative_to(root)) for file in mirrors), f"mechinterp/{fault.file}"]
    near += [f"tests/{name}" for name in fault.tests if (root / "tests" / name).exists()]
    room = (f"tests/{path.parts[0]}", "tests/laws")
    return [
        Stage("quick", tuple(dict.fromkeys(near))),
        Stage("quick", room),
        Stage("ci", room),
        Stage("quick", ()),
    ]


def misfits(faults: Sequence[Fault], package: Path = ROOT / "mechinterp") -> list[str]:
    """What is wrong with a list: texts that are not there exactly once, and no Python."""
    wrong = []
    for fault in faults:
        try:
            fault.planted((package / fault.file).read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            wrong.append(str(error))
    return wrong
