"""A token-attribution result as a view shows it: rows of ranked scores.

The page and the terminal both show a `Reading`; it computes no attribution, it only ranks what is
there. Scores that are not finite (BOS, template tokens, tokens after the output) have no rank.

    reading = read_scores(scores)
    reading.rows[0].order[0]          # index of the input with the largest |score|
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NotRequired, TypedDict, cast

import numpy as np
import xarray as xr

from mechinterp.report.attribution.inputs import Input, Segment, are_words, read_inputs, segments
from mechinterp.report.render.ranks import ranks_and_shares
from mechinterp.report.render.support import Sign, supporting_sign
from mechinterp.stats.additivity import shows_redundancy

_COORDS = ("output_token", "output_token_id", "output_score")
_INPUT_COORDS = ("input_token", "input_token_id", "input_role")
_FAINT = 0.01
_MOST_BARE = 4  # inputs without a score, such as a start token, that tables have all the same
_CONTROLS = ("output_score", "baseline_score", "bos_effect", "joint_effect", "residual")


@dataclass(frozen=True)
class Row:
    """The scores of all inputs for one output, or (`output` None) for the mean of them.

    `errors`: standard errors; `baseline_score`: where gradients begin; `joint_effect`: of removing
    all inputs at once; `residual`: 1 less the sum of the scores over it. NaN where there is none.
    """

    output: int | None
    token: str
    scores: tuple[float, ...]
    ranks: tuple[int | None, ...]
    shares: tuple[float, ...]
    n_flips: tuple[int, ...]
    errors: tuple[float, ...]
    output_score: float = math.nan
    baseline_score: float = math.nan
    bos_effect: float = math.nan
    joint_effect: float = math.nan
    residual: float = math.nan

    @property
    def order(self) -> tuple[int, ...]:
        """Indices of the inputs: ranked ones by |score|, then the rest as they stand."""
        last = len(self.ranks) + 1
        return tuple(sorted(range(len(self.ranks)), key=lambda i: self.ranks[i] or last))

    @property
    def n_ranked(self) -> int:
        """How many inputs have a score."""
        return sum(rank is not None for rank in self.ranks)

    @property
    def total(self) -> float:
        """The sum of the scores."""
        return math.fsum(score for score in self.scores if math.isfinite(score))

    @property
    def total_size(self) -> float:
        """The sum of the scores' sizes."""
        return math.fsum(abs(score) for score in self.scores if math.isfinite(score))


class RedundantGroup(TypedDict):
    """Inputs that stand in for each other for one output, as pair removals found them.

    `joint`: what removing all of them does; `sum`: what removing each alone does, added up;
    `share`: the joint effect over that of removing all inputs. `members`: the numbers of the units
    that are enough together; without it each unit is a member.
    """

    output: int
    units: list[int]
    texts: list[str]
    joint: float
    sum: float
    share: NotRequired[float | None]
    members: NotRequired[list[list[int]]]


