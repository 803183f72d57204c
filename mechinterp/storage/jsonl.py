"""Files of lines, and of JSON objects one in a line: the one reader of prompt files.

A line ends with a line feed, or with a carriage return and a line feed, and with nothing else: a
text may contain any other separator of Unicode. Every error names the file and the line.

>>> import tempfile
>>> from mechinterp.storage.jsonl import read_objects
>>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
...     _ = file.write('{"prompt": "bring it"}')
...     file.flush()
...     [(record.number, record.values) for record in read_objects(file.name, ("prompt",), "{}")]
[(1, {'prompt': 'bring it'})]
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

JsonObject = dict[str, Any]
"""A JSON object as it was read: what its values are, only its writer knows."""

MAX_LINE_BYTES = 1 << 22
"""Bytes of the longest line that is read: a parsed line takes up to 80 times as many."""

_FORMATS = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet file",
}
"""How files begin that are of another kind."""

_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".yaml", ".yml", ".toml", ".md")
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""Half of a character beyond U+FFFF, which JSON can spell and no text can be."""
_MOST_DIGITS = 18


@dataclass(frozen=True)
class Record:
    """The object of one line; `where` names the file and the line."""

    number: int
    where: str
    values: JsonObject


def read_objects(
    file: str | Path,
    keys: Sequence[str],
    example: str,
    *,
    n: int | None = None,
    noun: str = "prompts",
) -> list[Record]:
    """The objects of a file, or the first `n`, checked to have no key but `keys`.

    `example`: a line as it should be, for messages; `noun`: what the lines are.

    Raises:
        ValueError: naming the file and the line, if it cannot be read, or a line is not an object
            as `json_object` takes it, or as `filled_lines`; if there is no line, or fewer than `n`.
    """
    path = Path(file)
    records: list[Record] = []
    for number, line in filled_lines(path):
        where = f"{path}, line {number}"
        with located(where):
            try:
                records.append(Record(number, where, json_object(line, keys, example)))
            except ValueError as error:
                if records or path.suffix.lower() not in _SUFFIXES:
                    raise
                raise ValueError(
                    f"a {path.suffix} file is not one of JSON lines. Write one object a line, such "
                    f"as {example}."
                ) from error
        if len(records) == n:
            break
    if not records or (n is not None and n > len(records)):
        wanted = f"{n} were asked for" if records else "write one JSON object a line"
        raise ValueError(f"{path} has {len(records)} {noun}: {wanted}.")
    return records


def filled_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, each with its number, counted from 1, as they are read.

    Raises:
        ValueError: if the file cannot be read, or a line is longer than `MAX_LINE_BYTES` or is not
            UTF-8; it is not read on.
    """
    try:
        with path.open("rb") as file:
            for number, line in _lines(file, path):
                text = _decoded(line, f"{path}, line {number}")
                if text.strip():
                    yield number, text
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers, without their ends, and the first without its mark."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 2):
        number += 1
        if number == 1:
            for begin, kind in _FORMATS.items():
                if line.startswith(begin):
                    raise ValueError(f"{path} is {kind}. Save it as plain text in UTF-8.")
            line = line.removeprefix(b"\xef\xbb\xbf")
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(
                f"{path}, line {number} is longer than {MAX_LINE_BYTES:,} bytes, more than any "
                f"prompt. Write one prompt a line."
            )
        yield number, line


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where} is not UTF-8: byte 0x{line[error.start]:02x} at place {error.start + 1}. "
            f"Save the file in UTF-8."
        ) from None


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
        ValueError: if it is not JSON, not an object, has another key or one key twice, or a text
            that no Unicode text can be; it shows `example`.
    """
    found = _parsed(line, example)
    if not isinstance(found, dict):
        raise ValueError(f"{_short(found)} is not an object with the keys {', '.join(keys)}.")
    for key in found:
        if key not in keys:
            near = get_close_matches(key, keys, n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise ValueError(f'key "{key}" is none of {", ".join(keys)}.{hint}')
    return found


def _parsed(line: str, example: str) -> object:
    try:
        found: object = json.loads(
            line,
            object_pairs_hook=_without_repeats,
            parse_constant=_no_constant,
            parse_int=_whole_number,
        )
    except json.JSONDecodeError as error:
        raise ValueError(
            f"this is not JSON: {error.msg}, column {error.colno}. Write one object a line, such "
            f"as {example}."
        ) from None
    except RecursionError:
        raise ValueError(
            f"too deeply nested. Write one object a line, such as {example}."
        ) from None
    if _HALF.search(line):
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError(
                'it holds half a character, such as "\\ud83d" without the half that follows it.'
            ) from None
    return found


def _without_repeats(pairs: list[tuple[str, object]]) -> JsonObject:
    found = dict(pairs)
    if len(found) < len(pairs):
        (key, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f'"{key}" occurs twice in one object. Put several values into a list.')
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON.")


def _whole_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits is none that a prompt file has.")
    return int(digits)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
