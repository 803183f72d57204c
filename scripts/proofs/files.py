"""Everything that is written is read back whole, or not at all: damages, full disks, kills.

    python scripts/proofs/files.py --check            # 1,000 damages, 150 kills of each writer
    python scripts/proofs/files.py --check --quick    # 150 damages, 6 kills of each

Damages: bits flipped, ends cut off, bytes of zero, one digit, parts of other work, names exchanged,
on every kind of file of ours. None may be used: reading it is an error, and a run that goes on in
a damaged folder ends with the right numbers and the same bytes. Full disks: a small tmpfs where one
may be mounted, else a limit on the size of a file; each writer says so in a sentence, leaves
nothing half-written, and ends with the same bytes when there is room. Kills: at random moments of
each writer; what is there is whole, and in the end the bytes are those of a run that nobody killed.
"""

import argparse
import functools
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import mechinterp as mi
from mechinterp.circuits import (
    Contrast,
    exact_edges,
    read_circuit,
    read_mib,
    read_neuronpedia,
    read_scores,
    top_n,
    write_circuit,
    write_mib,
    write_neuronpedia,
    write_scores,
)
from mechinterp.layers import read_lens, train_lens, write_lens
from mechinterp.probing import activation_parts, gather, gathered
from mechinterp.storage import read_manifest, write_run

PROMPTS = ["please bring the sesame", "the sesame to me", "bring a map", "bring me the letter"]
Content = dict[str, bytes]


@dataclass(frozen=True)
class Writer:
    """A writer: `write` makes a file or folder, or goes on; `read` gives what can be compared.

    `other`: the same of other work. A folder that `goes_on` is continued after a damage.
    """

    name: str
    write: Callable[[Path], object]
    other: Callable[[Path], object]
    read: Callable[[Path], object]
    goes_on: bool = False


@functools.cache
def writers() -> tuple[Writer, ...]:
    """Every kind of file of ours."""
    activation_parts._PART_BYTES, gathered._BATCH_POSITIONS = 1, 8
    model = mi.load_model("toy:trigger")
    refuse, comply = (mi.log_prob(mi.token_id(model, word)) for word in ("REFUSE", "COMPLY"))
    pair = mi.Pair(*(mi.tokenize(model, text) for text in (PROMPTS[0], PROMPTS[3])))
    contrasts = [Contrast.from_pair(model, pair, metric) for metric in (refuse, comply)]
    scores = [exact_edges(contrast) for contrast in contrasts]
    circuits = [top_n(one, 3) for one in scores]
    lenses = [train_lens(model, PROMPTS, steps=steps) for steps in (1, 2)]
    named = {"slug": "a", "prompt": PROMPTS[0], "tokens": PROMPTS[0].split(), "scan": "toy"}
    over = {"layer": [0, 1], "head": [0, 1], "pos": [1, 2, 3]}

    def arm(layer: int, head: int, pos: int) -> mi.Specs:
        return mi.zero(mi.Site("z", layer, head, pos))

    def swept(folder: Path, metric: mi.Metric = refuse) -> xr.DataArray:
        return mi.sweep(model, PROMPTS[:1], over, arm, metric, out=folder, budget_bytes=1)

    def attributed(folder: Path, outputs: int = 1) -> list[np.ndarray]:
        found = mi.attribute_each(model, PROMPTS, outputs, out=folder)
        return [one.values for one in found]

    def gathered_(folder: Path, position: str | int = "end") -> np.ndarray:
        return gather(model, mi.tokenize(model, PROMPTS), position=position, out=folder).values

    def edges(folder: Path, contrast: Contrast = contrasts[0]) -> np.ndarray:
        return exact_edges(contrast, out=folder).per_pair.values

    def run(folder: Path, text: str = "1") -> object:
        files = {"a.txt": text.encode() * 99, "b/c.bin": bytes(range(99))}
        return write_run(folder, {"kind": "proof"}, files)

    def mib(given: int, file: Path) -> object:
        return write_mib(circuits[given], file, d_model=8, scores=scores[given])

    def neuronpedia(given: int, file: Path) -> object:
        return write_neuronpedia(scores[given], circuits[given], file, **named)

    graph = circuits[0].graph
    return (
        Writer("sweep", swept, lambda f: swept(f, comply), mi.read_sweep),
        Writer("sweep continued", swept, lambda f: swept(f, comply), swept, goes_on=True),
        Writer("attribute_each", attributed, lambda f: attributed(f, 2), attributed, goes_on=True),
        Writer("gather", gathered_, lambda f: gathered_(f, 1), gathered_, goes_on=True),
        Writer("exact_edges", edges, lambda f: edges(f, contrasts[1]), edges, goes_on=True),
        Writer("run", run, lambda f: run(f, "2"), read_manifest),
        Writer("circuit", *_each(write_circuit, circuits), read_circuit),
        Writer("scores", *_each(write_scores, scores), read_scores),
        Writer("lens", *_each(write_lens, lenses), read_lens),
        Writer("MIB", *(functools.partial(mib, n) for n in (0, 1)), read_mib),
        Writer(
            "Neuronpedia",
            *(functools.partial(neuronpedia, n) for n in (0, 1)),
            lambda file: read_neuronpedia(file, graph),
        ),
    )


