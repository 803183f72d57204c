"""A sweep on disk: finished parts, from which a sweep that was stopped continues.

A folder holds `manifest.json`, which says what is swept, and `part-NNNNN-HASH.safetensors`, each
with the values of some arms and the key of its sweep. Files appear whole or not at all. A damaged
file is recognized by its hash and computed again. Two processes may work in one folder: they write
the same bytes.

    sweep(model, prompts, over, arm, metric, out="runs/heads")    # stopped? run it again
    read_sweep("runs/heads")
"""

import hashlib
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import safetensors.numpy
import torch
import xarray as xr
from jaxtyping import Float

from mechinterp import models
from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.models.model import Model
from mechinterp.storage.digest import digest
from mechinterp.storage.jsonl import JsonObject
from mechinterp.storage.run_folder import (
    PACKAGES,
    package_version,
    read_manifest,
    remove_scratch,
    write_whole,
)
from mechinterp.sweeps.points import ResultLayout, label_values

LAYOUT = 2
"""How the package is laid out: names of modules and functions are part of what is hashed.

Increase it when they move. Version 0.1 wrote no such number.
"""

log = logging.getLogger(__name__)

_FACT_NAMES = {
    "fingerprint": "the model's weights or configuration",
    "prompts": "the prompts",
    "specs": "the specs (what the arms do, or what they close over)",
    "metrics": "the metrics",
    "points": "the points of the sweep",
}


