"""Results on disk: a folder of files, each with its hash in `manifest.json`.

Every file is there whole or not at all. The manifest is written last, with a seal.

>>> import tempfile
>>> from mechinterp.storage.run_folder import read_manifest, write_run
>>> with tempfile.TemporaryDirectory() as folder:
...     path = write_run(folder, {"kind": "example"}, {"notes.txt": b"ok"})
...     read_manifest(path)["kind"]
'example'
"""

import importlib.metadata
import io
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
import xarray as xr

import mechinterp
from mechinterp.core.hashes import hash_of, hash_of_file
from mechinterp.core.interrupts import holds_signals
from mechinterp.storage.jsonl import JsonObject
from mechinterp.storage.manifests import AGAIN, manifest_of, write_manifest
from mechinterp.storage.output_folder import holds_files
from mechinterp.storage.whole_files import (
    remove_scratch,
    write_whole,
)

PACKAGES = ("mechinterp", "torch", "transformer-lens", "transformers", "numpy", "xarray")


def write_run(
    directory: str | Path, facts: Mapping[str, object], files: Mapping[str, bytes]
) -> Path:
    """Write the files, then a manifest of `facts`, versions and hashes; the directory is made.

    The manifest names the hash of every file in the directory and below it, not only of `files`.

    Raises:
        OSError: if a file cannot be written.
        ValueError: if the folder holds something that is not such a run, or a file below it is not
            what its own manifest says.
    """
    folder = Path(directory).absolute()
    begun = (folder / "manifest.json").exists()
    if folder.exists() and not begun and holds_files(folder):
        raise ValueError(
            f"{folder} is not empty and holds no manifest.json: choose another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if files and not begun:  # so that a run that was killed here may be written again
        write_manifest(folder, {**facts, "complete": False, "files": {}})
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(folder / name, content)
    written = {name: hash_of(content) for name, content in files.items()}
    manifest = {
        **facts,
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
        "files": file_hashes(folder) | written,
    }
    write_manifest(folder, manifest)
    _check_files(folder, written)
    return Path(directory)


def file_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file in a folder and below it, by its path there.

    Without the folder's own manifest, and without what is being written: names with a dot first.

    Raises:
        ValueError: if a file below it is not what the manifest beside that file says.
    """
    remove_scratch(folder)
    hashes = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name != "manifest.json" and not file.name.startswith("."):
            hashes[name] = hash_of_file(file)
            if file.name == "manifest.json" and manifest_of(file.parent).get("complete"):
                read_manifest(file.parent)
    return hashes


def begin_run(directory: Path | None, kind: str, command: Sequence[str]) -> None:
    """Mark a folder, if one is given, as that of a run that is not complete."""
    if directory is not None and not (directory / "manifest.json").exists():
        write_run(directory, {"kind": kind, "command": list(command), "complete": False}, {})


def read_manifest(directory: str | Path) -> JsonObject:
    """The manifest of a run; it is checked against its seal, and its files against their hashes.

    Raises:
        ValueError: if a file is missing or damaged, or is not inside the folder.
    """
    folder = Path(directory).absolute()
    manifest = manifest_of(folder)
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise ValueError(f"{folder / 'manifest.json'} names no files. {AGAIN}")
    _check_files(folder, files)
    return manifest


@holds_signals
def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, wanted in files.items():
        file, inside = folder / name, PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or "\\" in name:
            raise ValueError(
                f"{folder / 'manifest.json'} names {name!r}, which is not inside the folder."
            )
        try:
            same = file.is_file() and hash_of_file(file) == wanted
        except OSError:
            same = False
        if not same:
            raise ValueError(f"{file} is missing or damaged: its hash is not the manifest's.")


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
