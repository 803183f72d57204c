"""Files of JSON objects, one in a line, with errors that name the file and line.

>>> from mechinterp.storage.jsonl import located
>>> with located("prompts.jsonl, line 2"):
...     raise ValueError("a line is an object.")
Traceback (most recent call last):
    ...
ValueError: prompts.jsonl, line 2: a line is an object.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

JsonObject = dict[str, Any]
"""A JSON object as it was read: what its values are, only its writer knows."""


def filled_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, each with its number, counted from 1.

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
    """A context in which the text of a `ValueError` gets `where` in front."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def json_object(line: str, keys: Sequence[str], example: str) -> JsonObject:
    """The JSON object in a line, checked to have no key but these.

    Raises:
        ValueError: if it is not JSON, not an object, or has another key; it shows `example`.
    """
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"this is not JSON: {error.msg}, column {error.colno}. Write one object a line, such "
            f"as {example}."
        ) from None
    if not isinstance(found, dict):
        raise ValueError(f"{found!r} is not an object with the keys {', '.join(keys)}.")
    for key in found:
        if key not in keys:
            near = get_close_matches(key, keys, n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise ValueError(f'key "{key}" is none of {", ".join(keys)}.{hint}')
    return found
