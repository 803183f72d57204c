"""Outputs to explain: tokens that the model generates, an answer of yours, or `last(n)`.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.attribution.question.outputs import last, append_outputs
>>> model = load_model("toy:induction")
>>> sequence, targets, rows, n_passes = append_outputs(model, tokenize(model, "a b c a"), 2)
>>> sequence.token_text[0], [sequence.decode(t) for t in targets], rows
(('<bos>', 'a', 'b', 'c', 'a', 'b'), ['b', 'c'], [4, 5])
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.cautions import caution
from mechinterp.core.indices import indices
from mechinterp.core.prompts import Prompts
from mechinterp.engine.generation import generate_greedy
from mechinterp.engine.runner import run
from mechinterp.models.continuations import joined_otherwise
from mechinterp.models.model import Model
from mechinterp.models.tokenization import check_length, known_ids


@dataclass(frozen=True)
class Last:
    """The last `n` positions of the prompt, each with the model's top token there as the output."""

    n: int


@checks_arguments
def last(n: int) -> Last:
    """Outputs for `attribute`: the model's top token at each of the prompt's last `n` positions."""
    return Last(n)


def check_room(model: Model, prompts: Prompts, outputs: object) -> None:
    """Check that the outputs fit, before a token is generated.

    Raises:
        ValueError: if there is none, they exceed the context, or the model is not causal.
    """
    if model.cfg.attention_dir != "causal":
        raise ValueError("attribute needs a causal model, in which an output has inputs before it.")
    n = outputs.n if isinstance(outputs, Last) else outputs
    if not isinstance(n, int | np.integer) and not hasattr(n, "__len__"):
        raise ValueError(
            f"outputs={outputs!r}: give how many tokens, a continuation as text or token ids, or "
            f"last(n)."
        )
    if isinstance(n, int | np.integer) and n < 1:
        raise ValueError(f"outputs={outputs!r}: ask for at least one.")
    if isinstance(outputs, Last) and outputs.n > prompts.width:
        raise ValueError(f"the prompt has {prompts.width} positions, fewer than last({outputs.n}).")
    if isinstance(outputs, int | np.integer) and prompts.width + outputs - 1 > model.cfg.n_ctx:
        raise ValueError(
            f"{prompts.width} prompt tokens and {outputs} outputs exceed the context of "
            f"{model.cfg.n_ctx}. Ask for fewer outputs."
        )


def append_outputs(
    model: Model, prompts: Prompts, outputs: int | str | Sequence[int] | Last
) -> tuple[Prompts, list[int], list[int], int]:
    """The sequence to run, the output tokens, the positions that predict them, the passes made.

    Warns: if a text would be other tokens written as one with the prompt.

    Raises:
        ValueError: if `outputs` is empty or outside the vocabulary, or the sequence is too long.
    """
    width = prompts.width
    if isinstance(outputs, Last):
        rows = list(range(width - outputs.n, width))
        top = run(model, prompts, logits_at=rows).logits[0].argmax(-1)
        return prompts, top.tolist(), rows, 1
    if isinstance(outputs, int | np.integer):
        targets, generated = generate_greedy(model, prompts, int(outputs)), 1
    else:
        targets, generated = _target_ids(model, outputs), 0
        if isinstance(outputs, str) and (said := joined_otherwise(model, prompts, outputs)):
            caution(said)
    sequence = _append_tokens(prompts, targets[:-1])
    check_length(model, sequence)
    rows = list(range(width - 1, width - 1 + len(targets)))
    return sequence, targets, rows, generated


def _target_ids(model: Model, outputs: str | Sequence[int]) -> list[int]:
    if isinstance(outputs, str):
        if model.tokenizer is None:
            raise ValueError("this model has no tokenizer: give the outputs as token ids.")
        outputs = known_ids(model, outputs)
    if len(outputs) == 0:
        raise ValueError("outputs is empty: give at least one token.")
    ids = indices(outputs, "outputs", least=None)
    for token in ids:
        if not 0 <= token < model.cfg.d_vocab:
            raise ValueError(
                f"outputs: token id {token} is outside the vocabulary of {model.cfg.d_vocab}."
            )
    return ids


def trim_padding(prompts: Prompts) -> Prompts:
    """One prompt without its padding."""
    return prompts if prompts.width == int(prompts.lengths[0]) else _append_tokens(prompts, [])


def _append_tokens(prompts: Prompts, made: Sequence[int]) -> Prompts:
    n = int(prompts.lengths[0])
    return Prompts.from_ids(
        [[*prompts.tokens[0, :n].tolist(), *made]],
        roles=[[*prompts.roles[0][:n], *["output"] * len(made)]],
        decode=prompts.decode,
        device=prompts.tokens.device,
    ).named(**{name: int(at[0]) for name, at in prompts.names.items() if name != "end"})
