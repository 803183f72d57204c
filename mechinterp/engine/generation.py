"""A model's own continuation of a prompt: `generate_greedy`, `generate_sampled`.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.engine.generation import generate_greedy
>>> model = load_model("toy:induction")
>>> len(generate_greedy(model, tokenize(model, "a b c a"), 3))
3
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mechinterp import models
from mechinterp.core.interrupts import interruptible
from mechinterp.core.modes import gradients_off
from mechinterp.core.prompts import Prompts
from mechinterp.core.turns import lock_of
from mechinterp.engine.exactness import continues_exactly
from mechinterp.models.model import Model


def generate_greedy(model: Model, prompts: Prompts, n: int) -> list[int]:
    """The greedy continuation of one prompt: up to `n` token ids, or to its end token.

    Each step is one position on top of cached keys and values. Where that is not exact (foreign
    hooks on the model, a module of somebody's own, or positions that each layer reads), each step
    is a whole pass.
    """
    return _generate(model, prompts, n, lambda logits: int(logits.argmax()))


def generate_sampled(
    model: Model, prompts: Prompts, n: int, *, seed: int, temperature: float = 1.0
) -> list[int]:
    """A drawn continuation of one prompt, as `generate_greedy`; the same seed draws the same.

    >>> from mechinterp import load_model, tokenize
    >>> from mechinterp.engine.generation import generate_sampled
    >>> model = load_model("toy:induction")
    >>> len(generate_sampled(model, tokenize(model, "a b c a"), 3, seed=0))
    3

    Raises:
        ValueError: if the temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} is not above 0: for none, generate_greedy.")
    draws = torch.Generator().manual_seed(seed)

    def choose(logits: Tensor) -> int:
        shares = (logits.double().cpu() / temperature).softmax(-1)
        return int(torch.multinomial(shares, 1, generator=draws))

    return _generate(model, prompts, n, choose)


def _generate(model: Model, prompts: Prompts, n: int, choose: Callable[[Tensor], int]) -> list[int]:
    end = getattr(model.tokenizer, "eos_token_id", None)
    cached = not models.has_foreign_hooks(model) and continues_exactly(model)
    cache = models.key_value_cache(model, 1) if cached else [None] * model.cfg.n_layers
    ids = prompts.tokens  # [1, pos]
    made: list[int] = []
    lock = lock_of(model)
    while len(made) < n and (not made or made[-1] != end):
        first_pos = ids.shape[1] - 1 if cached and made else 0
        with lock, interruptible(lock) as interrupts, gradients_off():
            resid, positions = models.embed(model, ids[:, first_pos:], first_pos)
            for layer in range(model.cfg.n_layers):
                interrupts.check()
                resid = models.run_block(model, layer, resid, positions, cache[layer])
            last = models.unembed(model, models.normalize(model, resid[:, -1:]))
            made.append(choose(last[0, 0]))
            ids = torch.cat([ids, ids.new_tensor([made[-1:]])], 1)
    return made
