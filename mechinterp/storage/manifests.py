"""The manifest of a folder, `manifest.json`: what the folder holds, with the hash of each file.

It is written last, with a seal: a hash of itself.

>>> import tempfile
>>> from pathlib import Path
>>> from mechinterp.storage.manifests import manifest_of, write_manifest
>>> with tempfile.TemporaryDirectory() as folder:
...     write_manifest(Path(folder), {"kind": "example", "files": {}})
...     manifest_of(Path(folder))["kind"]
'example'
"""

import json
from collections.abc import Mapping
from pathlib import Path

from mechinterp.core.hashes import hash_of
from mechinterp.core.interrupts import holds_signals
from mechinterp.storage.jsonl import JsonObject
from mechinterp.storage.seals import is_sealed, sealed_json
from mechinterp.storage.whole_files import JSON_BYTES_PER_BYTE, read_whole, write_whole

LAYOUT = 3
"""How a folder is laid out, and the package: names of modules are part of what is hashed there.

Increase it when they move. Version 0.1 wrote no such number; before 3, run folders had no seal.
"""

AGAIN = "Run it again: what is whole stays, the rest is made again."
"""What to try where a file of a folder is damaged."""


def write_manifest(folder: Path, manifest: Mapping[str, object]) -> None:
    """Write a manifest with its layout and seal.

    Raises:
        OSError: if it cannot be written.
    """
    write_whole(folder / "manifest.json", sealed_json({"layout": LAYOUT, **manifest}))


@holds_signals
def manifest_of(folder: Path) -> JsonObject:
    """The manifest of a folder, checked against its seal.

    Raises:
        ValueError: if there is none, or it is damaged.
    """
    file = folder / "manifest.json"
    try:
        content = read_whole(file, JSON_BYTES_PER_BYTE)
        found = json.loads(content)
    except OSError as error:
        raise ValueError(f"{folder} holds no readable manifest.json: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}. {AGAIN}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged: it holds no object. {AGAIN}")
    if not _is_old_and_sealed(found, content):
        sealed = is_sealed(content, file)
        if not sealed and ("layout" in found or "key" in found):
            raise ValueError(f"{file} is damaged: it has no seal. {AGAIN}")
    return found


def _is_old_and_sealed(found: JsonObject, content: bytes) -> bool:
    """Whether a manifest has the seal that 0.1 and 0.2 gave to those of sweeps."""
    rest = {name: value for name, value in found.items() if name != "seal"}
    made = hash_of(json.dumps(rest, sort_keys=True).encode())
    whole = json.dumps({**rest, "seal": made}, indent=1, ensure_ascii=False)
    return found.get("layout", 0) in (0, 2) and whole.encode() == content