@dataclass(frozen=True)
class Reading:
    """A whole result: its inputs, a row for each output, their mean, the largest |score|.

    Where all scores are below 1% of the effect of removing all inputs, `largest` is that 1%, so
    that no colour makes them look large; scores below it are `faint`. `knows_flips`: whether the
    model ran without each input, so that a change of its top token is known. `segments`: the
    prompt as it is shown. `spaced`: its tokens are words, without the spaces between them.
    """

    inputs: tuple[Input, ...]
    segments: tuple[Segment, ...]
    spaced: bool
    rows: tuple[Row, ...]
    mean: Row
    largest: float
    unit: str
    attrs: Mapping[str, object]
    knows_flips: bool

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """The rows, and their mean where there are several."""
        return (*self.rows, self.mean) if len(self.rows) > 1 else self.rows

    @cached_property
    def listed(self) -> tuple[int, ...]:
        """Indices of the inputs in tables: those without a score are left out if they are many."""
        scored = [
            i for i in range(len(self.inputs)) if any(row.ranks[i] is not None for row in self.rows)
        ]
        n_bare = len(self.inputs) - len(scored)
        return tuple(scored) if scored and n_bare > _MOST_BARE else tuple(range(len(self.inputs)))

    @property
    def n_left_out(self) -> int:
        """How many inputs are left out of tables."""
        return len(self.inputs) - len(self.listed)

    @property
    def has_bos_control(self) -> bool:
        """Whether the effect of removing BOS was measured for any output."""
        return any(math.isfinite(row.bos_effect) for row in self.rows)

    @property
    def has_joint_effect(self) -> bool:
        """Whether the effect of removing all inputs was measured for any output."""
        return any(math.isfinite(row.joint_effect) for row in self.rows)

    @property
    def adds_up(self) -> bool:
        """Whether `target` is known for any output."""
        return any(math.isfinite(self.target(row)) for row in self.rows)

    @property
    def has_flips(self) -> bool:
        """Whether the model's top token is known to change without some input."""
        return any(row.n_flips[i] for row in self.rows for i in self.listed)

    @property
    def has_errors(self) -> bool:
        """Whether any score has a standard error above 0, which is that of an exact value."""
        return any(math.isfinite(e) and e > 0 for row in self.rows for e in row.errors)

    @property
    def error_meaning(self) -> str:
        """What the standard errors are taken over."""
        n_draws = self.attrs.get("n_draws", 1)
        drawn = isinstance(n_draws, int | float | np.number) and n_draws > 1
        return f"standard error over the {'draws of the removal' if drawn else 'sets drawn'}"

    def target(self, row: Row) -> float:
        """What the scores should add up to: output - baseline, or removing all; NaN: not known."""
        change = row.output_score - row.baseline_score
        if math.isfinite(change):
            return -change if self.is_distance else change
        return row.joint_effect

    def share(self, row: Row) -> float:
        """The sum of the scores over `target`; NaN if that is zero or not known."""
        if math.isfinite(row.baseline_score):
            target = self.target(row)
            return row.total / target if target else math.nan
        return 1 - row.residual

    @property
    def can_be_hidden_from(self) -> bool:
        """Whether inputs were removed one at a time or in pairs, which misses larger groups."""
        return str(self.attrs.get("method", "leave-one-out")) in (
            "leave-one-out",
            "single and pair removals",
        )

    @property
    def faint(self) -> float:
        """1% of the effect of removing all inputs: a smaller score counts as none."""
        joint = [abs(row.joint_effect) for row in self.rows if math.isfinite(row.joint_effect)]
        return _FAINT * max(joint, default=0.0)

    @property
    def is_distance(self) -> bool:
        """Whether the scores are distances, which have no direction, as `attrs["sign"]` says."""
        return "no direction" in str(self.attrs.get("sign", ""))

    @property
    def groups(self) -> list[RedundantGroup]:
        """The groups of inputs that pair removals found to be redundant; none of other methods."""
        return cast("list[RedundantGroup]", self.attrs.get("groups", []))

    @property
    def supports(self) -> Sign:
        """The sign of the scores that support the output."""
        return supporting_sign(self.attrs)

    def shows_redundancy(self, row: Row) -> bool:
        """Whether removing all inputs does more than twice the sum of the |scores|."""
        parts, joint = np.array([[row.total_size]]), np.array([row.joint_effect])
        return (
            self.can_be_hidden_from
            and not self.is_distance
            and bool(shows_redundancy(parts, joint, self.unit)[0])
        )


def read_scores(scores: xr.DataArray) -> Reading:
    """Rank the scores of every output, and of the mean over outputs.

    The mean of an input is over the outputs for which it has a score.

    Raises:
        ValueError: if a dimension or a coordinate is missing, or there is nothing to show.
    """
    scores = _checked(scores)
    values = np.asarray(scores.values, dtype=float)
    nothing = np.full(values.shape, math.nan)
    flips = np.nan_to_num(_coord(scores, "flip", nothing).astype(float)).astype(int)
    errors = _coord(scores, "error", nothing)
    controls = {name: _coord(scores, name, nothing[:, 0]) for name in _CONTROLS}
    rows = tuple(
        _row(
            values[i],
            flips[i],
            errors[i],
            output=int(scores["output"].values[i]),
            token=str(scores["output_token"].values[i]),
            **{name: float(effects[i]) for name, effects in controls.items()},
        )
        for i in range(len(values))
    )
    largest = _largest(values, _FAINT * controls["joint_effect"])
    inputs = read_inputs(scores)
    shown = segments(scores, inputs)
    return Reading(
        inputs=inputs,
        segments=shown,
        spaced=are_words(shown),
        rows=rows,
        mean=_row(_finite_mean(values), flips.sum(axis=0), nothing[0], output=None, token=""),
        largest=largest,
        unit=str(scores.attrs.get("unit", "")),
        attrs={str(key): value for key, value in scores.attrs.items()},
        knows_flips="flip" in scores.coords,
    )


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


def _largest(*values: np.ndarray) -> float:
    return max((float(np.abs(v[np.isfinite(v)]).max(initial=0.0)) for v in values), default=0.0)


def _coord(scores: xr.DataArray, name: str, otherwise: np.ndarray) -> np.ndarray:
    return np.asarray(scores[name].values) if name in scores.coords else otherwise


def _row(
    scores: np.ndarray,
    n_flips: np.ndarray,
    errors: np.ndarray,
    *,
    output: int | None,
    token: str,
    **controls: float,
) -> Row:
    ranks, shares = ranks_and_shares(scores)
    return Row(
        output=output,
        token=token,
        scores=tuple(float(score) for score in scores),
        ranks=ranks,
        shares=shares,
        n_flips=tuple(int(n) for n in n_flips),
        errors=tuple(float(error) for error in errors),
        **controls,
    )


def _finite_mean(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    n_scores = finite.sum(axis=0)
    total = np.where(finite, values, 0.0).sum(axis=0)
    return np.where(n_scores > 0, total / np.maximum(n_scores, 1), math.nan)
