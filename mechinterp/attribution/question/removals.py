"""How an input token is removed: `Removal`, specs for positions that are removed together.

Deleting a token, hiding it from attention and putting another in its place are different
questions, with different answers; none of them is anything that a user could not have written.

>>> from mechinterp import load_model
>>> from mechinterp.attribution.question.removals import REMOVALS, removal_of
>>> list(REMOVALS)
['delete', 'delete_keep', 'knockout', 'suppress', 'mean', 'resample', 'replace']
>>> model = load_model("toy:trigger")
>>> [spec.name for spec in removal_of(model, "delete").specs((2, 4), 0)]
['delete tokens@2', 'delete tokens@4']
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mechinterp import models
from mechinterp.core.sites import Site
from mechinterp.core.specs import At, Specs, delete_token, edit, put, replace_token
from mechinterp.models.model import Model
from mechinterp.models.tokenization import decoder

UNHIDDEN = (
    "What is hidden is hidden from later positions alone: 0 by construction for the last input "
    "before an output."
)

RemoveOne = Callable[[int], Specs]
"""Makes the specs that remove the token at a position."""


@dataclass(frozen=True, eq=False)
class Removal:
    """`specs(positions, draw)` removes the positions together; the effect is a mean over draws.

    `deletes`: what follows a removed token is read at the last one left before it. `note`: what a
    reader of the scores must know of it.
    """

    name: str
    specs: Callable[[tuple[int, ...], int], Specs]
    n_draws: int = 1
    deletes: bool = False
    note: str = ""


def removal_of(model: Model, how: "str | RemoveOne | Removal") -> Removal:
    """A removal by its name in `REMOVALS`, or from a function of one position.

    Raises:
        ValueError: if no removal has this name, or the model cannot do it.
    """
    if isinstance(how, Removal):
        return how
    if callable(how):
        return each(getattr(how, "__name__", "custom").replace("<lambda>", "custom"), how)
    if how not in REMOVALS:
        raise ValueError(
            f"removal {how!r} is unknown: {', '.join(REMOVALS)}, or a function of a position."
        )
    return REMOVALS[how](model)


def each(name: str, remove: RemoveOne) -> Removal:
    """Removes positions together by removing each."""

    def specs(positions: tuple[int, ...], draw: int) -> Specs:
        return tuple(spec for pos in positions for spec in removed(pos))

    def removed(pos: int) -> Specs:
        made = remove(pos)
        if not isinstance(made, tuple) or not made:
            raise ValueError(
                f"removal {name} gave {made!r} for position {pos}, not specs. Return what "
                f"functions such as delete_token(pos) make, joined with +."
            )
        return made

    return Removal(name, specs)


def deletion(model: Model) -> Removal:
    """Take the tokens out; those behind move up."""
    return replace(each("delete", delete_token), deletes=True)


def deletion_in_place(model: Model) -> Removal:
    """Take the tokens out, while the others keep their positions, with a gap.

    No other position attends to a removed one in any layer, which for a causal model is the same
    as its absence. What would be read at a removed position is read at the last one left before it.
    """

    def specs(positions: tuple[int, ...], draw: int) -> Specs:
        def last_left(value: Tensor, at: At) -> Tensor:
            for pos in positions:
                value[:, pos] = value[:, pos - 1] if pos else math.nan
            return value

        end = Site("resid_post", model.cfg.n_layers - 1)
        return _hidden(model, positions, -math.inf) + edit(end, last_left, name="read before")

    return Removal("delete_keep", specs, deletes=True)


def attention_knockout(model: Model) -> Removal:
    """Cut the attention of every later token to these, in every layer; they still see themselves.

    Source: Geva et al. 2023, section 3, arXiv 2304.14767.
    """
    return Removal(
        "knockout", lambda positions, draw: _hidden(model, positions, -math.inf), note=UNHIDDEN
    )


def suppression(model: Model, factor: float = 0.9) -> Removal:
    """Weaken the attention of every later token to these: a softer knockout.

    Before normalisation the weight is multiplied by `1 - factor`, in every layer. (AtMan scales the
    score itself, which strengthens a link whose score is negative.)

    Raises:
        ValueError: if the factor is not between 0 and 1.

    Source: AtMan, Deiseroth et al. 2023, section 3, arXiv 2301.08110.
    """
    if not 0 < factor < 1:
        raise ValueError(f"suppression: factor {factor} is not between 0 and 1.")
    less = math.log1p(-factor)
    return Removal(
        "suppress", lambda positions, draw: _hidden(model, positions, less), note=UNHIDDEN
    )


def mean_embedding(model: Model) -> Removal:
    """Put the mean of all token embeddings in the place of the tokens'."""
    average = models.mean_embedding(model)
    return each("mean", lambda pos: put(Site("embed", pos=pos), average))


