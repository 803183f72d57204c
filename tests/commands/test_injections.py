"""Nothing of a name, of a file's contents or of an error acts on a terminal or hides in a page."""

import json
import logging
import re
import warnings
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import mechinterp as mechinterp_package
from mechinterp.commands.terminal import PrintableFormatter, send_messages_here
from mechinterp.report import grid_page, print_grid, print_layers
from mechinterp.sweeps import progress_bar

ACTS = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066\u200b\u00ad\r\b\x7f"
NAME = f"a{ACTS}[red][x]z"
TEXT = f"a{ACTS}[/x][link=http://x]</script>z"
RAW = {char for char in ACTS if not char.isprintable()}
TRIGGER = ("--model", "toy:trigger")
PROMPT = "please bring the sesame"


@dataclass
class Place:
    """A folder to write hostile files in, and the command."""

    folder: Path
    command: object

    def __call__(self, *arguments, stdin=""):
        done = self.command(*arguments, stdin=stdin)
        return done.stdout + done.stderr

    @property
    def out(self):
        return self.folder / "out"

    def lines(self, *records, name="file.jsonl"):
        """A file of JSON lines."""
        file = self.folder / name
        file.write_text("\n".join(map(json.dumps, records)))
        return file

    def folder_named(self):
        (self.folder / NAME).mkdir()
        return self.folder / NAME


def pair(**changed):
    made = {"clean": PROMPT, "corrupt": "please bring the map", "answer": "REFUSE"}
    return {**made, **changed}


def labelled(label):
    words = ("sesame", "map", "book", "letter", "copper", "velvet")
    return [
        {"text": f"bring the {word}", "label": label if word in words[::2] else "other"}
        for word in words
    ]


def of_grid(place):
    grid = xr.DataArray(
        np.arange(6.0).reshape(2, 3),
        dims=(NAME, "pos"),
        coords={"token": ("pos", [TEXT, "b", "c"]), NAME: [TEXT, "y"]},
        attrs={"unit": TEXT, "metric": TEXT, "model": TEXT, "sign": TEXT, TEXT: TEXT},
    )
    place.out.mkdir()
    (place.out / "report.html").write_text(grid_page(grid, title=TEXT))
    console = Console(file=StringIO(), width=100)
    print_grid(grid, console=console)
    return console.file.getvalue()


def of_layers(place):
    rows = [{"layer": TEXT, TEXT: 1.0}, {"layer": "b", TEXT: 2.0}]
    console = Console(file=StringIO(), width=100)
    print_layers(rows, [TEXT], rows, console=console)
    return console.file.getvalue()


def of_progress(place):
    console = Console(file=StringIO(), width=200)
    tick = progress_bar(TEXT, console=console)
    tick(0, 3)
    tick._last_line = -1e9
    tick(1, 3)
    return console.file.getvalue()


def of_messages(place):
    send_messages_here()
    said = warnings.formatwarning(UserWarning(TEXT), UserWarning, "file", 1)
    record = logging.LogRecord("transformers", logging.WARNING, "file", 1, TEXT, (), None)
    return said + PrintableFormatter("%(message)s").format(record)


def _attribute(file, **_):
    return ("attribute", "--file", file, *TRIGGER, "--outputs", "1")


