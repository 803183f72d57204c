"""One file at a time: written whole or not at all, and read after its size has been checked.

A file is written under a scratch name, synced and renamed. What a killed process left half-written
is removed by the next one that writes there. Modes follow the umask.

>>> import tempfile
>>> from pathlib import Path
>>> from mechinterp.storage.whole_files import read_whole, write_whole
>>> with tempfile.TemporaryDirectory() as folder:
...     write_whole(Path(folder) / "notes.txt", b"ok")
...     read_whole(Path(folder) / "notes.txt")
b'ok'
"""

import glob
import os
import platform
import re
import secrets
import stat
from pathlib import Path

import torch

from mechinterp.core.interrupts import holds_signals
from mechinterp.models.memory import available_bytes, readable

JSON_BYTES_PER_BYTE = 12
"""What a byte of JSON takes once it is parsed, at most: `"m0->m1": {"score": 0.1}` and the like."""


@holds_signals
def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
        OSError: if it cannot be written, such as on a full disk; the file that was there stays.
    """
    try:
        remove_scratch(file.parent, file.name)
        scratch = file.with_name(f"{_scratch_of(file.name)}{_host()}.{os.getpid()}.{_random()}")
        try:
            with scratch.open("xb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())
            scratch.replace(file)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"{file} could not be written: {error.strerror}. What is finished stays; make room, or "
            f"repair the folder, and run it again",
        ) from error


def remove_scratch(folder: Path, name: str | None = None) -> None:
    """Remove half-written files of ended processes of this machine: all, or those of one name."""
    pattern = ".*" if name is None else f"{glob.escape(_scratch_of(name))}*"
    for file in folder.glob(pattern):
        found = re.fullmatch(r"\..*\.([^.]+)\.(\d+)\.[^.]*", file.name)
        if found and found[1] == _host() and not _runs(int(found[2])):
            file.unlink(missing_ok=True)


def read_whole(file: Path, bytes_per_byte: int = 1) -> bytes:
    """The content of a file, of which each byte will take so many bytes of memory.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is no ordinary file, or would take more memory than is free.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{file} is no file that can be read whole. Name an ordinary file.")
    check_memory(found.st_size * bytes_per_byte, f"{file}, of {readable(found.st_size)},")
    with file.open("rb") as opened:
        return opened.read(found.st_size)


def check_memory(n_bytes: int, what: str) -> None:
    """Check that so many bytes are free, before they are taken.

    Raises:
        ValueError: if they are not; it begins with `what`.
    """
    free = available_bytes(torch.device("cpu"))
    if n_bytes > free:
        raise ValueError(
            f"{what} takes {readable(n_bytes)} of memory, and {readable(free)} are free. Free "
            f"memory, or use a smaller one."
        )


def _scratch_of(name: str) -> str:
    return f".{name[:100]}."


def _random() -> str:
    return secrets.token_hex(4)


def _host() -> str:
    return platform.node().replace(".", "_")[:60]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
