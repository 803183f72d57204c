"""What an attribution explains: tokens that the model writes, an answer of yours, or `last`.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.attribution.question.outputs import last, with_outputs
>>> model = load_model("toy:induction")
>>> sequence, targets, rows, n_passes = with_outputs(model, tokenize(model, "a b c a"), 2)
>>> sequence.token_text[0], [sequence.decode(t) for t in targets], rows
(('<bos>', 'a', 'b', 'c', 'a', 'b'), ['b', 'c'], [4, 5])
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechinterp.core.prompts import Prompts
from mechinterp.engine.generation import generate_greedy
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.models.tokenization import check_length, known_ids


@dataclass(frozen=True)
class Last:
    """The last `n` positions of the prompt itself, each with the token that the model expects."""

    n: int


def last(n: int) -> Last:
    """Outputs for `attribute`: what the model predicts at the last `n` positions of the prompt."""
    return Last(n)


def check_room(model: Model, prompts: Prompts, outputs: Any) -> None:
    """Nothing, if the outputs fit: asked before a token is generated.

    Raises:
        ValueError: if there are none, more than the context holds, or the model is not causal.
    """
    if model.cfg.attention_dir != "causal":
        raise ValueError("attribute needs a causal model: only there has an output its inputs.")
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


def with_outputs(
    model: Model, prompts: Prompts, outputs: int | str | Sequence[int] | Last
) -> tuple[Prompts, list[int], list[int], int]:
    """The sequence to run, the output tokens, the positions that predict them, passes made.

    Raises:
        ValueError: if the outputs are empty, or the sequence is too long.
    """
    width = prompts.width
    if isinstance(outputs, Last):
        rows = list(range(width - outputs.n, width))
        top = run(model, prompts, logits_at=rows).logits[0].argmax(-1)
        return prompts, top.tolist(), rows, 1
    if isinstance(outputs, int | np.integer):
        targets, generated = generate_greedy(model, prompts, int(outputs)), 1
    else:
        targets, generated = _continuation(model, outputs), 0
    sequence = _extended(prompts, targets[:-1])
    check_length(model, sequence)
    rows = list(range(width - 1, width - 1 + len(targets)))
    return sequence, targets, rows, generated


def _continuation(model: Model, outputs: str | Sequence[int]) -> list[int]:
    if isinstance(outputs, str):
        if model.tokenizer is None:
            raise ValueError("this model has no tokenizer: give the outputs as token ids.")
        outputs = known_ids(model, outputs)
    if len(outputs) == 0:
        raise ValueError("outputs is empty: give at least one token.")
    return [int(i) for i in outputs]


def trimmed(prompts: Prompts) -> Prompts:
    """One prompt without padding behind it."""
    return prompts if prompts.width == int(prompts.lengths[0]) else _extended(prompts, [])


def _extended(prompts: Prompts, made: Sequence[int]) -> Prompts:
    n = int(prompts.lengths[0])
    return Prompts.from_ids(
        [[*prompts.tokens[0, :n].tolist(), *made]],
        roles=[[*prompts.roles[0][:n], *["output"] * len(made)]],
        decode=prompts.decode,
        device=prompts.tokens.device,
    ).named(**{name: int(at[0]) for name, at in prompts.names.items() if name != "end"})