def resampled_token(
    model: Model, n_draws: int = 4, seed: int = 0, pool: Sequence[int] | None = None
) -> Removal:
    """Put drawn tokens in their place, `n_draws` times: the effect is the mean.

    `pool`: the token ids to draw from, such as those of a corpus; by default the vocabulary without
    special tokens. A token of the pool comes as often as it stands there.

    Raises:
        ValueError: if there are no draws, or nothing to draw from.
    """
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    ordinary = [i for i in range(model.cfg.d_vocab) if i not in special]
    ids = np.array(ordinary if pool is None else list(pool))
    if n_draws < 1 or not len(ids):
        raise ValueError(f"resample: {n_draws} draws from {len(ids)} tokens. Give some of both.")

    def specs(positions: tuple[int, ...], draw: int) -> Specs:
        drawn = (np.random.default_rng([seed, draw, pos]).choice(ids) for pos in positions)
        pairs = zip(positions, drawn, strict=True)
        return tuple(spec for pos, token in pairs for spec in replace_token(pos, int(token)))

    return Removal("resample", specs, n_draws)


def replacement_token(model: Model, token_id: int | None = None) -> Removal:
    """Put one token in their place: by default the tokenizer's unknown token, or its end token.

    Raises:
        ValueError: if none is given and the tokenizer has neither.
    """
    tokenizer = model.tokenizer
    candidates = [token_id, *(getattr(tokenizer, f"{k}_token_id", None) for k in ("unk", "eos"))]
    chosen = next((c for c in candidates if c is not None), None)
    if chosen is None:
        raise ValueError(
            "this tokenizer has no unknown or end token: choose one, "
            "removal=replacement_token(model, token_id)."
        )
    text = decoder(model)(chosen)
    return replace(
        each("replace", lambda pos: replace_token(pos, chosen)),
        note=f"{text!r} stands in the place of what is removed.",
    )


REMOVALS: dict[str, Callable[[Any], Removal]] = {
    "delete": deletion,
    "delete_keep": deletion_in_place,
    "knockout": attention_knockout,
    "suppress": suppression,
    "mean": mean_embedding,
    "resample": resampled_token,
    "replace": replacement_token,
}
"""Name -> what makes the removal for a model."""


def _hidden(model: Model, positions: tuple[int, ...], change: float) -> Specs:
    """Add a number to the scores of every later query for these keys, in every layer."""

    def less(old: Tensor, at: At) -> Tensor:
        keys = torch.stack([at.prompts.positions(pos) for pos in positions], 1)
        pos = torch.arange(old.shape[-1], device=old.device)
        queries = pos[-old.shape[-2] :]
        gone = (keys[:, :, None] == pos).any(1)
        link = gone[:, None, :] & (queries[:, None] > pos)
        return torch.where(link[:, None], old + change, old)

    shown = "@" + ",".join(map(str, positions))
    specs: Specs = ()
    for layer in range(model.cfg.n_layers):
        specs += edit(Site("attn_scores", layer), less, name=f"hide{shown} from")
    return specs
