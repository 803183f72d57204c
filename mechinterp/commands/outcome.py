"""What a command found, as one value, and the one way in which it is shown and kept.

Each command computes, makes an `Outcome` and calls `finish`. Nothing else in `commands` prints a
result or writes a manifest.

>>> from functools import partial
>>> from mechinterp import load_model
>>> from mechinterp.commands.outcome import Outcome, finish
>>> from mechinterp.commands.terminal import say
>>> found = Outcome("example", "A title", ("A note.",), (partial(say, "The result."),))
>>> finish(load_model("toy:trigger"), found, None)
A title
A note.
<BLANKLINE>
The result.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mechinterp.commands.terminal import say
from mechinterp.models.model import Model
from mechinterp.storage.provenance import provenance_facts
from mechinterp.storage.run_folder import write_run

View = Callable[[], None]
"""Prints a part of a result on the terminal."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a command shows and keeps.

    `kind`: what the folder says that it holds. `views`: what is printed below the title and the
    notes, in order. `files`: name to content, `report.html` first; empty if there is no folder.
    `facts`: what the manifest says beside the notes and what `made_by` gives.
    """

    kind: str
    title: str = ""
    notes: tuple[str, ...] = ()
    views: tuple[View, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)


def finish(model: Model, outcome: Outcome, out: Path | None) -> None:
    """Print the outcome; with a folder, write its files there, then the manifest.

    The manifest is the last file to be written. It names the hash of every file in the folder, also
    of those that the run wrote as it went on, such as the finished parts of a sweep.
    """
    if outcome.title:
        for line in (outcome.title, *outcome.notes, ""):
            say(line)
    for view in outcome.views:
        view()
    if out is None:
        return
    notes = {"notes": list(outcome.notes)} if outcome.notes else {}
    facts = {**provenance_facts(model, outcome.kind), **notes, **outcome.facts}
    write_run(out, facts, outcome.files)
    first, *others = [*outcome.files, "manifest.json"]
    say(f"wrote {out / first}" + (f", {', '.join(others)}" if others else ""))
