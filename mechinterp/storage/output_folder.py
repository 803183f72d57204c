"""The folder that a command writes into: `check_folder`, whether it is free or holds such a run.

It runs before anything heavy is imported or a model is loaded.

>>> from pathlib import Path
>>> from mechinterp.storage.output_folder import check_folder
>>> check_folder(Path("runs/that/is/not/there"), "attribution")
"""

import json
from pathlib import Path

from mechinterp.core.interrupts import holds_signals
from mechinterp.storage.jsonl import JsonObject


def check_folder(out: Path | None, kind: str) -> None:
    """Check that a run of this kind may be written there, or continues there.

    Raises:
        ValueError: if `out` is a file, or holds something else.
    """
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"--out {out} is a file. Name a folder.")
    if (out / "manifest.json").exists():
        found = manifest_in(out).get("kind")
        if found != kind:
            raise ValueError(f"--out {out} holds {found!r}, not {kind!r}: choose another folder.")
    elif holds_files(out):
        raise ValueError(f"--out {out} is not empty and holds no run: choose another folder.")


def holds_files(folder: Path) -> bool:
    """Whether anything is in a folder but what is hidden, such as files in the making."""
    return any(not file.name.startswith(".") for file in folder.iterdir())


@holds_signals
def manifest_in(folder: Path) -> JsonObject:
    """The manifest of a folder, not checked; empty if there is none, or it is not JSON."""
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
