"""Which tokens a model has seen, pass by pass: `Sequences`, with or without a key-value cache.

Under a cache a pass gets its new tokens alone, and `generate` gives embeddings instead of tokens.
This file puts together the whole sequence, in which positions are counted.

>>> import torch
>>> from mechinterp.engine.sequences import Sequences
>>> sequences = Sequences()
>>> sequences.note(torch.tensor([[5, 6]]), None)
0
>>> sequences.whole(torch.tensor([[7]]), 3, None).tolist()
[[5, 6, 7]]
"""

import weakref

import torch
from jaxtyping import Int
from torch import Tensor

from mechinterp.core.sites import HookError
from mechinterp.engine.base_run import CacheEntry


class Sequences:
    """The sequences that passes belong to; `lengths`: how many tokens of each were seen."""

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self._last: tuple[Tensor, int] | None = None
        self._cached: dict[int, tuple[weakref.ref[CacheEntry], Tensor, int]] = {}

    def whole(
        self, new: Int[Tensor, "row new"] | None, width: int, entry: CacheEntry | None
    ) -> Int[Tensor, "row pos"]:
        """The tokens of the whole sequence, for a pass that sees its last `width`.

        `new`: the tokens that were embedded for the pass. `entry`: the first layer's keys and
        values, if there is a cache.

        Raises:
            HookError: if some of the tokens are not known.
        """
        first = n_cached(entry)
        tokens = new
        if first:
            known = self._known(entry)
            if known is None:
                raise HookError(
                    f"the key-value cache holds {first} positions that ran outside this context, "
                    f"or is a copy. Fill it inside: then they run with these specs too."
                )
            tokens = _join(known[0][:, :first], new)
        elif new is not None and self._last is not None and new.shape[1] < width:
            # generate(..., use_past_kv_cache=False) embeds the new token alone, then runs all.
            tokens = _join(self._last[0], new)
        if tokens is None or tokens.shape[1] != first + width:
            raise HookError(
                f"hooked(model, specs): the model was run on {width} embeddings of tokens that "
                f"are not known. Give it the tokens."
            )
        return tokens

    def note(self, tokens: Int[Tensor, "row pos"], entry: CacheEntry | None) -> int:
        """Record a pass; return the number of its sequence, new or continued."""
        first, length = n_cached(entry), tokens.shape[1]
        before = self._known(entry) if first else self._last if entry is None else None
        # A frozen cache does not grow, so a second continuation of it is a new sequence.
        if before is not None and _begins(tokens, before[0]):
            number = before[1]
            self.lengths[number] = length
        else:
            number = len(self.lengths)
            self.lengths.append(length)
        if entry is None:
            self._last = tokens.clone(), number
        else:
            self._cached = {k: v for k, v in self._cached.items() if v[0]() is not None}
            self._cached[id(entry)] = weakref.ref(entry), tokens.clone(), number
        return number

    def _known(self, entry: CacheEntry | None) -> tuple[Tensor, int] | None:
        """The tokens behind a cache entry, and the number of their sequence."""
        found = self._cached.get(id(entry))
        return found[1:] if found is not None and found[0]() is entry else None


def n_cached(entry: CacheEntry | None) -> int:
    """How many positions a layer's cache entry holds."""
    return 0 if entry is None else int(entry.past_keys.shape[1])


def _join(before: Tensor, new: Tensor | None) -> Tensor | None:
    return None if new is None or len(new) != len(before) else torch.cat([before, new], 1)


def _begins(tokens: Tensor, before: Tensor) -> bool:
    return tokens.shape[0] == before.shape[0] and torch.equal(tokens[:, : before.shape[1]], before)
