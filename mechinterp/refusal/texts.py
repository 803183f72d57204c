"""Requests as prompts: their words, the texts without or with some words, and their scores.

Many prompts of one length are one sweep over their tokens, so what they share at the beginning,
such as a chat template's system message, runs once.

>>> from mechinterp.refusal.texts import with_words, without_words
>>> without_words("How do I kill a Python process?", ["kill"])
'How do I a Python process?'
>>> with_words("How do I bake bread?", ["bomb"], slot=3)
'How do I bomb bake bread?'
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.prompts import Prompts
from mechinterp.core.specs import Specs, replace_token
from mechinterp.models.chats import Messages
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.refusal.findings import Behaviour
from mechinterp.sweeps.experiment import sweep
from mechinterp.sweeps.options import Progress, SweepOptions
from mechinterp.tasks.request_families import Chat

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in their order, in lower case, without punctuation."""
    return tuple(found[0].lower() for found in _WORD.finditer(text))


@checks_arguments
def without_words(text: str, words: Sequence[str]) -> str:
    """The text without these words, wherever they stand and however they are written."""
    gone = {word.lower() for word in words}
    kept, at = [], 0
    for found in _WORD.finditer(text):
        if found[0].lower() in gone:
            kept.append(text[at : found.start()])
            at = found.end()
    return re.sub(" {2,}", " ", "".join(kept) + text[at:]).strip(" ")


@checks_arguments
def with_words(text: str, words: Sequence[str], slot: int) -> str:
    """The text with these words before its word number `slot`; after all words if it has fewer."""
    found = list(_WORD.finditer(text))
    joined = " ".join(words)
    if slot < len(found):
        at = found[slot].start()
        return f"{text[:at]}{joined} {text[at:]}"
    if not found:
        return joined
    at = found[-1].end()
    return f"{text[:at]} {joined}{text[at:]}"


def as_prompt(model: Model, prompt: str | Chat | Messages) -> str | Messages:
    """A request as the model gets it: a text is a user's message where it has a chat template."""
    if isinstance(prompt, str) and getattr(model.tokenizer, "chat_template", None):
        return [{"role": "user", "content": prompt}]
    return prompt if isinstance(prompt, str) else list(prompt)


@checks_arguments
def score_prompts(
    model: Model,
    behaviour: Behaviour,
    prompts: Sequence[str | Chat],
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Float[np.ndarray, " prompt"]:
    """The behaviour's number for each prompt, in the metric's unit; equal prompts run once.

    `out`: a folder, from which a run that was stopped continues. `progress`: a function of (done,
    all), in prompts.

    Raises:
        ValueError: if there is no prompt, or one cannot be tokenised.
    """
    if not prompts:
        raise ValueError("there are no prompts to score: give at least one.")
    texts: Text = [as_prompt(model, prompt) for prompt in prompts]  # type: ignore[assignment]
    encoded = tokenize(model, texts)
    rows = [
        tuple(row[:n].tolist())
        for row, n in zip(encoded.tokens, encoded.lengths.tolist(), strict=True)
    ]
    by_length: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for row in dict.fromkeys(rows):
        by_length[len(row)].append(row)
    done, found = 0, dict[tuple[int, ...], float]()
    for length in sorted(by_length):
        same = by_length[length]
        scores = _score_of_one_length(
            model, behaviour, same, None if out is None else Path(out) / f"length-{length:05}"
        )
        found.update(zip(same, scores.tolist(), strict=True))
        done += len(same)
        if progress is not None:
            progress(done, len(set(rows)))
    return np.array([found[row] for row in rows])


def _score_of_one_length(
    model: Model, behaviour: Behaviour, rows: Sequence[tuple[int, ...]], out: Path | None
) -> Float[np.ndarray, " row"]:
    """Each row as an arm that puts its tokens into the first."""
    first = rows[0]

    def arm(row: int) -> Specs:
        specs: Specs = ()
        for pos, (token, was) in enumerate(zip(rows[row], first, strict=True)):
            if token != was:
                specs += replace_token(pos, token)
        return specs

    over = {"row": range(len(rows))}
    prompts = tokenize(model, Prompts.from_ids([list(first)]))
    options: SweepOptions = {} if out is None else {"out": out}
    found = sweep(model, prompts, over, arm, behaviour.metric, **options)
    return found.values[:, 0].astype(float)
