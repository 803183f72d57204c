"""What a named sweep ranges over: the chosen layers, heads, neurons and positions, or all.

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

from mechinterp.core import indices
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import ACTS, Pos, Site
from mechinterp.models.hook_points import axis_size
from mechinterp.models.model import Model, require_model

Positions = Pos | Sequence[Pos]
"""One position, or several."""

HEAD_ACTS = tuple(name for name, act in ACTS.items() if "head" in act.axes)
"""The activations with a head axis."""

_MOST_TEXTS = 3


def layers(model: Model, chosen: Iterable[int] | None) -> list[int]:
    """The chosen layers, or all.

    Raises:
        ValueError: if they are no whole numbers.
    """
    require_model(model)
    return list(range(model.cfg.n_layers)) if chosen is None else some(chosen, "layers")


def heads(model: Model, act: str, chosen: Iterable[int] | None) -> dict[str, list[int]]:
    """The chosen heads, or all, under the name of their axis.

    The axis is "head"; or "kv_head" for `k` and `v` under grouped-query attention, where several
    query heads share a key-value head.

    Raises:
        ValueError: if the activation has no head axis.
    """
    require_model(model)
    check_choice("act", act, HEAD_ACTS)
    size = axis_size(model, act, "head")
    name = "head" if size == axis_size(model, "z", "head") else "kv_head"
    return {name: list(range(size)) if chosen is None else some(chosen, "heads")}


def neurons(model: Model, chosen: Iterable[int] | None) -> list[int]:
    """The chosen neurons, or all of a layer.

    Raises:
        ValueError: if they are no whole numbers.
    """
    require_model(model)
    every = range(axis_size(model, "mlp_post", "neuron"))
    return list(every) if chosen is None else some(chosen, "neurons")


def some(chosen: Iterable[int], name: str) -> list[int]:
    """What was chosen along an axis, as a list.

    Raises:
        ValueError: if it is nothing, or not whole numbers.
    """
    numbers = indices.indices(chosen, name)
    if not numbers:
        raise ValueError(f"{name}: none was chosen. Leave {name} out for all of them.")
    return numbers


def positions(prompts: Prompts, chosen: Positions | None) -> list[Pos]:
    """The chosen positions, or all; if the prompts differ in length, all named positions.

    Raises:
        ValueError: if the prompts differ in length and name no position.
    """
    if chosen is not None:
        return given_positions(chosen)
    lengths = prompts.lengths.tolist()
    if min(lengths) == max(lengths):
        return list(range(lengths[0]))
    if not prompts.names:
        raise ValueError(
            f"the prompts have {min(lengths)} to {max(lengths)} tokens, so a position number does "
            f"not mean the same in each. Name positions, prompts.named(subject=[...]), or give "
            f'positions=[...], such as ["end"].'
        )
    return list(prompts.names)


def given_positions(chosen: Positions) -> list[Pos]:
    """The positions as a list, also a single one.

    Raises:
        ValueError: if one is neither a whole number nor a name.
    """
    given: list[Pos] = indices.positions(chosen, "a position")
    if not given:
        raise ValueError("positions: none was chosen. Leave positions out for all of them.")
    return given


def at_positions(site: Site, chosen: Positions | None) -> list[Site]:
    """The site at each of the chosen positions; the site itself if none are chosen.

    Raises:
        ValueError: if the site has a position already, or its activation has no positions.
    """
    if chosen is None:
        return [site]
    if site.pos is not None:
        raise ValueError(f"{site} already has a position. Leave positions out.")
    return [
        Site(site.act, site.layer, site.head, pos, site.neuron) for pos in given_positions(chosen)
    ]


def token_labels(prompts: Prompts, chosen: Sequence[Pos]) -> list[str]:
    """The text at each position; where prompts differ, up to three texts, then "…"."""
    texts, labels = prompts.token_text, []
    for pos in chosen:
        at = prompts.given_positions(pos).tolist()
        seen = list(dict.fromkeys(texts[row][i] for row, i in enumerate(at)))
        labels.append("/".join(seen[:_MOST_TEXTS] + ["…"] * (len(seen) > _MOST_TEXTS)))
    return labels


def with_tokens(result: xr.DataArray, prompts: Prompts, chosen: Sequence[Pos]) -> xr.DataArray:
    """The result with a coordinate `token` beside `pos`: the text there."""
    return result.assign_coords(token=("pos", token_labels(prompts, chosen)))


def check_choice(name: str, given: str, known: Sequence[str]) -> None:
    """Check that a named choice is known.

    Raises:
        ValueError: if not, naming the known ones.
    """
    if given not in known:
        raise ValueError(f"{name}={given!r} is none of {', '.join(map(repr, known))}.")
