"""Which prompts `mechinterp attention` was asked about, and what is measured when links are cut.

>>> from mechinterp import load_model
>>> from mechinterp.commands.options.attention import ReadAttention
>>> from mechinterp.commands.attention_questions import asked_texts
>>> options = ReadAttention(("bring the sesame",), model="toy:trigger", confirm="head")
>>> (asked,) = asked_texts(load_model("toy:trigger"), options)
>>> asked.note
'bring the sesame: measured is what the model says next, REFUSE.'
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from mechinterp.commands.options.attention import ReadAttention
from mechinterp.commands.options.prompt import PromptOptions
from mechinterp.commands.prompt_questions import AskedPrompts
from mechinterp.core.metrics import Metric, log_prob, logit_diff
from mechinterp.core.prompts import Prompts
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.models.tokenization import decoder, token_id, tokenize
from mechinterp.report import show
from mechinterp.storage.jsonl import filled_lines, located

_NAME_LENGTH = 64


@dataclass(frozen=True, eq=False)
class AskedText:
    """Prompts that are looked at together, and what is measured on them if links are cut."""

    name: str
    prompts: Prompts
    metric: Metric | None
    note: str = ""


def asked_texts(model: Model, options: ReadAttention) -> list[AskedText]:
    """Each text by itself, or a task's prompts together.

    Raises:
        ValueError: if a line of the file is no prompt, or an answer is not one token.
    """
    if options.task is not None:
        given = PromptOptions(
            task=options.task, n=options.n, seed=options.seed, model=options.model
        )
        made = AskedPrompts.of(model, given)
        return [AskedText(made.name, made.pair.clean, made.metric, made.note)]
    texts = list(options.prompts) if options.file is None else _texts(options.file)
    texts = [sys.stdin.read().strip("\n") if text == "-" else text for text in texts]
    return [_of_text(model, options, text) for text in texts]


def _texts(file: Path) -> list[str]:
    texts = []
    for number, line in filled_lines(file):
        with located(f"{file}, line {number}"):
            found = json.loads(line)
            if not isinstance(found, dict) or not isinstance(found.get("prompt"), str):
                raise ValueError('write an object with a text: {"prompt": "..."}.')
            texts.append(found["prompt"])
    if not texts:
        raise ValueError(f"{file} holds no prompts: write one JSON object a line.")
    return texts


def _of_text(model: Model, options: ReadAttention, text: str) -> AskedText:
    prompts = tokenize(model, text)
    name = text if len(text) <= _NAME_LENGTH else f"{text[: _NAME_LENGTH - 1]}…"
    if options.confirm is None:
        return AskedText(name, prompts, None)
    if options.answer is None:
        said = int(run(model, prompts).logits[0, 0].argmax())
        what = f"what the model says next, {show(decoder(model)(said))}"
        return AskedText(name, prompts, log_prob(said), f"{name}: measured is {what}.")
    answer = token_id(model, options.answer)
    if options.other is None:
        return AskedText(name, prompts, log_prob(answer))
    return AskedText(name, prompts, logit_diff(answer, token_id(model, options.other)))
