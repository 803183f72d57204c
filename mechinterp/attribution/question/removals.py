"""How input tokens are removed: `Removal` makes the specs for positions removed together.

Deleting a token, hiding it from attention and replacing it are different questions with different
answers. Each removal is made of public specs, so you can write your own.

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

import numpy as np
import torch
from torch import Tensor

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.sites import Site
from mechinterp.core.specs import At, Specs, delete_token, edit, put, replace_token
from mechinterp.models.model import Model, require_model
from mechinterp.models.tokenization import decoder

UNHIDDEN = (
    "An input is hidden from later positions alone: 0 by construction for the last input before an "
    "output."
)

RemoveOne = Callable[[int], Specs]
"""Makes the specs that remove the token at one position."""


@dataclass(frozen=True, eq=False)
class Removal:
    """`specs(positions, draw)` removes the positions together; the effect is the mean over draws.

    `deletes`: an output at a removed token is read at the last token left before it. `note`: what
    readers of the scores must know.
    """

    name: str
    specs: Callable[[tuple[int, ...], int], Specs]
    n_draws: int = 1
    deletes: bool = False
    note: str = ""


@checks_arguments
def removal_of(model: Model, removal: "str | RemoveOne | Removal") -> Removal:
    """A removal by its name in `REMOVALS`, or from a function of one position.

    Raises:
        ValueError: if no removal has this name, or the model does not support it.
    """
    if isinstance(removal, Removal):
        return removal
    if callable(removal):
        name = getattr(removal, "__name__", "custom").replace("<lambda>", "custom")
        return by_position(name, removal)
    if removal not in REMOVALS:
        raise ValueError(
            f"removal {removal!r} is unknown: {', '.join(REMOVALS)}, or a function of a position."
        )
    return REMOVALS[removal](model)


@checks_arguments
def by_position(name: str, remove: RemoveOne) -> Removal:
    """A removal that applies `remove` to each of the positions."""

    def specs(positions: tuple[int, ...], draw: int) -> Specs:
        return tuple(spec for pos in positions for spec in checked(pos))

    def checked(pos: int) -> Specs:
        made = remove(pos)
        if not isinstance(made, tuple) or not made:
            raise ValueError(
                f"removal {name} returned {made!r} for position {pos}, not specs. Return what "
                f"functions such as delete_token(pos) make, joined with +."
            )
        return made

    return Removal(name, specs)


@checks_arguments
def deletion(model: Model) -> Removal:
    """Delete the tokens; those after them move up."""
    return replace(by_position("delete", delete_token), deletes=True)


@checks_arguments
def deletion_in_place(model: Model) -> Removal:
    """Delete the tokens, while the others keep their positions.

    No other position attends to a removed one in any layer, which in a causal model equals its
    absence. An output at a removed position is read at the last position left before it.
    """

    def specs(positions: tuple[int, ...], draw: int) -> Specs:
        def last_left(value: Tensor, at: At) -> Tensor:
            for pos in positions:
                value[:, pos] = value[:, pos - 1] if pos else math.nan
            return value

        end = Site("resid_post", model.cfg.n_layers - 1)
        return _hide_keys(model, positions, -math.inf) + edit(end, last_left, name="read before")

    return Removal("delete_keep", specs, deletes=True)


@checks_arguments
def attention_knockout(model: Model) -> Removal:
    """Cut the attention of every later token to these, in every layer; they still see themselves.

    Source: Geva et al. 2023, section 3, arXiv 2304.14767.
    """
    return Removal(
        "knockout", lambda positions, draw: _hide_keys(model, positions, -math.inf), note=UNHIDDEN
    )


@checks_arguments
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
        "suppress", lambda positions, draw: _hide_keys(model, positions, less), note=UNHIDDEN
    )


@checks_arguments
def mean_embedding(model: Model) -> Removal:
    """Replace the tokens' embeddings by the mean of all token embeddings."""
    average = models.mean_embedding(model)
    return by_position("mean", lambda pos: put(Site("embed", pos=pos), average))


@checks_arguments
def resampled_token(
    model: Model, n_draws: int = 4, seed: int = 0, pool: Sequence[int] | None = None
) -> Removal:
    """Replace the tokens by random ones, `n_draws` times: the effect is the mean over draws.

    `pool`: the token ids to draw from, such as those of a corpus, where frequent tokens are drawn
    more often; by default the vocabulary without special tokens.

    Raises:
        ValueError: if `n_draws` is below 1 or the pool is empty.
    """
    require_model(model)
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    ordinary = [i for i in range(model.cfg.d_vocab) if i not in special]
    ids = np.array(ordinary if pool is None else list(pool))
    if n_draws < 1 or not len(ids):
        raise ValueError(
            f"resample: {n_draws} draws from {len(ids)} tokens. Give at least 1 of both."
        )

    def specs(positions: tuple[int, ...], draw: int) -> Specs:
        drawn = (np.random.default_rng([seed, draw, pos]).choice(ids) for pos in positions)
        pairs = zip(positions, drawn, strict=True)
        return tuple(spec for pos, token in pairs for spec in replace_token(pos, int(token)))

    return Removal("resample", specs, n_draws)


@checks_arguments
def replacement_token(model: Model, token_id: int | None = None) -> Removal:
    """Replace the tokens by one token, by default the tokenizer's unknown token or end token.

    Raises:
        ValueError: if no token is given and the tokenizer has neither, or there is no such token.
    """
    require_model(model)
    if token_id is not None and not 0 <= token_id < model.cfg.d_vocab:
        raise ValueError(
            f"replacement_token: token id {token_id} is outside the vocabulary of "
            f"{model.cfg.d_vocab}."
        )
    tokenizer = model.tokenizer
    candidates = [token_id, *(getattr(tokenizer, f"{k}_token_id", None) for k in ("unk", "eos"))]
    chosen = next((c for c in candidates if c is not None), None)
    if chosen is None:
        raise ValueError(
            "this tokenizer has no unknown or end token. Choose a token: "
            "removal=replacement_token(model, token_id)."
        )
    text = decoder(model)(chosen)
    return replace(
        by_position("replace", lambda pos: replace_token(pos, chosen)),
        note=f"{text!r} replaces what is removed.",
    )


REMOVALS: dict[str, Callable[[Model], Removal]] = {
    "delete": deletion,
    "delete_keep": deletion_in_place,
    "knockout": attention_knockout,
    "suppress": suppression,
    "mean": mean_embedding,
    "resample": resampled_token,
    "replace": replacement_token,
}
"""Name -> the function that makes the removal for a model."""


def _hide_keys(model: Model, positions: tuple[int, ...], change: float) -> Specs:
    """Specs that add `change` to the scores of every later query for these keys, in every layer."""

    def less(old: Tensor, at: At) -> Tensor:
        # old: prompt head query key; a pass may begin late, so queries are the last positions.
        keys = torch.stack([at.prompts.positions(pos) for pos in positions], 1)
        pos = torch.arange(old.shape[-1], device=old.device)
        queries = pos[-old.shape[-2] :]
        gone = (keys[:, :, None] == pos).any(1)  # prompt key
        link = gone[:, None, :] & (queries[:, None] > pos)  # prompt query key
        return torch.where(link[:, None], old + change, old)

    shown = "@" + ",".join(map(str, positions))
    specs: Specs = ()
    for layer in range(model.cfg.n_layers):
        specs += edit(Site("attn_scores", layer), less, name=f"hide{shown} from")
    return specs
