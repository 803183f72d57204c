"""Attention patterns of one prompt, by head: what a page shows beside a graph of heads.

read = read_patterns(patterns, None, [(9, 6), (9, 9)])
read.heads[9, 6][15]          # from the token at 15 to each one before, in thousandths
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mechinterp.report.render.tokens import show

_DIMS = ("layer", "head", "pos", "src")
_MOST_WEIGHTS = 400_000
"""How many weights a page holds; the first heads that are wanted go first."""


@dataclass(frozen=True)
class Patterns:
    """Rows of weights in thousandths, without the zeros at their ends, for each (layer, head).

    `n_left_out`: how many wanted heads found no room.
    """

    tokens: tuple[str, ...]
    heads: Mapping[tuple[int, int], list[list[int]]]
    n_left_out: int


def read_patterns(
    patterns: xr.DataArray,
    tokens: Sequence[str] | None,
    heads: Sequence[tuple[int, int]],
    *,
    most_weights: int | None = None,
) -> Patterns:
    """The patterns of these heads, as many as there is room for; heads without one are left out.

    `tokens`: the prompt; without it, the coordinate `token`, else numbers.

    Raises:
        ValueError: if the dims are not those of one prompt, or there are more or fewer tokens.
    """
    if set(patterns.dims) != set(_DIMS):
        raise ValueError(
            f"patterns has the dims {patterns.dims}, not {_DIMS}. Select one prompt, and name the "
            "axes of what read(Site('pattern', layer)) gives."
        )
    patterns = patterns.transpose(*_DIMS)
    if tokens is None and "token" in patterns.coords:
        tokens = [str(token) for token in patterns["token"].values]
    n_tokens = patterns.sizes["pos"]
    tokens = [str(pos) for pos in range(n_tokens)] if tokens is None else tokens
    if len(tokens) != n_tokens or patterns.sizes["src"] != n_tokens:
        raise ValueError(
            f"{len(tokens)} tokens, and a pattern of {n_tokens} by {patterns.sizes['src']}: "
            "give the tokens of this prompt, and the pattern of all of them."
        )
    places = [_places(patterns, dim) for dim in _DIMS[:2]]
    there = [head for head in heads if head[0] in places[0] and head[1] in places[1]]
    room = max(1, (most_weights or _MOST_WEIGHTS) // max(1, n_tokens**2))
    return Patterns(
        tuple(show(token) for token in tokens),
        {
            (layer, head): _rows(patterns.values[places[0][layer], places[1][head]])
            for layer, head in there[:room]
        },
        len(there[room:]),
    )


def _places(patterns: xr.DataArray, dim: str) -> dict[int, int]:
    """The index of each layer or head along its axis, by number."""
    numbers = patterns[dim].values if dim in patterns.coords else range(patterns.sizes[dim])
    return {int(number): place for place, number in enumerate(numbers)}


def _rows(pattern: np.ndarray) -> list[list[int]]:
    thousandths = np.rint(1000 * np.nan_to_num(pattern)).astype(int)
    ends = [np.flatnonzero(row) for row in thousandths]
    return [
        row[: end[-1] + 1].tolist() if len(end) else []
        for row, end in zip(thousandths, ends, strict=True)
    ]