PLACES = {
    # names
    "a model": lambda p: p("describe", NAME),
    "a model folder that is missing": lambda p: p("describe", f"./{NAME}"),
    "a model folder that is empty": lambda p: p("describe", p.folder_named()),
    "a toy": lambda p: p("describe", f"toy:{NAME}"),
    "a task": lambda p: p("patch", "--task", TEXT, *TRIGGER),
    "an option": lambda p: p("patch", f"--{TEXT}", "1"),
    "a command": lambda p: p(TEXT),
    "a choice": lambda p: p("attribute", PROMPT, "--units", TEXT),
    "a number": lambda p: p("attribute", PROMPT, "--outputs", TEXT),
    "a file that is missing": lambda p: p("attribute", "--file", p.folder / NAME),
    "pairs that are missing": lambda p: p("patch", "--pairs", p.folder / NAME),
    "a lens that is missing": lambda p: p("layers", "--task", "ioi", "--tuned", p.folder / NAME),
    "a folder to write in": lambda p: p(
        "attribute", PROMPT, *TRIGGER, "--outputs", "1", "--out", p.folder_named()
    ),
    "a file in the place of a folder": lambda p: p(
        "attribute", PROMPT, "--out", p.lines({}, name=NAME)
    ),
    "a file of pairs": lambda p: p(
        "patch", "--pairs", p.lines(pair(), pair(), name=NAME), *TRIGGER, "--out", p.out
    ),
    "a file with a bad line": lambda p: p(*_attribute(p.lines({"x": 1}, name=NAME))),
    "positions": lambda p: p("patch", "--pairs", p.lines(pair()), *TRIGGER, "--positions", TEXT),
    "an expected token": lambda p: p("attribute", PROMPT, *TRIGGER, "--expect", TEXT),
    "a span": lambda p: p(
        "attribute", PROMPT, *TRIGGER, "--units", "span", "--spans", f"{NAME}=sesame"
    ),
    # contents
    "a span of a file": lambda p: p(
        *_attribute(p.lines({"prompt": PROMPT, "spans": {TEXT: "sesame"}})), "--out", p.out
    ),
    "an unknown key of a prompt": lambda p: p(*_attribute(p.lines({"prompt": PROMPT, TEXT: 1}))),
    "an unknown key of a pair": lambda p: p(
        "patch", "--pairs", p.lines(pair(**{TEXT: "x"})), *TRIGGER
    ),
    "an unknown key of a label": lambda p: p(
        "probe", "--file", p.lines({"text": "a", TEXT: 1}), *TRIGGER
    ),
    "a named position": lambda p: p(
        *("patch", "--pairs", p.lines(pair(positions={TEXT: 3})), *TRIGGER),
        *("--what", "resid_pre", "--out", p.out),
    ),
    "a position that is no token": lambda p: p(
        "patch", "--pairs", p.lines(pair(positions={"x": TEXT})), *TRIGGER
    ),
    "a name that a position lacks": lambda p: p(
        "patch", "--pairs", p.lines(pair(positions={TEXT: "nowhere"})), *TRIGGER
    ),
    "an answer": lambda p: p("patch", "--pairs", p.lines(pair(answer=TEXT)), *TRIGGER),
    "a prompt": lambda p: p("attribute", TEXT, *TRIGGER),
    "a prompt from standard input": lambda p: p("attention", "-", *TRIGGER, stdin=TEXT),
    "a label": lambda p: p(
        *("probe", "--file", p.lines(*labelled(TEXT)), *TRIGGER, "--shuffles", "0"),
        *("--folds", "2", "--out", p.out),
    ),
    "a circuit": lambda p: p(
        *("circuit", "--pairs", p.lines(pair()), *TRIGGER),
        *("--compare", p.lines({TEXT: TEXT}, name="circuit.json")),
    ),
    # values that Python gives, warnings and log lines
    "a grid": of_grid,
    "layers": of_layers,
    "progress": of_progress,
    "warnings and log lines": of_messages,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_nothing_acts_on_the_terminal_or_hides_in_a_page(place, mechinterp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = place(Place(tmp_path, mechinterp))
    assert said
    check_shown(said)
    for page in tmp_path.rglob("*.html"):
        check_page(page.read_text(encoding="utf-8"))


def check_shown(text):
    assert not RAW & set(text), [c for c in text if c in RAW][:5]
    assert "Traceback" not in text


def check_page(html):
    assert not RAW & set(html)
    payload = re.search(r'<script[^>]*id="payload"[^>]*>(.*?)</script>', html, re.DOTALL)
    if payload:
        shown = json.dumps(json.loads(payload[1]), ensure_ascii=False)
        assert not RAW & set(shown)
        assert r"\u202e" not in payload[1].replace(r"\\", "")


def test_there_is_no_other_door():
    package = Path(mechinterp_package.__file__).parent
    for file in package.rglob("*.py"):
        code = re.sub(r'""".*?"""', "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        if re.search(r"(?<![\w.])print\(|sys\.std(out|err)\.write|partial\(print\b", code):
            assert file.relative_to(package).as_posix() == "commands/terminal.py"
