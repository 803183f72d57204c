"""Prompts that grow while a model generates: the sequence so far, its names those of the prompts.

>>> import torch
>>> from mechinterp import load_model, tokenize
>>> from mechinterp.engine.growing_prompts import GrowingPrompts
>>> model = load_model("toy:trigger")
>>> given = tokenize(model, "bring the sesame")
>>> longer = GrowingPrompts(model, given).grown(torch.cat([given.tokens, given.tokens[:, :1]], 1))
>>> longer.width, int(longer.positions("end"))
(5, 3)
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from mechinterp import models
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError
from mechinterp.core.specs import Specs
from mechinterp.engine.base_run import CacheEntry
from mechinterp.models.model import Model
from mechinterp.models.tokenization import decoder


class GrowingPrompts:
    """What sequences of tokens are as `Prompts`; `given`: the prompts with which each begins."""

    def __init__(self, model: Model, given: Prompts | None) -> None:
        self._model, self._given = model, given
        self._decode = decoder(model)

    def grown(self, tokens: Int[Tensor, "row pos"]) -> Prompts:
        """The sequence so far; names mean the positions of the prompts as given."""
        given, width = self._given, tokens.shape[1]
        if given is None:
            lengths = torch.full((len(tokens),), width, device=tokens.device)
            roles = (("text",) * width,) * len(tokens)
            return Prompts(tokens, lengths, roles, decode=self._decode)
        if tokens.shape == given.tokens.shape:
            return given
        return replace(
            given,
            tokens=tokens,
            lengths=torch.full_like(given.lengths, width),
            roles=tuple((*row, *["output"] * width)[:width] for row in given.roles),
            names={**given.names, "end": given.positions("end")},
        )

    def longest(self) -> Prompts:
        """Prompts that fill the model's context, if they can grow: specs may lie anywhere in it."""
        given, n_ctx, device = self._given, self._model.cfg.n_ctx, models.device(self._model)
        if given is None:
            return self.grown(torch.zeros(1, n_ctx, dtype=torch.long, device=device))
        if not _can_grow(given):
            return given
        rest = given.tokens.new_zeros(len(given), n_ctx - given.width)
        return self.grown(torch.cat([given.tokens, rest], 1))

    def check_number(self, tokens: Int[Tensor, "row pos"], entry: CacheEntry | None) -> None:
        """Check that there are as many sequences as prompts.

        Raises:
            HookError: if not.
        """
        if self._given is not None and len(tokens) != len(self._given):
            self.check_begins(tokens, entry)

    def check_begins(self, tokens: Int[Tensor, "row pos"], entry: CacheEntry | None) -> None:
        """Check that the sequence begins with the prompts, if any were given.

        Raises:
            HookError: if it does not, or if it is longer and the prompts cannot grow.
        """
        if self._given is None:
            return
        given = self._given.tokens
        width, n = given.shape[1], min(tokens.shape[1], given.shape[1])
        same = torch.equal(tokens[:, :n], given[:, :n].to(tokens.device))
        if not same or (n < width and entry is None):
            raise HookError(
                f"hooked(model, specs, prompts): the model was run on other tokens, "
                f"{list(tokens.shape)}, than these prompts, {list(given.shape)}."
            )
        if tokens.shape[1] > width and not _can_grow(self._given):
            raise HookError(
                "hooked(model, specs, prompts): prompts of different lengths, or with deleted "
                "tokens, cannot be continued. Generate from prompts of one length, or from one "
                "after the other."
            )

    def check_all_reached(self, specs: Specs, lengths: Sequence[int]) -> None:
        """Check that every sequence was long enough for every spec.

        Raises:
            HookError: naming a spec whose position was not reached.
        """
        given = self._given
        for spec in specs:
            for pos in (spec.site.pos, spec.needs):
                if pos is None or not lengths:
                    continue
                if given is None or (isinstance(pos, int) and _can_grow(given)):
                    needed = int(pos)
                else:
                    needed = int(given.positions(pos).max())
                if needed >= min(lengths):
                    raise HookError(
                        f"{spec.name} never ran: position {pos!r} was not reached, a sequence "
                        f"ended at position {min(lengths) - 1}. The model is not run on the last "
                        f"token that it generates."
                    )


def _can_grow(prompts: Prompts) -> bool:
    """True if more tokens can follow, at the positions after those of the prompts as given."""
    return prompts.given is None and bool((prompts.lengths == prompts.width).all())
