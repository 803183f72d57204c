"""Labelled prompts for probes: each with a label and a group.

>>> from mechinterp.probing.labelled import Labelled
>>> texts = ["How do I kill a process?", "How do I kill a rival?", "May I kill a process?"]
>>> given = Labelled.of(texts, ["benign", "harmful", "benign"], groups=["a", "b", "a"])
>>> given.classes, given.y.tolist(), given.group_numbers.tolist()
(('benign', 'harmful'), [0, 1, 0], [0, 1, 0])

Prompts of one group are never split between training and test: paraphrases, the two sides of a
matched pair, all sentences about one fact. By default each different text is a group.
"""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mechinterp.core.arguments import checks_arguments
from mechinterp.models.tokenization import Messages
from mechinterp.storage.jsonl import filled_lines, json_object, located

Prompt = str | Messages | Sequence[int]
"""A text, a chat, or token ids."""

KEYS = ("prompt", "text", "label", "group")


@dataclass(frozen=True, eq=False)
class Labelled:
    """Prompts with the label and the group of each; made by `Labelled.of`."""

    prompts: tuple[Prompt, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]

    @classmethod
    @checks_arguments
    def of(
        cls,
        prompts: Sequence[Prompt],
        labels: Sequence[object],
        groups: Sequence[object] | None = None,
    ) -> "Labelled":
        """Label texts, chats, or lists of token ids; labels and groups become texts.

        Raises:
            ValueError: if the numbers differ, if there is only one class, or if the same prompt has
                two labels or two groups, so that it could be trained on and tested.
        """
        n = len(prompts)
        for name, given in (("labels", labels), ("groups", groups)):
            if given is not None and len(given) != n:
                raise ValueError(f"{len(given)} {name} for {n} prompts. Give one for each prompt.")
        texts = tuple(map(str, labels))
        if len(set(texts)) < 2:
            raise ValueError(
                f"the labels are all {texts[0]!r}: a probe separates classes. Give at least two."
                if texts
                else "no prompts were given. Give at least two of each class."
            )
        keys = [_key(prompt) for prompt in prompts]
        if groups is None:
            number = {key: str(i) for i, key in enumerate(dict.fromkeys(keys))}
            named = tuple(number[key] for key in keys)
        else:
            named = tuple(map(str, groups))
        _check_repeats(keys, texts, named)
        return cls(tuple(prompts), texts, named)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def classes(self) -> tuple[str, ...]:
        """The different labels, sorted. Of two, a positive score means the second."""
        return tuple(sorted(set(self.labels)))

    @property
    def y(self) -> Int[np.ndarray, " prompt"]:
        """The number of each prompt's class."""
        return np.searchsorted(np.array(self.classes), np.array(self.labels))

    @property
    def group_numbers(self) -> Int[np.ndarray, " prompt"]:
        """The number of each prompt's group, in order of appearance."""
        number = {name: i for i, name in enumerate(dict.fromkeys(self.groups))}
        return np.array([number[name] for name in self.groups])

    def rows(self, chosen: Sequence[int]) -> "Labelled":
        """These prompts, in this order."""
        labels, groups = (tuple(part[i] for i in chosen) for part in (self.labels, self.groups))
        return Labelled(tuple(self.prompts[i] for i in chosen), labels, groups)


@dataclass(frozen=True)
class _Line:
    prompt: Prompt
    label: str | int
    group: str | int | None


@checks_arguments
def read_labelled(file: str | Path, n: int | None = None) -> Labelled:
    """The prompts of a JSONL file, or its first `n`: "prompt" or "text", "label", maybe "group".

    A prompt is a text, or a list of messages with "role" and "content". Either all lines have a
    group, or none.

    Raises:
        ValueError: if a line is invalid, naming the file and the line; or as `Labelled.of`.
    """
    path = Path(file)
    filled = filled_lines(path)
    if not filled or (n is not None and n > len(filled)):
        wanted = f"{n} were asked for" if filled else "write one JSON object a line"
        raise ValueError(f"{path} has {len(filled)} prompts: {wanted}.")
    rows: list[_Line] = []
    for number, line in filled[:n]:
        with located(f"{path}, line {number}"):
            rows.append(_parse(line))
            if (rows[-1].group is None) != (rows[0].group is None):
                raise ValueError('give "group" in every line, or in none.')
    groups = None if rows[0].group is None else [row.group for row in rows]
    with located(str(path)):
        return Labelled.of([r.prompt for r in rows], [r.label for r in rows], groups)


def _parse(line: str) -> _Line:
    found = json_object(line, KEYS, '{"text": "...", "label": "..."}')
    if ("prompt" in found) == ("text" in found):
        raise ValueError('give either "prompt" or "text".')
    if not isinstance(found.get("label"), str | int | bool):
        raise ValueError('"label" is missing, or neither a text nor a whole number.')
    if "group" in found and not isinstance(found["group"], str | int):
        raise ValueError(f'"group" is {found["group"]!r}, neither a text nor a whole number.')
    prompt = found.get("prompt", found.get("text"))
    if not isinstance(prompt, str | list) or not prompt:
        raise ValueError("the prompt is neither a text nor a list of messages, or it is empty.")
    return _Line(prompt, found["label"], found.get("group"))


def _key(prompt: object) -> Hashable:
    return prompt if isinstance(prompt, str) else json.dumps(prompt, default=str, sort_keys=True)


def _check_repeats(keys: Sequence[Hashable], labels: Sequence[str], groups: Sequence[str]) -> None:
    first: dict[Hashable, int] = {}
    for row, key in enumerate(keys):
        before = first.setdefault(key, row)
        if labels[before] != labels[row]:
            raise ValueError(
                f"prompts {before} and {row} are the same, {key!r}, with the labels "
                f"{labels[before]!r} and {labels[row]!r}. Keep one of them."
            )
        if groups[before] != groups[row]:
            raise ValueError(
                f"prompts {before} and {row} are the same, {key!r}, in the groups "
                f"{groups[before]!r} and {groups[row]!r}: one could be trained on and the other "
                f"tested. Give them one group."
            )
