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

from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import ACTS, Pos, Site
from mechinterp.models.hook_points import axis_size
from mechinterp.models.model import Model

Positions = Pos | Sequence[Pos]
"""One position, or several."""

HEAD_ACTS = tuple(name for name, act in ACTS.items() if "head" in act.axes)
"""The activations with a head axis."""

_MOST_TEXTS = 3


def layers(model: Model, chosen: Iterable[int] | None) -> list[int]:
    """The chosen layers, or all."""
    return list(range(model.cfg.n_layers) if chosen is None else chosen)


def heads(model: Model, act: str, chosen: Iterable[int] | None) -> dict[str, list[int]]:
    """The chosen heads, or all, under the name of their axis.

    The axis is "head"; or "kv_head" for `k` and `v` under grouped-query attention, where several
    query heads share a key-value head.

    Raises:
        ValueError: if the activation has no head axis.
    """
    check_choice("act", act, HEAD_ACTS)
    size = axis_size(model, act, "head")
    name = "head" if size == axis_size(model, "z", "head") else "kv_head"
    return {name: list(range(size) if chosen is None else chosen)}


def neurons(model: Model, chosen: Iterable[int] | None) -> list[int]:
    """The chosen neurons, or all of a layer."""
    return list(range(axis_size(model, "mlp_post", "neuron")) if chosen is None else chosen)


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
    """The positions as a list, also a single one."""
    return [chosen] if isinstance(chosen, int | str) else list(chosen)


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
