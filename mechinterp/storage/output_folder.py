"""The folder that a command is told to write into: is it free, or does it hold such a run?

Looked at before anything heavy is imported or a model is loaded.

>>> from pathlib import Path
>>> from mechinterp.storage.output_folder import check_folder
>>> check_folder(Path("runs/that/is/not/there"), "attribution")
"""

import json
from pathlib import Path
from typing import Any


def check_folder(out: Path | None, kind: str) -> None:
    """Nothing, if a run of this kind may be written there, or goes on there.

    Raises:
        ValueError: if it is a file, or holds something else.
    """
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"--out {out} is a file. Name a folder.")
    if (out / "manifest.json").exists():
        found = manifest_in(out).get("kind")
        if found != kind:
            raise ValueError(f"--out {out} holds {found!r}, not {kind!r}: choose another folder.")
    elif any(out.iterdir()):
        raise ValueError(f"--out {out} is not empty and holds no run: choose another folder.")


def manifest_in(folder: Path) -> dict[str, Any]:
    """The manifest of a folder as it stands there; empty if there is none, or it is damaged."""
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
