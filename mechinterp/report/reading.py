"""A token-attribution result as a reader goes through it: rows of ranked scores.

The page and the terminal both show a `Reading`; it computes no attribution, it only ranks what is
there. Scores that are not finite (BOS, template tokens, tokens after the output) have no rank.

    reading = read_scores(scores)
    reading.rows[0].order[0]          # index of the input token with the largest |score|
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

_COORDS = ("output_token", "output_token_id", "output_score")
_INPUT_COORDS = ("input_token", "input_token_id", "input_role")


@dataclass(frozen=True)
class InputToken:
    """One token of the model's input; `repeated` if its text occurs at another position too."""

    pos: int
    token: str
    token_id: int
    role: str
    repeated: bool


@dataclass(frozen=True)
class Row:
    """The scores of all input tokens for one output, or (`output` None) for the mean of them."""

    output: int | None
    token: str
    scores: tuple[float, ...]
    ranks: tuple[int | None, ...]
    shares: tuple[float, ...]
    n_flips: tuple[int, ...]
    output_score: float = math.nan
    bos_effect: float = math.nan

    @property
    def order(self) -> tuple[int, ...]:
        """Indices of the input tokens: ranked ones by |score|, then the rest as they stand."""
        last = len(self.ranks) + 1
        return tuple(sorted(range(len(self.ranks)), key=lambda i: self.ranks[i] or last))

    @property
    def n_ranked(self) -> int:
        """How many input tokens have a score."""
        return sum(rank is not None for rank in self.ranks)


@dataclass(frozen=True)
class Reading:
    """A whole result: its input tokens, a row for each output, their mean, the largest |score|."""

    inputs: tuple[InputToken, ...]
    rows: tuple[Row, ...]
    mean: Row
    largest: float
    unit: str
    attrs: Mapping[str, Any]

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """The rows, and their mean where there are several."""
        return (*self.rows, self.mean) if len(self.rows) > 1 else self.rows

    @property
    def has_bos_control(self) -> bool:
        """Whether the effect of removing BOS was measured for any output."""
        return any(math.isfinite(row.bos_effect) for row in self.rows)


def read_scores(scores: xr.DataArray) -> Reading:
    """Rank the scores of every output, and of the mean over outputs.

    The mean of an input token is over the outputs for which it has a score.

    Raises:
        ValueError: if a dimension or a coordinate is missing, or there is nothing to show.
    """
    scores = _checked(scores)
    values = np.asarray(scores.values, dtype=float)
    n_outputs, n_inputs = values.shape
    empty = np.zeros((n_outputs, n_inputs), dtype=bool)
    flips = np.asarray(scores["flip"].values if "flip" in scores.coords else empty, dtype=int)
    no_control = np.full(n_outputs, math.nan)
    bos = scores["bos_effect"].values if "bos_effect" in scores.coords else no_control
    rows = tuple(
        _row(
            values[i],
            flips[i],
            output=int(scores["output"].values[i]),
            token=str(scores["output_token"].values[i]),
            output_score=float(scores["output_score"].values[i]),
            bos_effect=float(bos[i]),
        )
        for i in range(n_outputs)
    )
    finite = np.abs(values[np.isfinite(values)])
    return Reading(
        inputs=_input_tokens(scores),
        rows=rows,
        mean=_row(_finite_mean(values), flips.sum(axis=0), output=None, token=""),
        largest=float(finite.max()) if finite.size else 0.0,
        unit=str(scores.attrs.get("unit", "")),
        attrs={str(key): value for key, value in scores.attrs.items()},
    )


def ranks_and_shares(scores: np.ndarray) -> tuple[tuple[int | None, ...], tuple[float, ...]]:
    """Ranks by |score| from 1, and |score| over the sum of all; what is not finite has neither."""
    size = np.where(np.isfinite(scores), np.abs(scores), -1.0)
    ranks: list[int | None] = [None] * len(scores)
    for rank, index in enumerate(np.argsort(-size, kind="stable"), start=1):
        if size[index] >= 0:
            ranks[int(index)] = rank
    mass = size[size > 0].sum()
    shares = [math.nan if s < 0 else float(s / mass) if mass > 0 else 0.0 for s in size]
    return tuple(ranks), tuple(shares)


def _checked(scores: xr.DataArray) -> xr.DataArray:
    if set(scores.dims) != {"output", "input"}:
        raise ValueError(
            f"scores has dims {scores.dims}, not ('output', 'input'). "
            "Average or select the other dimensions first."
        )
    missing = [name for name in (*_COORDS, *_INPUT_COORDS) if name not in scores.coords]
    if missing:
        raise ValueError(
            f"scores lacks the coordinates {missing}. Pass the result of token attribution as it "
            "came: arithmetic on it may have dropped them."
        )
    if 0 in scores.shape:
        raise ValueError(f"scores has shape {scores.shape}: there is no score to show.")
    return scores.transpose("output", "input")


def _input_tokens(scores: xr.DataArray) -> tuple[InputToken, ...]:
    tokens = [str(token) for token in scores["input_token"].values]
    times = Counter(tokens)
    return tuple(
        InputToken(int(pos), token, int(token_id), str(role), times[token] > 1)
        for pos, token, token_id, role in zip(
            scores["input"].values,
            tokens,
            scores["input_token_id"].values,
            scores["input_role"].values,
            strict=True,
        )
    )


def _row(
    scores: np.ndarray,
    n_flips: np.ndarray,
    *,
    output: int | None,
    token: str,
    output_score: float = math.nan,
    bos_effect: float = math.nan,
) -> Row:
    ranks, shares = ranks_and_shares(scores)
    return Row(
        output=output,
        token=token,
        scores=tuple(float(score) for score in scores),
        ranks=ranks,
        shares=shares,
        n_flips=tuple(int(n) for n in n_flips),
        output_score=output_score,
        bos_effect=bos_effect,
    )


def _finite_mean(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    n_scores = finite.sum(axis=0)
    total = np.where(finite, values, 0.0).sum(axis=0)
    return np.where(n_scores > 0, total / np.maximum(n_scores, 1), math.nan)
