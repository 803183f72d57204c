"""Labelled prompts for probes: each with a label and a group.

>>> from mechinterp.probing.labelled import Labelled
>>> texts = ["How do I kill a process?", "How do I kill a rival?", "May I kill a process?"]
>>> given = Labelled.of(texts, ["benign", "harmful", "benign"], groups=["a", "b", "a"])
>>> given.classes, given.y.tolist(), given.group_numbers.tolist()
(('benign', 'harmful'), [0, 1, 0], [0, 1, 0])

Prompts of one group are never split between training and test: paraphrases, the two sides of a
matched pair, all sentences about one fact. By default each different prompt is a group: here each
different text, and for a model, as `probe_model` and `gather` see to it, each row of tokens.
"""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from mechinterp.core.arguments import checks_arguments
from mechinterp.models.chats import Messages, read_prompt
from mechinterp.storage.jsonl import JsonObject, located, read_objects

Prompt = str | Messages | Sequence[int]
"""A text, a chat, or token ids."""

KEYS = ("prompt", "text", "label", "group")
_DIFFER = {
    "labels": "with the labels {!r} and {!r}. Keep one of them.",
    "groups": "in the groups {!r} and {!r}: one could be trained on and the other tested. Give "
    "them one group.",
}


@dataclass(frozen=True, eq=False)
class Labelled:
    """Prompts with the label and the group of each; made by `Labelled.of`.

    `own_groups`: the groups are yours, not one for each different prompt.
    """

    prompts: tuple[Prompt, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    own_groups: bool = True

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
        named = tuple(map(str, range(n) if groups is None else groups))
        made = cls(tuple(prompts), texts, named, own_groups=groups is not None)
        return made.by_content([_key(prompt) for prompt in prompts])

    def by_content(self, contents: Sequence[Hashable]) -> "Labelled":
        """The same prompts, those of equal content in one group: a model reads the same tokens.

        Raises:
            ValueError: if prompts of equal content have two labels, or two groups of yours.
        """
        groups = self.groups
        if not self.own_groups:
            number = {content: str(i) for i, content in enumerate(dict.fromkeys(contents))}
            groups = tuple(number[content] for content in contents)
        made = replace(self, groups=groups)
        made._check_repeats(contents)
        return made

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
        return Labelled(tuple(self.prompts[i] for i in chosen), labels, groups, self.own_groups)

    def _check_repeats(self, contents: Sequence[Hashable]) -> None:
        first: dict[Hashable, int] = {}
        for row, content in enumerate(contents):
            before = first.setdefault(content, row)
            same = f"prompts {before} and {row} are the same, {self._shown(before, row)}"
            for what, given in (("labels", self.labels), ("groups", self.groups)):
                if given[before] != given[row]:
                    raise ValueError(f"{same}, {_DIFFER[what].format(given[before], given[row])}")

    def _shown(self, *rows: int) -> str:
        """The prompts, in words; once, if they are spelt alike."""
        shown = dict.fromkeys(repr(self.prompts[row]) for row in rows)
        return " and ".join(shown) + (" (the same tokens)" if len(shown) > 1 else "")


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
    rows: list[_Line] = []
    for record in read_objects(file, KEYS, '{"text": "...", "label": "..."}', n=n):
        with located(record.where):
            rows.append(_line(record.values))
            if (rows[-1].group is None) != (rows[0].group is None):
                raise ValueError('give "group" in every line, or in none.')
    groups = None if rows[0].group is None else [row.group for row in rows]
    with located(str(file)):
        return Labelled.of([r.prompt for r in rows], [r.label for r in rows], groups)


def _line(found: JsonObject) -> _Line:
    if ("prompt" in found) == ("text" in found):
        raise ValueError('give either "prompt" or "text".')
    if not isinstance(found.get("label"), str | int | bool):
        raise ValueError('"label" is missing, or neither a text nor a whole number.')
    if "group" in found and not isinstance(found["group"], str | int):
        raise ValueError(f'"group" is {found["group"]!r}, neither a text nor a whole number.')
    prompt = read_prompt(found, "prompt" if "prompt" in found else "text")
    return _Line(prompt, found["label"], found.get("group"))


def _key(prompt: object) -> Hashable:
    return prompt if isinstance(prompt, str) else json.dumps(prompt, default=str, sort_keys=True)
