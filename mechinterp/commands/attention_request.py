"""The prompts that `mechinterp attention` was asked about, and the metric for cutting links.

>>> from mechinterp import load_model
>>> from mechinterp.commands.options.attention import AttentionOptions
>>> from mechinterp.commands.attention_request import attention_requests
>>> options = AttentionOptions(("bring the sesame",), model="toy:trigger", confirm="head")
>>> (request,) = attention_requests(load_model("toy:trigger"), options)
>>> request.note
'bring the sesame: the metric is log_prob of what the model says next, REFUSE.'
"""

from dataclasses import dataclass
from pathlib import Path

from mechinterp.commands.options.attention import AttentionOptions
from mechinterp.commands.options.prompt import PromptOptions
from mechinterp.commands.prompt_request import PromptRequest, requested_text
from mechinterp.core.cautions import caution
from mechinterp.core.metrics import Metric, log_prob, logit_diff
from mechinterp.core.prompts import Prompts
from mechinterp.engine.runner import run
from mechinterp.models.chats import read_prompt
from mechinterp.models.continuations import joined_otherwise
from mechinterp.models.model import Model
from mechinterp.models.tokenization import decoder, token_id, tokenize
from mechinterp.report import show
from mechinterp.storage.jsonl import located, read_objects

_NAME_LENGTH = 64


@dataclass(frozen=True, eq=False)
class AttentionRequest:
    """Prompts that are read together; `metric` is measured when links are cut."""

    name: str
    prompts: Prompts
    metric: Metric | None
    note: str = ""


def attention_requests(model: Model, options: AttentionOptions) -> list[AttentionRequest]:
    """A request for each text, or one for all prompts of a task.

    Raises:
        ValueError: if a line of the file is no prompt, or an answer is not one token.
    """
    if options.task is not None:
        given = PromptOptions(
            task=options.task, n=options.n, seed=options.seed, model=options.model
        )
        made = PromptRequest.of(model, given)
        return [AttentionRequest(made.name, made.pair.clean, made.metric, made.note)]
    if options.file is None:
        texts = [requested_text(text) for text in options.prompts]
    else:
        texts = _texts(options.file)
    return [_of_text(model, options, text) for text in texts]


def _texts(file: Path) -> list[str]:
    texts = []
    for record in read_objects(file, ("prompt",), '{"prompt": "..."}'):
        with located(record.where):
            prompt = read_prompt(record.values, "prompt")
            if not isinstance(prompt, str):
                raise ValueError("the prompt is a chat. Write a text, as the model reads it.")
            texts.append(prompt)
    return texts


def _of_text(model: Model, options: AttentionOptions, text: str) -> AttentionRequest:
    prompts = tokenize(model, text)
    name = text if len(text) <= _NAME_LENGTH else f"{text[: _NAME_LENGTH - 1]}…"
    if options.confirm is None:
        return AttentionRequest(name, prompts, None)
    if options.answer is None:
        said = int(run(model, prompts).logits[0, 0].argmax())
        what = f"what the model says next, {show(decoder(model)(said))}"
        note = f"{name}: the metric is log_prob of {what}."
        return AttentionRequest(name, prompts, log_prob(said), note)
    answer = token_id(model, options.answer)
    for word in filter(None, (options.answer, options.other)):
        if sentence := joined_otherwise(model, prompts, word):
            caution(sentence)
    if options.other is None:
        return AttentionRequest(name, prompts, log_prob(answer))
    return AttentionRequest(name, prompts, logit_diff(answer, token_id(model, options.other)))
