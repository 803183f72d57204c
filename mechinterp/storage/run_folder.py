"""Results on disk: a folder of files, each with its hash in `manifest.json`.

Every file is written under a temporary name, synced and renamed, so that it is there whole or not
at all. The manifest is written last.

>>> import tempfile
>>> from mechinterp.storage.run_folder import read_manifest, write_run
>>> with tempfile.TemporaryDirectory() as folder:
...     path = write_run(folder, {"kind": "example"}, {"notes.txt": b"ok"})
...     read_manifest(path)["kind"]
'example'
"""

import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import xarray as xr

import mechinterp
from mechinterp.storage.jsonl import JsonObject

PACKAGES = ("mechinterp", "torch", "transformer-lens", "transformers", "numpy", "xarray")


def write_run(
    directory: str | Path, facts: Mapping[str, object], files: Mapping[str, bytes]
) -> Path:
    """Write the files, then a manifest of `facts`, versions and hashes; the directory is made.

    The manifest names the hash of every file in the directory and below it, not only of `files`.

    Raises:
        ValueError: if the folder holds something that is not such a run.
    """
    folder = Path(directory)
    if folder.exists() and any(folder.iterdir()) and not (folder / "manifest.json").exists():
        raise ValueError(
            f"{folder} is not empty and holds no manifest.json: choose another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(folder / name, content)
    manifest = {
        **facts,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
        "files": file_hashes(folder),
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    write_whole(folder / "manifest.json", text.encode())
    return folder


def file_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder and below it, by its path there.

    Without the folder's own manifest, and without what is being written: names with a dot first.
    """
    remove_scratch(folder)
    hashes = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name != "manifest.json" and not file.name.startswith("."):
            with file.open("rb") as opened:
                hashes[name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return hashes


def begin_run(directory: Path | None, kind: str, command: Sequence[str]) -> None:
    """Mark a folder, if one is given, as that of a run that is not complete."""
    if directory is not None and not (directory / "manifest.json").exists():
        write_run(directory, {"kind": kind, "command": list(command), "complete": False}, {})


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    scratch_of_this = f".{file.name}.{_host()}.{os.getpid()}."
    descriptor, scratch = tempfile.mkstemp(dir=file.parent, prefix=scratch_of_this)
    try:
        with os.fdopen(descriptor, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        Path(scratch).chmod(0o644)
        Path(scratch).replace(file)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def remove_scratch(folder: Path) -> None:
    """Remove half-written files of processes of this machine that have ended."""
    for file in folder.glob(".*"):
        found = re.fullmatch(r"\..*\.([^.]+)\.(\d+)\.[^.]*", file.name)
        if found and found[1] == _host() and not _runs(int(found[2])):
            file.unlink(missing_ok=True)


def _host() -> str:
    return platform.node().replace(".", "_")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_manifest(directory: str | Path) -> JsonObject:
    """The manifest of a run; its files are checked against their hashes.

    Raises:
        ValueError: if a file is missing or damaged.
    """
    folder = Path(directory)
    try:
        manifest: JsonObject = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no readable manifest.json: {error}") from error
    for name, wanted in manifest["files"].items():
        file = folder / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
            raise ValueError(f"{file} is missing or damaged: its hash is not the manifest's.")
    return manifest


def scores_parquet(scores: xr.DataArray) -> bytes:
    """The scores of `attribute` as a parquet file: a row for each cell that has a score."""
    import pyarrow as pa
    from pyarrow import parquet

    stacked = scores.stack(cell=("output", "input")).dropna("cell")
    columns = [
        "output",
        "input",
        "output_token",
        "input_token",
        "output_token_id",
        "input_token_id",
    ]
    table = {name: stacked[name].values for name in columns} | {"score": stacked.values}
    buffer = io.BytesIO()
    parquet.write_table(pa.table(table), buffer)
    return buffer.getvalue()


def frame_parquet(frame: pd.DataFrame) -> bytes:
    """A data frame as a parquet file, without its index."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def package_version(package: str) -> str:
    """The version of a package, "not installed" if there is none.

    Of mechinterp itself, that of the code which runs: its distribution has another name, and may be
    installed from elsewhere.
    """
    if package == "mechinterp":
        return mechinterp.__version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
