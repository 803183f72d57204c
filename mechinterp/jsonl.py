"""The lines of a file of JSON objects, with errors that say which file and line it is.

>>> from mechinterp.jsonl import located
>>> with located("prompts.jsonl, line 2"):
...     raise ValueError("a line is an object.")
Traceback (most recent call last):
    ...
ValueError: prompts.jsonl, line 2: a line is an object.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def filled_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, each with its number from 1.

    Raises:
        ValueError: if the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


@contextmanager
def located(where: str) -> Iterator[None]:
    """A `ValueError` that comes from within begins with where it arose."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