def sweep_facts(
    model: Model,
    prompts: Prompts,
    specs: Sequence[object],
    metrics: Sequence[Metric],
    points: object,
) -> dict[str, object]:
    """What must agree for one sweep to continue another; specs, metrics and points as hashes."""
    before = None if prompts.given is None else (prompts.given.tokens, prompts.given.lengths)
    named = sorted(prompts.names.items())
    given = (prompts.tokens, prompts.lengths, named, prompts.roles, prompts.moved, before)
    return {
        "layout": LAYOUT,
        "model": models.name(model),
        "fingerprint": models.fingerprint(model),
        "prompts": digest(given),
        "specs": digest(specs),
        "metrics": digest(metrics),
        "points": digest(points),
        "dtype": str(model.cfg.dtype),
        "device": str(models.device(model)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
    }


class SweepFolder:
    """The folder of one sweep: made if it is new, continued if it holds the same sweep.

    `facts`: what must agree, from `sweep_facts`. `default`: the budget of a new sweep.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if it holds another sweep, naming the difference, or other files.
    """

    def __init__(
        self,
        folder: str | Path,
        facts: Mapping[str, object],
        budget_bytes: int | None,
        default: int,
    ) -> None:
        self._folder = Path(folder)
        self._key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self._manifest = self._folder / "manifest.json"
        if self._folder.is_file():
            raise ValueError(f"out={str(folder)!r} is a file. Name a folder.")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_scratch(self._folder)
            found = self._begun(facts)
            known = (found or {}).get("budget_bytes", default)
            self.budget_bytes = known if budget_bytes is None else budget_bytes
            if found is not None and found["budget_bytes"] != self.budget_bytes:
                raise ValueError(
                    f"{self._folder} was begun with budget_bytes={found['budget_bytes']}, not "
                    f"{self.budget_bytes}. Leave it out, or choose another folder."
                )
            self._facts = {
                "kind": "sweep",
                **facts,
                "key": self._key,
                "budget_bytes": self.budget_bytes,
            }
            if found is None:
                begun = {**self._facts, "complete": False, "files": {}}
                self._write("manifest.json", _seal(begun))
        except OSError as error:
            raise _cannot_write(self._folder, error) from error

    def load_part(
        self, number: int, arms: Sequence[int]
    ) -> Float[np.ndarray, "metric arm prompt"] | None:
        """The values of a part, None if it is not there; a damaged one is removed."""
        for file in sorted(self._folder.glob(f"part-{number:05}-*.safetensors")):
            values = self._read_part(file, arms)
            if values is not None:
                return values
            log.warning("%s is damaged, or of another sweep: it is computed again", file)
            file.unlink(missing_ok=True)
        return None

    def save_part(
        self, number: int, arms: Sequence[int], values: Float[np.ndarray, "metric arm prompt"]
    ) -> None:
        """Write the values of some arms as a part.

        Raises:
            OSError: if it cannot be written; parts written before stay.
        """
        content = safetensors.numpy.save(
            {"values": np.ascontiguousarray(values), "arms": np.array(arms)},
            metadata={"key": self._key},
        )
        self._write(f"part-{number:05}-{_hash(content)}.safetensors", content)

    def finish(self, n_parts: int, result: Mapping[str, object]) -> None:
        """Complete the manifest: the hashes of all parts, and `result`, how to read them."""
        files = sorted(self._folder.glob("part-*.safetensors"))
        for file in files[:]:
            if int(file.name.split("-")[1]) >= n_parts:
                file.unlink()
                files.remove(file)
        hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        finished = {**self._facts, **result, "complete": True, "files": hashes}
        self._write("manifest.json", _seal(finished))

    def _begun(self, facts: Mapping[str, object]) -> JsonObject | None:
        """The manifest of this sweep, if it was begun here; None if not, or if it is damaged.

        Raises:
            ValueError: if the folder holds anything else.
        """
        found = None
        if self._manifest.exists():
            try:
                found = _unseal(self._manifest.read_bytes())
            except ValueError:
                log.warning("%s is damaged: it is written again", self._manifest)
        elif any(f for f in self._folder.iterdir() if not f.name.startswith((".", "part-"))):
            raise ValueError(
                f"{self._folder} is not empty and holds no sweep: choose another folder."
            )
        if found is None:
            return None
        if found.get("kind") != "sweep":
            raise ValueError(f"{self._folder} holds {found.get('kind')!r}: choose another folder.")
        if "layout" not in found:
            raise ValueError(
                f"{self._folder} was begun by mechinterp 0.1, whose parts this version cannot "
                f"continue: module names are part of what is hashed. Finish it with that version, "
                f"or choose another folder."
                + (f" read_sweep({str(self._folder)!r}) reads it." if found.get("complete") else "")
            )
        for name, here in facts.items():
            if found.get(name) != here:
                raise ValueError(
                    f"{self._folder} holds another sweep: {_FACT_NAMES.get(name, name)} differ "
                    f"({found.get(name)} there, {here} here). Choose another folder, or delete it."
                )
        return found

    def _read_part(self, file: Path, arms: Sequence[int]) -> np.ndarray | None:
        """The values in a file, None unless it is whole and holds these arms of this sweep."""
        try:
            content = file.read_bytes()
            if file.name.split("-")[2].removesuffix(".safetensors") != _hash(content):
                return None
            if _metadata(content)["key"] != self._key:
                return None
            tensors = safetensors.numpy.load(content)
        except (OSError, KeyError, IndexError, ValueError, safetensors.SafetensorError):
            return None
        same = tensors["arms"].tolist() == list(arms)
        return tensors["values"] if same else None

    def _write(self, name: str, content: bytes) -> None:
        try:
            write_whole(self._folder / name, content)
        except OSError as error:
            raise _cannot_write(self._folder / name, error) from error


def read_sweep(folder: str | Path) -> xr.DataArray:
    """The result of a finished sweep, as `sweep_each` gave it: dims `("metric", *over, "prompt")`.

    Raises:
        ValueError: if the sweep is not finished, or a file is missing or damaged.
    """
    path = Path(folder)
    if (path / "manifest.json").is_file():
        try:
            _unseal((path / "manifest.json").read_bytes())
        except ValueError as error:
            raise ValueError(
                f"{path / 'manifest.json'} is damaged. Run the sweep again."
            ) from error
    manifest = read_manifest(path)
    if manifest.get("kind") != "sweep":
        raise ValueError(f"{path} holds {manifest.get('kind')!r}, not a sweep.")
    if not manifest["complete"]:
        raise ValueError(
            f"{path}: the sweep is not finished. Run it again; it continues from there."
        )
    parts = [safetensors.numpy.load((path / name).read_bytes()) for name in manifest["files"]]
    n_metrics, n_prompts = manifest["shape"][0], manifest["shape"][-1]
    values = np.full((n_metrics, len(manifest["same_as"]), n_prompts), np.nan)
    for part in parts:
        values[:, part["arms"]] = part["values"]
    return label_values(values, cast(ResultLayout, manifest))


def _seal(manifest: Mapping[str, object]) -> bytes:
    """The manifest as JSON, with a hash of itself."""
    seal = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    return json.dumps({**manifest, "seal": seal}, indent=1, ensure_ascii=False).encode()


def _unseal(content: bytes) -> JsonObject:
    """The manifest, checked against its hash.

    Raises:
        ValueError: if it is damaged.
    """
    found: JsonObject = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("the manifest is not what was written")
    sealed = found.pop("seal", None) is not None
    other = "key" not in found and "seal" not in content.decode(errors="replace")
    if other:
        return found  # a run of another kind, which has no seal
    if not sealed or _seal(found) != content:
        raise ValueError("the manifest is not what was written")
    return found


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: 8 bytes of length, then a header in JSON."""
    size = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + size])["__metadata__"]
    return metadata


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _cannot_write(file: Path, error: OSError) -> OSError:
    return OSError(
        error.errno,
        f"{file} could not be written: {error.strerror}. Finished parts stay; make room, or "
        f"repair the folder, and run it again to continue",
    )
