"""What a named sweep ranges over: layers, heads, neurons and positions, those given or all.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.sweeps.axes import heads, positions, token_labels
>>> model = load_model("toy:trigger")
>>> heads(model, "z", None)
{'head': [0, 1, 2]}
>>> prompts = tokenize(model, ["please bring the sesame", "please bring the letter"])
>>> token_labels(prompts, positions(prompts, None))
['<bos>', 'please', 'bring', 'the', 'sesame/letter']
"""

from collections.abc import Iterable, Sequence

import xarray as xr

from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import ACTS, Pos, Site
from mechinterp.models.hook_points import axis_size
from mechinterp.models.model import Model

Positions = Pos | Sequence[Pos]
"""One position, or several."""

HEAD_ACTS = tuple(name for name, act in ACTS.items() if "head" in act.axes)
"""The activations that each head has of its own."""

_MOST_TEXTS = 3


def layers(model: Model, chosen: Iterable[int] | None) -> list[int]:
    """The chosen layers, or all."""
    return list(range(model.cfg.n_layers) if chosen is None else chosen)


def heads(model: Model, act: str, chosen: Iterable[int] | None) -> dict[str, list[int]]:
    """The chosen heads, or all, by the name of their axis.

    That is "head", or "kv_head" where several query heads share one, as `k` and `v` do under
    grouped-query attention.

    Raises:
        ValueError: if heads have no such activation of their own.
    """
    check_choice("act", act, HEAD_ACTS)
    size = axis_size(model, act, "head")
    name = "head" if size == axis_size(model, "z", "head") else "kv_head"
    return {name: list(range(size) if chosen is None else chosen)}


def neurons(model: Model, chosen: Iterable[int] | None) -> list[int]:
    """The chosen neurons, or all of a layer."""
    return list(range(axis_size(model, "mlp_post", "neuron")) if chosen is None else chosen)


def positions(prompts: Prompts, chosen: Positions | None) -> list[Pos]:
    """The chosen positions; else all, or those with a name if the prompts differ in length.

    Raises:
        ValueError: if they differ in length and name none.
    """
    if chosen is not None:
        return given_positions(chosen)
    lengths = prompts.lengths.tolist()
    if min(lengths) == max(lengths):
        return list(range(lengths[0]))
    if not prompts.names:
        raise ValueError(
            f"the prompts have {min(lengths)} to {max(lengths)} tokens, so that a position by its "
            f"number is not the same in all. Name some, prompts.named(subject=[...]), or give "
            f'positions=[...], such as ["end"].'
        )
    return list(prompts.names)


def given_positions(chosen: Positions) -> list[Pos]:
    """The positions as a list, of one too."""
    return [chosen] if isinstance(chosen, int | str) else list(chosen)


def at_positions(site: Site, chosen: Positions | None) -> list[Site]:
    """The site at each of the chosen positions; the site itself if none are chosen.

    Raises:
        ValueError: if the site has a position already, or its activation has no positions.
    """
    if chosen is None:
        return [site]
    if site.pos is not None:
        raise ValueError(f"{site} has a position already. Leave positions out.")
    return [
        Site(site.act, site.layer, site.head, pos, site.neuron) for pos in given_positions(chosen)
    ]


def token_labels(prompts: Prompts, chosen: Sequence[Pos]) -> list[str]:
    """The text at each position; if the prompts differ there, up to three texts and then "…"."""
    texts, labels = prompts.token_text, []
    for pos in chosen:
        at = prompts.given_positions(pos).tolist()
        seen = list(dict.fromkeys(texts[row][i] for row, i in enumerate(at)))
        labels.append("/".join(seen[:_MOST_TEXTS] + ["…"] * (len(seen) > _MOST_TEXTS)))
    return labels


def with_tokens(result: xr.DataArray, prompts: Prompts, chosen: Sequence[Pos]) -> xr.DataArray:
    """The result with the tokens' text beside `pos`."""
    return result.assign_coords(token=("pos", token_labels(prompts, chosen)))


def check_choice(name: str, given: str, known: Sequence[str]) -> None:
    """Nothing, if it is one of those known.

    Raises:
        ValueError: if not, naming them.
    """
    if given not in known:
        raise ValueError(f"{name}={given!r} is none of {', '.join(map(repr, known))}.")
