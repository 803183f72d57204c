"""Pairs of prompts from a JSONL file: clean, corrupt, the answer, and named positions.

    {"clean": "John met Mary. John", "corrupt": "Bill met Mary. John", "answer": " said",
     "other": " sang", "positions": {"subject": 0, "object": " Mary"}}

(on one line). With "other" the metric is a logit difference, without it the log-probability of the
answer. A position is a number, or the text of a token that occurs once in the clean prompt.

>>> import tempfile
>>> from mechinterp import load_model
>>> from mechinterp.tasks.pair_files import read_pairs
>>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
...     _ = file.write('{"clean": "bring the sesame", "corrupt": "bring the map", '
...                    '"answer": "REFUSE", "positions": {"thing": "sesame"}}')
...     file.flush()
...     pair, metric = read_pairs(load_model("toy:trigger"), file.name)
>>> pair.clean.positions("thing").tolist(), metric.name
([3], 'log_prob')
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mechinterp.core.cautions import caution
from mechinterp.core.indices import is_index
from mechinterp.core.metrics import Metric, log_prob, logit_diff
from mechinterp.core.pairs import Pair
from mechinterp.core.prompts import Prompts
from mechinterp.models.continuations import joined_otherwise
from mechinterp.models.model import Model
from mechinterp.models.tokenization import special_id, token_id, tokenize
from mechinterp.storage.jsonl import JsonObject, Record, located, read_objects

NEEDED = ("clean", "corrupt", "answer")
KEYS = (*NEEDED, "other", "positions")


def read_pairs(model: Model, file: str | Path, n: int | None = None) -> tuple[Pair, Metric]:
    """The pairs of a file, or its first `n`, and the metric: logit_diff, or log_prob of the answer.

    Warns: if an answer would be other tokens written as one text with its clean prompt.

    Raises:
        ValueError: if a line is not a valid pair for this model, naming the file and the line.
    """
    path = Path(file)
    example = '{"clean": "...", "corrupt": "...", "answer": "..."}'
    rows = []
    for record in read_objects(path, KEYS, example, n=n, noun="pairs"):
        with located(record.where):
            rows.append(_row(model, record))
    for row in rows:
        _check_alike(path, rows[0], row)
    if joined := [row for row in rows if row.joined is not None]:
        more = f" and {len(joined) - 1} more" if len(joined) > 1 else ""
        caution(
            f"{path}, line {joined[0].number}{more}: {joined[0].joined}",
        )
    sides = ([row.clean for row in rows], [row.corrupt for row in rows])
    names = {name: [row.positions[name] for row in rows] for name in rows[0].positions}
    clean, corrupt = (tokenize(model, texts).named(**names) for texts in sides)
    device = clean.tokens.device
    answers = torch.tensor([row.answer for row in rows], device=device)
    others = [row.other for row in rows if row.other is not None]
    metric = logit_diff(answers, torch.tensor(others, device=device)) if others else None
    return Pair(clean, corrupt), metric or log_prob(answers)


@dataclass(frozen=True)
class _Row:
    number: int
    clean: str
    corrupt: str
    answer: int
    other: int | None
    positions: Mapping[str, int]
    joined: str | None
    """What must be said if an answer would be another token written as one with the prompt."""


def _row(model: Model, record: Record) -> _Row:
    found = record.values
    _check_values(found)
    clean, corrupt = (_tokenize_side(model, key, found[key]) for key in ("clean", "corrupt"))
    if clean.width != corrupt.width:
        raise ValueError(
            f"unaligned pair: clean has {clean.width} tokens {list(clean.token_text[0])}, corrupt "
            f"{corrupt.width} {list(corrupt.token_text[0])}. Replace words by words of as many "
            f"tokens."
        )
    answer = _one_token(model, "answer", found["answer"])
    other = _one_token(model, "other", found["other"]) if "other" in found else None
    if answer == other:
        raise ValueError('"answer" and "other" are the same token, which differs from itself by 0.')
    positions = {
        name: _position(clean, name, where) for name, where in found.get("positions", {}).items()
    }
    answers = [found[key] for key in ("answer", "other") if key in found]
    joined = [joined_otherwise(model, clean, text) for text in answers]
    said = next(filter(None, joined), None)
    return _Row(record.number, found["clean"], found["corrupt"], answer, other, positions, said)


def _check_values(found: JsonObject) -> None:
    """Check that no key is missing, and that each has a value of its kind."""
    for key in NEEDED:
        if key not in found:
            raise ValueError(f'key "{key}" is missing. A pair has {", ".join(NEEDED)}.')
    for key, value in found.items():
        kind, word = (dict, "an object") if key == "positions" else (str, "a text")
        if not isinstance(value, kind):
            raise ValueError(f'"{key}" is {value!r}, not {word}.')


def _tokenize_side(model: Model, key: str, text: str) -> Prompts:
    try:
        found = tokenize(model, text)
    except ValueError as error:
        raise ValueError(f'"{key}": {error}') from None
    after_start = found.tokens[0, found.roles[0].count("bos") :].tolist()
    if special_id(model, "unk") in after_start:
        raise ValueError(f'"{key}": the tokenizer does not know a word of {text!r}.')
    return found


def _one_token(model: Model, key: str, text: str) -> int:
    try:
        return token_id(model, text)
    except ValueError as error:
        raise ValueError(f'"{key}": {error}') from None


def _position(clean: Prompts, name: str, where: object) -> int:
    texts = list(clean.token_text[0])
    if name.isdecimal():
        raise ValueError(f'position "{name}": a number cannot be a name. Use a word.')
    if isinstance(where, str):
        at = [pos for pos, text in enumerate(texts) if text == where]
        if len(at) != 1:
            raise ValueError(
                f'position "{name}": the clean prompt has {len(at)} tokens {where!r}'
                f"{f', at {at}' if at else ''}; its tokens are {texts}. Give the number, from 0."
            )
        return at[0]
    if not is_index(where) or not 0 <= where < len(texts):
        raise ValueError(
            f'position "{name}" is {where!r}: a number from 0 to {len(texts) - 1}, or the text of '
            f"a token, of {texts}."
        )
    return where


def _check_alike(path: Path, first: _Row, row: _Row) -> None:
    """Check that two lines name the same positions, and that both have `other` or neither has."""
    if (row.other is None) != (first.other is None):
        lacks, has = sorted((first, row), key=lambda r: r.other is not None)
        raise ValueError(
            f'{path}, line {lacks.number} has no "other", and line {has.number} has one. '
            f"Give it in every line, or in none."
        )
    if set(row.positions) != set(first.positions):
        raise ValueError(
            f"{path}, line {row.number} names the positions {_listed(row.positions)}, line "
            f"{first.number} {_listed(first.positions)}. Name the same ones in every line."
        )


def _listed(names: Sequence[str] | Mapping[str, int]) -> str:
    return ", ".join(sorted(names)) or "(none)"
