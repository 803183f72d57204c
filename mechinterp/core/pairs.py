"""Two aligned sets of prompts, a clean and a corrupt one: `Pair`.

>>> from mechinterp.core.pairs import Pair
>>> from mechinterp.core.prompts import Prompts
>>> Pair(Prompts.from_ids([[5, 6, 7]]), Prompts.from_ids([[5, 9, 7]])).differ.tolist()
[[False, True, False]]
"""

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from mechinterp.core.prompts import Prompts

DIRECTIONS = ("noise", "denoise")
"""Run clean prompts with corrupt activations, or corrupt prompts with clean activations."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A clean and a corrupt set of prompts, aligned: position by position, prompt by prompt.

    Raises:
        ValueError: if they are not aligned, saying where.
    """

    clean: Prompts
    corrupt: Prompts

    def __post_init__(self) -> None:
        clean, corrupt = self.clean, self.corrupt
        for side in ("clean", "corrupt"):
            if not isinstance(given := getattr(self, side), Prompts):
                raise ValueError(
                    f"Pair: {side} is a {type(given).__name__}, not Prompts. Make them with "
                    f"tokenize(model, texts), or Prompts.from_ids(ids)."
                )
        if len(clean) != len(corrupt):
            raise ValueError(
                f"unaligned pair: {len(clean)} clean prompts and {len(corrupt)} corrupt ones. "
                f"Give one corrupt prompt for each clean one."
            )
        lengths = zip(clean.lengths.tolist(), corrupt.lengths.tolist(), strict=True)
        for row, (n, m) in enumerate(lengths):
            if n != m:
                raise ValueError(
                    f"unaligned pair: prompt {row} has {n} clean tokens "
                    f"{list(clean.token_text[row])} and {m} corrupt ones "
                    f"{list(corrupt.token_text[row])}. Replace words by "
                    f"words of as many tokens, so that every position has a counterpart."
                )
        for name in {*clean.names, *corrupt.names}:
            if name not in clean.names or name not in corrupt.names:
                side = "corrupt" if name in clean.names else "clean"
                raise ValueError(
                    f"unaligned pair: the {side} prompts do not name position {name!r}. "
                    f"Name it in both."
                )

    @property
    def differ(self) -> Bool[Tensor, "prompt pos"]:
        """True where the clean and the corrupt token differ."""
        return self.clean.tokens != self.corrupt.tokens

    def sides(self, direction: str) -> tuple[Prompts, Prompts]:
        """The prompts that run, and the prompts whose activations are patched in.

        Raises:
            ValueError: if the direction is unknown.
        """
        if direction not in DIRECTIONS:
            raise ValueError(
                f"direction={direction!r} is none of {', '.join(map(repr, DIRECTIONS))}."
            )
        both = (self.clean, self.corrupt)
        return both if direction == "noise" else both[::-1]


def require_pair(pair: object) -> Pair:
    """The same value, checked to be a `Pair`.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(pair, Pair):
        raise ValueError(
            f"pair: give a Pair of clean and corrupt prompts, not {type(pair).__name__}. A "
            f"task has one: task(...).pair."
        )
    return pair
