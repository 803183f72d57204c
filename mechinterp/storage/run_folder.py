"""Results on disk: a run directory of whole files, each with its hash in `manifest.json`.

Every file is written under a temporary name, synced and renamed, so that it is there whole or not
at all; the manifest comes last.

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
from typing import Any

import xarray as xr

import mechinterp

PACKAGES = ("mechinterp", "torch", "transformer-lens", "transformers", "numpy", "xarray")


def write_run(directory: str | Path, facts: Mapping[str, Any], files: Mapping[str, bytes]) -> Path:
    """Write the files and a manifest of `facts`, versions and hashes; the directory is made.

    Raises:
        ValueError: if the directory holds something that is not such a run.
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
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    write_whole(folder / "manifest.json", text.encode())
    return folder


def begin_run(directory: Path | None, kind: str, command: Sequence[str]) -> None:
    """Mark a folder, if there is one, as that of a run which may go on there."""
    if directory is not None and not (directory / "manifest.json").exists():
        write_run(directory, {"kind": kind, "command": list(command), "complete": False}, {})


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
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
    """Remove what a process of this machine that is no more had begun to write."""
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


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """The manifest of a run, its files checked against their hashes.

    Raises:
        ValueError: if a file is missing or damaged.
    """
    folder = Path(directory)
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no readable manifest.json: {error}") from error
    for name, wanted in manifest["files"].items():
        file = folder / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
            raise ValueError(f"{file} is missing or damaged: its hash is not the manifest's.")
    return manifest


def scores_parquet(scores: xr.DataArray) -> bytes:
    """The scores of `attribute` as a table, a row a cell; cells not attributed are left out."""
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


def frame_parquet(frame: Any) -> bytes:
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
