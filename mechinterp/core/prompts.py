"""The input: `Prompts`, token ids padded on the right, with named positions.

`mechinterp.tokenize(model, text)` makes them from text. By hand they are made from token ids:

    >>> import torch
    >>> from mechinterp.core.prompts import Prompts
    >>> prompts = Prompts.from_ids([[5, 6, 7], [5, 9]]).named(subject=[1, 0])
    >>> prompts.positions("end").tolist(), prompts.positions("subject").tolist()
    ([2, 1], [1, 0])
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechinterp.core.indices import index, indices, is_index
from mechinterp.core.modes import ordinary
from mechinterp.core.sites import Pos

DELETED = -1
"""The token id that an edit at site "tokens" writes to remove a token."""


@dataclass(frozen=True, eq=False, repr=False)
class Prompts:
    """Token ids of one or more prompts, padded on the right, and the names of their positions.

    Positions always mean the prompt as it was given: after `delete_token(3)`, position 5 is still
    the sixth token that was given. Causal models need no attention mask for right padding.
    `given`: the prompts before tokens were deleted. `moved`: where each of their positions is now.
    """

    tokens: Int[Tensor, "prompt pos"]
    lengths: Int[Tensor, " prompt"]
    roles: tuple[tuple[str, ...], ...]
    names: Mapping[str, Int[Tensor, " prompt"]] = field(default_factory=dict)
    decode: Callable[[int], str] = str
    given: "Prompts | None" = None
    moved: Int[Tensor, "prompt given"] | None = None

    def __post_init__(self) -> None:
        if self.tokens.is_inference() or self.lengths.is_inference():  # then all are
            names = {name: ordinary(at) for name, at in self.names.items()}
            object.__setattr__(self, "tokens", ordinary(self.tokens))
            object.__setattr__(self, "lengths", ordinary(self.lengths))
            object.__setattr__(self, "names", MappingProxyType(names))
            object.__setattr__(self, "moved", None if self.moved is None else ordinary(self.moved))

    @classmethod
    def from_ids(
        cls,
        ids: Sequence[Sequence[int]],
        *,
        decode: Callable[[int], str] = str,
        roles: Sequence[Sequence[str]] | None = None,
        pad: int = 0,
        device: torch.device | str = "cpu",
    ) -> "Prompts":
        """Prompts from lists of token ids, one list a prompt.

        `roles` says what each token is: "text" of the user (the default), "bos" the model's start
        token, "template" of the chat template, "output" generated.

        Raises:
            ValueError: if there is no prompt, or an empty one, or the roles do not fit.
        """
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise ValueError(f"{ids!r}: give a list of token ids for each prompt, [[5, 6, 7]].")
        rows = [indices(prompt, f"prompt {row}", least=None) for row, prompt in enumerate(ids)]
        if not rows:
            raise ValueError("no prompts were given. Give at least one.")
        for row, prompt in enumerate(rows):
            if len(prompt) == 0:
                raise ValueError(f"prompt {row} is empty. Give it at least one token.")
        if roles is not None and [*map(len, roles)] != [*map(len, rows)]:
            raise ValueError(
                f"{[*map(len, roles)]} roles for prompts of {[*map(len, rows)]} tokens. Give each "
                f"token a role."
            )
        width = max(map(len, rows))
        padded = [p + [pad] * (width - len(p)) for p in rows]
        return cls(
            torch.tensor(padded, device=device),
            torch.tensor([len(p) for p in rows], device=device),
            tuple(tuple(r) for r in roles) if roles else tuple(("text",) * len(p) for p in rows),
            decode=decode,
        )

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def __repr__(self) -> str:
        named = f", named {', '.join(self.names)}" if self.names else ""
        return f"Prompts({len(self)} of {self.lengths.tolist()} tokens{named})"

    @property
    def width(self) -> int:
        """Positions of the longest prompt: the length of the pos axis."""
        return self.tokens.shape[1]

    @property
    def mask(self) -> Bool[Tensor, "prompt pos"]:
        """True at tokens, False at padding."""
        return torch.arange(self.width, device=self.tokens.device) < self.lengths[:, None]

    @property
    def token_text(self) -> tuple[tuple[str, ...], ...]:
        """The text of each token of each prompt, without padding, as `texts` gives it."""
        rows = zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)
        return tuple(self.texts(row[:n]) for row, n in rows)

    def texts(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The text of each token of a row; a character of several tokens is given to the first."""
        together = getattr(self.decode, "together", None)
        return together(ids) if together else tuple(map(self.decode, ids))

    def named(self, /, **positions: Int[Tensor, " prompt"] | Sequence[int] | int) -> "Prompts":
        """The same prompts with more named positions: one for all prompts, or one for each.

        Raises:
            ValueError: if a position lies outside a prompt, or there is not one for each prompt.
        """
        names, lengths = dict(self.names), (self.given or self).lengths.tolist()
        for name, given in positions.items():
            each = (
                [index(given, f"position {name!r}")] * len(self)
                if is_index(given)
                else indices(given, f"position {name!r}", least=None)
            )
            if len(each) != len(self):
                raise ValueError(
                    f"position {name!r}: {len(each)} given for {len(self)} prompts. Give one each."
                )
            for row, (pos, length) in enumerate(zip(each, lengths, strict=True)):
                if not 0 <= pos < length:
                    raise ValueError(
                        f"position {name!r} of prompt {row} is {pos}, outside 0 to {length - 1}."
                    )
            names[name] = torch.tensor(each, device=self.tokens.device)
        return replace(self, names=MappingProxyType(names))

    def find(self, token: str, occurrence: int | None = None) -> list[int]:
        """The position, in each prompt, of the token whose text is exactly `token`.

        Raises:
            ValueError: if a prompt lacks it, or has several and `occurrence` selects none.
        """
        found = []
        for row, texts in enumerate(self.token_text):
            at = [i for i, text in enumerate(texts) if text == token]
            wanted = 0 if occurrence is None else occurrence
            if not 0 <= wanted < len(at) or (occurrence is None and len(at) > 1):
                raise ValueError(
                    f"prompt {row} has {len(at)} tokens {token!r}, at {at}; its tokens are "
                    f"{list(texts)}. Choose one with occurrence=0, 1, ..."
                )
            found.append(at[wanted])
        return found

    def positions_of(self, *roles: str) -> list[int]:
        """The positions of the first prompt whose tokens have one of these roles."""
        return [pos for pos, role in enumerate(self.roles[0]) if role in roles]

    def given_positions(self, pos: Pos) -> Int[Tensor, " prompt"]:
        """Where `pos` is in each prompt as given, before any token was deleted.

        Raises:
            ValueError: if no position has this name, or it lies outside a prompt.
        """
        lengths = (self.given or self).lengths
        if not isinstance(pos, str):
            pos = index(pos, "a position", least=None)
            if not 0 <= pos < int(lengths.min()):
                row = int(lengths.argmin())
                raise ValueError(
                    f"position {pos} lies outside prompt {row}, which has {int(lengths[row])} "
                    f'tokens. Count from 0; the last token of each prompt is "end".'
                )
            return torch.full_like(lengths, pos)
        if pos == "end":
            return self.names.get("end", lengths - 1)
        if pos not in self.names:
            known = ", ".join(["end", *sorted(set(self.names) - {"end"})])
            raise ValueError(
                f"no position is called {pos!r}; these prompts name {known}. "
                f"Name it with prompts.named({pos}=...)."
            )
        return self.names[pos]

    def positions(self, pos: Pos) -> Int[Tensor, " prompt"]:
        """Where the token at `pos` is now, in each prompt.

        Raises:
            ValueError: if there is no such position, or its token was deleted.
        """
        given = self.given_positions(pos)
        if self.moved is None:
            return given
        now = self.moved.gather(1, given[:, None])[:, 0]
        if bool((now == DELETED).any()):
            row = int((now == DELETED).nonzero()[0])
            raise ValueError(f"position {pos!r} of prompt {row} was deleted by the same arm.")
        return now

    def reading_positions(self, pos: Pos) -> Int[Tensor, " prompt"]:
        """Where the model predicts what follows `pos`: its token, or the last left before it.

        Raises:
            ValueError: if nothing is left at or before it.
        """
        given = self.given_positions(pos)
        if self.moved is None:
            return given
        now = (self.moved != DELETED).cumsum(1).gather(1, given[:, None])[:, 0] - 1
        if bool((now < 0).any()):
            row = int((now < 0).nonzero()[0])
            raise ValueError(
                f"prompt {row}: every token up to position {pos!r} was deleted, so nothing is left "
                f"from which to read the next token. Keep a token before it."
            )
        return now

    def reading(self, at: Sequence[Pos]) -> Int[Tensor, "prompt k"]:
        """The `reading_positions` of several positions, as columns."""
        if not at:
            return self.lengths.new_empty(len(self), 0)
        return torch.stack([self.reading_positions(pos) for pos in at], 1)

    def rows(self, chosen: Int[Tensor, " row"]) -> "Prompts":
        """Some of the prompts, in this order and as wide as before; repeats are allowed."""
        at = chosen.to(self.tokens.device)
        return replace(
            self,
            tokens=self.tokens[at],
            lengths=self.lengths[at],
            roles=tuple(self.roles[row] for row in chosen.tolist()),
            names=MappingProxyType({name: pos[at] for name, pos in self.names.items()}),
            given=None if self.given is None else self.given.rows(chosen),
            moved=None if self.moved is None else self.moved[at],
        )

    def edited(self, tokens: Int[Tensor, "prompt pos"]) -> "Prompts":
        """The prompts with other token ids; rows close up where an id is `DELETED`.

        Raises:
            ValueError: if nothing is left of a prompt.
        """
        keep = (tokens != DELETED) & self.mask
        lengths = keep.sum(1)
        if bool((lengths == 0).any()):
            row = int((lengths == 0).nonzero()[0])
            raise ValueError(
                f"deleting the only token of prompt {row} leaves nothing to run. Keep a token."
            )
        # A stable sort of 0 (kept) before 1 (deleted or padding) closes each row up.
        order = (~keep).to(torch.int8).argsort(dim=1, stable=True)[:, : int(lengths.max())]
        past = torch.arange(order.shape[1], device=tokens.device) >= lengths[:, None]
        roles = tuple(
            tuple(role for role, kept in zip(row, kept_row, strict=False) if kept)
            for row, kept_row in zip(self.roles, keep.tolist(), strict=True)
        )
        moved = torch.where(keep, keep.cumsum(1) - 1, DELETED)
        if self.moved is not None:  # edited before: follow each given position through both edits
            moved = moved.gather(1, self.moved.clamp(min=0)).where(self.moved != DELETED, DELETED)
        return replace(
            self,
            tokens=tokens.gather(1, order).masked_fill(past, 0),
            lengths=lengths,
            roles=roles,
            given=self.given or self,
            moved=moved,
        )
