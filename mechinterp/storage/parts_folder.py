"""A folder of finished parts, from which work that was stopped continues with the same bytes.

It holds `manifest.json`, which says what is done and is sealed last with the hash of every part,
and parts called `part-NUMBER-HASH`. The hash in a name is that of the work, the number and the
content, so that a part that is damaged, of other work, or under another name is not taken: it is
made again. Two processes may work in one folder: they write the same bytes. Nothing in it tells a
time.

>>> import tempfile
>>> from mechinterp.storage.parts_folder import PartsFolder, read_parts
>>> with tempfile.TemporaryDirectory() as out:
...     folder = PartsFolder(out, "example", {"prompts": "a hash"})
...     folder.load(0, ".txt") is None
...     folder.save(0, ".txt", b"ok")
...     folder.finish(1, {"unit": "nats"})
...     read_parts(out, "example").content(0)
True
b'ok'
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mechinterp.core.hashes import hash_of, hash_of_file
from mechinterp.core.interrupts import holds_signals
from mechinterp.storage.jsonl import JsonObject
from mechinterp.storage.manifests import AGAIN, LAYOUT, manifest_of, write_manifest
from mechinterp.storage.whole_files import (
    read_whole,
    remove_scratch,
    write_whole,
)

log = logging.getLogger(__name__)

_PART = re.compile(r"part-(\d{5,})-([0-9a-f]{16})(\.[a-z]+)")

_OF_0_2 = re.compile(r"prompt-\d{5}\.json|activations\.(npy|json)")

FACT_NAMES = {
    "fingerprint": "the model's weights or configuration",
    "prompts": "the prompts",
    "specs": "the specs (what the arms do, or what they read or close over)",
    "metrics": "the metrics",
    "points": "the points of the sweep",
}
"""How an error names what differs."""


class PartsFolder:
    """The folder of one piece of work: made if it is new, continued if it holds the same work.

    `kind`: what is kept, such as "sweep". `facts`: what must agree, as JSON has it. `defaults`:
    what a folder keeps as it was when it was begun; in `settings`.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if it holds other work, naming the difference, or other files.
    """

    def __init__(
        self,
        folder: str | Path,
        kind: str,
        facts: Mapping[str, object],
        defaults: Mapping[str, object] | None = None,
    ) -> None:
        self._folder, self._kind = Path(folder).absolute(), kind
        self._parts: dict[int, tuple[str, str]] = {}  # name and hash of those that may be used
        if self._folder.is_file():
            raise ValueError(f"out={str(folder)!r} is a file. Name a folder.")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_scratch(self._folder)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self._folder} cannot be made or used: {error.strerror}. Name another",
            ) from error
        asked: dict[str, object] = json.loads(json.dumps({"layout": LAYOUT, **facts}))
        found = self._begun(asked)
        self.settings = {
            name: value if found is None else found.get(name)
            for name, value in (defaults or {}).items()
        }
        self._facts = {"kind": kind, **asked, **self.settings}
        self._key = _key(self._facts)
        if found is None:
            self._check_parts_are_ours()
            self._write_manifest({"complete": False, "files": {}})

    def load(self, number: int, suffix: str) -> bytes | None:
        """The content of a part, None if it is not there; a damaged or foreign one is removed."""
        for file in sorted(self._folder.glob(f"part-{number:05}-*{suffix}")):
            content = read_whole(file)
            if file.name == _part_name(self._key, number, suffix, content):
                self._parts[number] = file.name, hash_of(content)
                return content
            log.warning("%s is damaged, or of %s: it is made again", file, _other(self._kind))
            file.unlink(missing_ok=True)
        return None

    def save(self, number: int, suffix: str, content: bytes) -> None:
        """Write a part.

        Raises:
            OSError: if it cannot be written; parts written before stay.
        """
        name = _part_name(self._key, number, suffix, content)
        write_whole(self._folder / name, content)
        self._parts[number] = name, hash_of(content)

    def finish(self, n_parts: int, result: Mapping[str, object]) -> None:
        """Seal the manifest: the hash of each part that was loaded or saved, and `result`.

        Other parts in the folder are removed.

        Raises:
            OSError: if it cannot be written.
            ValueError: if a part was changed since.
        """
        assert sorted(self._parts) == list(range(n_parts)), "each part is loaded or saved"
        files = dict(self._parts[number] for number in range(n_parts))
        for file in self._folder.glob("part-*"):
            if file.name not in files:
                file.unlink(missing_ok=True)
        for name, wanted in files.items():
            _check_hash(self._folder / name, wanted)
        remove_scratch(self._folder)
        self._write_manifest({**result, "complete": True, "files": files})

    def read(self) -> "FinishedParts":
        """What was finished here."""
        return read_parts(self._folder, self._kind)

    def _write_manifest(self, more: Mapping[str, object]) -> None:
        write_manifest(self._folder, {**self._facts, "key": self._key, **more})

    def _begun(self, facts: Mapping[str, object]) -> JsonObject | None:
        """The manifest of this work, if it was begun here; None if not, or if it is damaged.

        Raises:
            ValueError: if the folder holds anything else.
        """
        file = self._folder / "manifest.json"
        if not file.exists():
            there = [f.name for f in self._folder.iterdir() if not f.name.startswith(".")]
            if any(map(_OF_0_2.fullmatch, there)):
                raise ValueError(
                    f"{self._folder} holds {self._kind} of mechinterp 0.2, which have no hash, so "
                    f"that nobody can tell whether they are whole. Choose another folder."
                )
            if not all(name.startswith("part-") for name in there):
                raise ValueError(
                    f"{self._folder} is not empty and holds no {self._kind}: choose another folder."
                )
            return None
        try:
            found = manifest_of(self._folder)
        except ValueError:
            log.warning("%s is damaged: it is written again", file)
            return None
        if found.get("kind") != self._kind:
            raise ValueError(f"{self._folder} holds {found.get('kind')!r}: choose another folder.")
        if found.get("layout") != LAYOUT:
            version = (found.get("versions") or {}).get("mechinterp", "0.2 or before")
            reads = f" read_sweep({str(self._folder)!r}) reads it." if self._kind == "sweep" else ""
            raise ValueError(
                f"{self._folder} was begun by mechinterp {version}, whose parts this version "
                f"cannot continue: module names are part of what is hashed. Finish it with that "
                f"version, or choose another folder." + (reads if found.get("complete") else "")
            )
        for name, here in facts.items():
            if found.get(name) != here:
                raise ValueError(
                    f"{self._folder} holds {_other(self._kind)}: {FACT_NAMES.get(name, name)} "
                    f"differ ({found.get(name)} there, {here} here). Choose another folder, or "
                    f"delete it."
                )
        return found

    def _check_parts_are_ours(self) -> None:
        """Check, where no manifest says whose the parts are, that one of them is of this work."""
        files = sorted(self._folder.glob("part-*"))
        for file in files:
            found = _PART.fullmatch(file.name)
            if (
                found
                and _part_name(self._key, int(found[1]), found[3], read_whole(file)) == file.name
            ):
                return
        if files:
            raise ValueError(
                f"{self._folder} has parts of other work and no manifest that could be read: "
                f"choose another folder, or delete it."
            )


@dataclass(frozen=True)
class FinishedParts:
    """The parts of finished work: what was done, and the path and hash of each part."""

    manifest: JsonObject
    files: tuple[tuple[Path, str], ...]

    @holds_signals
    def content(self, number: int) -> bytes:
        """The content of a part.

        Raises:
            ValueError: if it is missing or damaged, or its name is that of another.
        """
        file, wanted = self.files[number]
        try:
            content = read_whole(file)
        except OSError as error:
            raise ValueError(f"{file} cannot be read: {error.strerror}. {AGAIN}") from error
        suffix = file.suffix
        names = [_part_name(str(self.manifest.get("key")), number, suffix, content)]
        if self.manifest.get("layout") != LAYOUT:  # of 0.1 and 0.2
            names = [f"part-{number:05}-{hash_of(content)[:16]}{suffix}"]
        if hash_of(content) != wanted or file.name not in names:
            raise ValueError(f"{file} is damaged, or of other work. {AGAIN}")
        return content

    def check(self) -> None:
        """Check every part.

        Raises:
            ValueError: if one is missing or damaged.
        """
        for number in range(len(self.files)):
            self.content(number)


def read_parts(folder: str | Path, kind: str) -> FinishedParts:
    """The parts of finished work of this kind; the manifest is checked, each part as it is read.

    Raises:
        ValueError: if the folder holds something else, or what is not finished or is damaged.
    """
    path = Path(folder).absolute()
    manifest = manifest_of(path)
    if manifest.get("kind") != kind:
        raise ValueError(f"{path} holds {manifest.get('kind')!r}, not {_a(kind)}.")
    if manifest.get("complete") is not True:
        raise ValueError(
            f"{path}: the {kind} is not finished. Run it again; it continues from there."
        )
    files = manifest.get("files")
    named = {}
    for name, wanted in files.items() if isinstance(files, dict) else ():
        found = _PART.fullmatch(name)
        if found is not None:
            named[int(found[1])] = path / name, str(wanted)
    if not named or len(named) != len(files or ()) or sorted(named) != list(range(len(named))):
        raise ValueError(
            f"{path / 'manifest.json'} does not name each part once, part-00000-... first. {AGAIN}"
        )
    return FinishedParts(manifest, tuple(named[number] for number in range(len(named))))


@holds_signals
def _check_hash(file: Path, wanted: str) -> None:
    try:
        same = hash_of_file(file) == wanted
    except OSError:
        same = False
    if not same:
        raise ValueError(f"{file} was changed since it was written. {AGAIN}")


def _part_name(key: str, number: int, suffix: str, content: bytes) -> str:
    together = hash_of(f"{key} {number} {hash_of(content)}".encode())
    return f"part-{number:05}-{together[:16]}{suffix}"


def _key(facts: Mapping[str, object]) -> str:
    return hash_of(json.dumps(facts, sort_keys=True).encode())


def _a(kind: str) -> str:
    return f"a {kind}" if kind == "sweep" else kind


def _other(kind: str) -> str:
    return f"another {kind}" if kind == "sweep" else f"other {kind}"
