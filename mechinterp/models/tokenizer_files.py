"""A tokenizer's files, checked before they are given to the library that builds it.

That library believes a token's id, and makes room for all ids before it; and it runs whatever
replacements the file lists, which can double a text at every step.

>>> from mechinterp.models.tokenizer_files import growth
>>> growth({"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"}})
4.0
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from mechinterp.models.model_folder import CheckpointError, entries, read_json, refuse_code

MOST_GROWTH = 64
"""How many times as long as a text the tokenizer's replacements may make it."""

SPARE_IDS = 100_000
"""How far ids may exceed the model's vocabulary: for added tokens that it does not have."""


def check_tokenizer_files(path: Path, n_vocab: int) -> None:
    """Check the tokenizer in a model's folder, if there is one.

    Raises:
        CheckpointError: if a file is damaged, asks to run code, has an id far beyond the model's
            vocabulary, or makes a text many times as long.
    """
    for file in sorted(path.glob("*.json")):
        if file.name == "tokenizer.json" or "token" in file.name or file.name == "vocab.json":
            content = read_json(file)
            if "config" in file.name:
                refuse_code(file, content)
            for token, found in _ids(file.name, content):
                if not 0 <= found < n_vocab + SPARE_IDS:
                    raise CheckpointError(
                        f"{file}: the token {token!r:.40} has the id {found}, and the model has "
                        f"{n_vocab} tokens."
                    )
            if file.name == "tokenizer.json" and (times := growth(content)) > MOST_GROWTH:
                raise CheckpointError(
                    f"{file}: its replacements make a text up to {times:.3g} times as long."
                )


def _ids(name: str, content: Mapping[str, object]) -> Iterator[tuple[object, int]]:
    """Tokens and their ids, wherever such files hold them."""
    model = content.get("model") if name == "tokenizer.json" else None
    vocabularies = [model.get("vocab") if isinstance(model, Mapping) else None]
    if name in ("vocab.json", "added_tokens.json"):
        vocabularies.append(content)
    for vocabulary in vocabularies:
        if isinstance(vocabulary, Mapping):
            yield from ((token, i) for token, i in vocabulary.items() if isinstance(i, int))
    added = content.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, Mapping) and isinstance(token.get("id"), int):
            yield token.get("content"), token["id"]
    decoder = content.get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, Mapping) else []:
        yield token, int(number) if str(number).isdecimal() else -1


def growth(content: Mapping[str, object]) -> float:
    """How many times as long a text can become, by what the file inserts and replaces."""
    times = 1.0
    for step in _steps([content.get("normalizer"), content.get("pre_tokenizer")]):
        if step.get("type") == "Replace":
            pattern = step.get("pattern")
            exact = pattern.get("String") if isinstance(pattern, Mapping) else None
            # A regular expression may match the empty text, before every character.
            before = 1 if exact is None else 0
            inserted = before + len(str(step.get("content", "")))
            times *= max(1.0, inserted / max(1, len(str(exact or ""))))
        elif step.get("type") == "Prepend":
            times *= max(1.0, len(str(step.get("prepend", ""))) / 8)
    template = content.get("post_processor")
    repeats = sum(1 for key, _ in entries(template) if key == "Sequence")
    return times * max(1, repeats / 8)


def _steps(waiting: list[object]) -> Iterator[Mapping[str, object]]:
    """Every step of a sequence of steps, at any depth."""
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            yield one
            for key in ("normalizers", "pretokenizers"):
                inner = one.get(key)
                waiting.extend(inner if isinstance(inner, list) else [])