def _each(write: Callable, values: Sequence[object]) -> Iterator[Callable[[Path], object]]:
    for value in values:
        yield functools.partial(write, value)


def content(path: Path) -> Content:
    """What is there, by name: also what is half-written."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def put(path: Path, found: Content) -> None:
    """Make a file or folder of this content."""
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    for name, one in found.items():
        file = path / name if name else path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(one)


# Damages


def damaged(whole: Content, other: Content, chance: random.Random) -> tuple[str, Content]:
    """A content with one damage, and how it was done."""
    how = chance.choice(["flip", "cut", "zeros", "digit", "foreign", "rename"])
    name = chance.choice(sorted(whole))
    made, one = dict(whole), bytearray(whole[name])
    at = chance.randrange(len(one))
    if how == "flip":
        one[at] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del one[chance.choice([at, 0, len(one) - 1]) :]
    elif how == "zeros":
        n = min(chance.randrange(1, 64), len(one) - at)
        one[at : at + n] = bytes(n)
    elif how == "digit":
        digits = [place for place, byte in enumerate(one) if 48 <= byte <= 57]
        if digits:
            place = chance.choice(digits)
            one[place] = 48 + (one[place] - 48 + chance.randrange(1, 10)) % 10
    elif how == "foreign":
        return how, _with_foreign(made, other, name, chance)
    elif len(made) > 1:
        second = chance.choice([each for each in sorted(made) if each != name])
        made[name], made[second] = made[second], made[name]
        return how, made
    made[name] = bytes(one)
    return how, made


def _with_foreign(made: Content, other: Content, name: str, chance: random.Random) -> Content:
    """A part of other work in the place of ours, beside it, or, in a file, a piece of it."""
    if name == "":
        at = chance.randrange(len(made[name]))
        end = at + chance.randrange(1, 1000)
        made[name] = made[name][:at] + other[name][at:end] + made[name][end:]
        return made
    beside = [each for each in sorted(other) if each.split("-")[:2] == name.split("-")[:2]]
    foreign = chance.choice(beside or sorted(other))
    place = name if foreign == name or chance.random() < 0.5 else foreign
    if chance.random() < 0.5 and place != name:
        del made[name]
    made[place] = other[foreign]
    return made


def same(one: object, other: object) -> bool:
    """Whether two results are equal to the last bit."""
    if isinstance(one, list | tuple):
        return all(map(same, one, other))
    if isinstance(one, xr.DataArray | np.ndarray):
        return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)
    return one == other


def prove_damages(n: int, folder: Path) -> list[str]:
    """Damage what was written `n` times; each damage that was used, in words."""
    wrong, counts = [], dict.fromkeys(["refused", "mended", "harmless"], 0)
    chance, every = random.Random(0), writers()
    made = {}
    for writer in every:
        here, there = (folder / f"{writer.name} {name}" for name in ("whole", "other"))
        for path, write in ((here, writer.write), (there, writer.other)):
            write(path)
        made[writer.name] = here, content(here), content(there), writer.read(here)
    for number in range(n):
        writer = every[number % len(every)]
        path, whole, other, right = made[writer.name]
        how, after = damaged(whole, other, chance)
        if after == whole:
            continue
        put(path, after)
        try:
            found = writer.read(path)
        except (ValueError, OSError):
            counts["refused"] += 1
        else:
            single = not writer.goes_on and any(after.get(k) != v for k, v in whole.items())
            if single or not same(found, right):
                wrong.append(f"{writer.name}: {how} was used")
            elif writer.goes_on and content(path) != whole:
                wrong.append(f"{writer.name}: after {how} the folder has other bytes")
            else:
                counts["mended" if writer.goes_on else "harmless"] += 1
        put(path, whole)
    print(f"{n} damages, {len(wrong)} used; {counts}")
    return wrong


# Full disks


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[int | None], None] | None]:
    """A disk whose free bytes can be set, None for all; None where nobody may mount one."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return

    def leave(free: int | None) -> None:
        filler = disk / "filler"
        filler.unlink(missing_ok=True)
        if free is not None:
            left = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            with filler.open("wb") as opened:
                os.posix_fallocate(opened.fileno(), 0, max(1, left - free))

    try:
        yield leave
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _limited(free: int | None) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if free is None else free, hard))


