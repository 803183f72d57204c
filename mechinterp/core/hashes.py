"""The SHA-256 of a content or a file, by which a damage or another version is told.

>>> from mechinterp.core.hashes import hash_of
>>> hash_of(b"ok")[:8]
'2689367b'
"""

import hashlib
from pathlib import Path


def hash_of(content: bytes) -> str:
    """The SHA-256 of a content, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def hash_of_file(file: Path) -> str:
    """The SHA-256 of a file, which need not fit into memory.

    Raises:
        OSError: if it cannot be read.
    """
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