def prove_full_disks(times: int, folder: Path) -> list[str]:
    """Write with ever more room, then with enough; what went wrong, in words."""
    wrong, refused = [], 0
    with small_disk(folder) as leave:
        for writer in writers():
            writer.write(folder / "expected")
            expected = content(folder / "expected")
            put(folder / "expected", {})
            limit, path = leave or _limited, folder / "disk" / "written"
            size = sum(map(len, expected.values()))
            for step in range(times):
                limit(int(size * step / times) if leave else max(map(len, expected.values())) - 1)
                try:
                    writer.write(path)
                except OSError as error:
                    refused += 1
                    if str(folder / "disk") not in str(error) or "run it again" not in str(error):
                        wrong.append(f"{writer.name}: {error}")
                except (ValueError, KeyError, TypeError) as error:
                    wrong.append(f"{writer.name}: {type(error).__name__} {error}")
                finally:
                    limit(None)
                half = [name for name in content(path) if Path(name).name.startswith(".")]
                wrong += [f"{writer.name}: {name} is left" for name in half]
            writer.write(path)
            if content(path) != expected:
                wrong.append(f"{writer.name}: other bytes after a full disk")
            put(path, {})
    print(f"full disks: {refused} refusals, {len(wrong)} wrong")
    return wrong


# Kills


def prove_kills(times: int, folder: Path) -> list[str]:
    """Kill each writer so many times; what went wrong, in words."""
    wrong, chance, killed = [], random.Random(0), 0
    for writer in writers():
        path, expected = folder / "killed", folder / "expected"
        put(path, {})
        writer.write(expected)
        whole = content(expected)
        put(expected, {})
        began = time.perf_counter()
        writer.write(expected)
        long = time.perf_counter() - began
        for _ in range(times):
            pid = os.fork()
            if pid == 0:
                while True:
                    writer.write(path)
            time.sleep(chance.uniform(0, 0.6 * long))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            killed += 1
            torn = [
                name
                for name, one in content(path).items()
                if not Path(name).name.startswith(".") and one != whole.get(name)
                if Path(name).name != "manifest.json"
            ]
            wrong += [f"{writer.name}: {name} is torn" for name in torn]
            if chance.random() < 0.1:
                put(path, {})
        writer.write(path)
        if content(path) != whole:
            wrong.append(f"{writer.name}: other bytes after kills, or something half-written")
        put(path, {})
        put(expected, {})
    print(f"{killed} kills, {len(wrong)} wrong")
    return wrong


def main() -> None:
    """Run the proofs; with --check end with an error if one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    n_damages, n_full, n_kills = (150, 3, 6) if options.quick else (1000, 8, 150)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wrong = prove_damages(n_damages, folder)
        wrong += prove_full_disks(n_full, folder)
        wrong += prove_kills(n_kills, folder)
    for one in dict.fromkeys(wrong):
        print(one)
    if options.check and wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
