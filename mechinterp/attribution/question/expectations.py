"""Compare an attribution with what was expected: the user names the tokens that should matter.

>>> from mechinterp import attribute, compare, load_model
>>> scores = attribute(load_model("toy:trigger"), "please bring the sesame", outputs=1)
>>> compare(scores, ["sesame"])[0].verdict
'as expected'

Tokens are ranked by absolute score. Unexpected tokens that outrank expected ones come first in a
report, since they are what a safety reader must see.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool

from mechinterp.attribution.question.units import Span, Unit, find_or_raise
from mechinterp.core.arguments import checks_arguments

Expected = Span
"""A token or phrase by its text, the number of an input, or a range of inputs (first, last)."""

Verdict = Literal["as expected", "partly as expected", "not as expected"]

N_DRAWS = 20_000
CHANCE = 0.05


@dataclass(frozen=True)
class RankedInput:
    """One input token: its rank by absolute score (1 is first), score, share of absolute mass."""

    input: int
    token: str
    rank: int
    score: float
    share: float


@dataclass(frozen=True)
class Comparison:
    """How an expectation fares at one output, or (`output=None`) on the mean over all.

    `unexpected_above`: tokens that were not expected and outrank an expected one.
    `precision_at_k`: the share of expected tokens among the first k, where k is their number.
    `p_value`: how often as many tokens ranked at random reach the same average precision.
    """

    output: int | None
    output_token: str
    verdict: Verdict
    reason: str
    expected: tuple[RankedInput, ...]
    unexpected_above: tuple[RankedInput, ...]
    k: int
    precision_at_k: float
    average_precision: float
    share_of_mass: float
    p_value: float


@checks_arguments
def compare(
    scores: xr.DataArray,
    expected: Sequence[Expected] | Mapping[int, Sequence[Expected]],
    *,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """The scores of `attribute` against the input tokens that should matter.

    `expected`: the same for all outputs (compared on their mean, then on each), or by output
    number. A text means every token, or run of tokens, that spells it.

    Raises:
        ValueError: if an expected token is not among the attributed ones, listing those.
    """
    if isinstance(expected, Mapping):
        return tuple(_compare(scores, output, each, seed) for output, each in expected.items())
    outputs: list[int | None] = [None, *range(scores.sizes["output"])]
    if scores.sizes["output"] == 1:
        outputs = [0]
    return tuple(_compare(scores, output, expected, seed) for output in outputs)


def check_expected(units: Sequence[Unit], expected: Sequence[Expected]) -> None:
    """Check that scores of these units can be compared with what is expected.

    Raises:
        ValueError: as `compare`, but before anything is computed.
    """
    attributed = [number for number, unit in enumerate(units) if unit.attributed]
    _positions([unit.text for unit in units], attributed, expected)


def _compare(
    scores: xr.DataArray, output: int | None, expected: Sequence[Expected], seed: int
) -> Comparison:
    if output is not None and not 0 <= output < scores.sizes["output"]:
        raise ValueError(f"output {output}: the outputs are 0 to {scores.sizes['output'] - 1}.")
    row = scores.mean("output") if output is None else scores.isel(output=output)
    token = "all outputs" if output is None else str(row.output_token.values)
    attributed = np.flatnonzero(np.isfinite(row.values))
    size = np.abs(row.values[attributed])
    texts = [str(t) for t in scores.input_token.values]
    wanted = _positions(texts, attributed.tolist(), expected)
    is_wanted = np.isin(attributed, list(wanted))
    total = float(size.sum())
    ranked = [
        RankedInput(
            int(pos),
            texts[pos],
            1 + int((size > size[i]).sum()),
            float(row.values[pos]),
            float(size[i] / total) if total else 0.0,
        )
        for i, pos in enumerate(attributed)
    ]
    ranked.sort(key=lambda r: (r.rank, r.input))
    order = np.lexsort((attributed, -size))
    hits = is_wanted[order]
    lowest = max(r.rank for r in ranked if r.input in wanted)
    above = tuple(r for r in ranked if r.input not in wanted and r.rank < lowest)
    k = int(is_wanted.sum())
    precision, average = float(hits[:k].mean()), average_precision(hits)
    p_value = p_value_of(average, len(hits), k, seed)
    share = float(size[is_wanted].sum() / total) if total else 0.0
    verdict, reason = _judge(ranked, above, wanted, precision, share, p_value)
    return Comparison(
        output,
        token,
        verdict,
        reason,
        tuple(r for r in ranked if r.input in wanted),
        above,
        k,
        precision,
        average,
        share,
        p_value,
    )


def average_precision(hits: Bool[np.ndarray, " rank"]) -> float:
    """Mean over the expected tokens of the precision at the rank of each; 1 is perfect."""
    ranks = np.flatnonzero(hits) + 1
    return float((np.arange(1, len(ranks) + 1) / ranks).mean())


def p_value_of(average: float, n: int, k: int, seed: int) -> float:
    """How often k of n tokens ranked at random reach at least this average precision.

    Exact if there are at most `N_DRAWS` rankings, else estimated from that many draws.
    """
    if math.comb(n, k) <= N_DRAWS:
        ranks = np.array(list(itertools.combinations(range(1, n + 1), k)))
        reached = (np.arange(1, k + 1) / ranks).mean(1)
        return float((reached >= average - 1e-12).mean())
    generator = np.random.default_rng(seed)
    shuffled = generator.permuted(np.tile(np.arange(1, n + 1), (N_DRAWS, 1)), axis=1)
    reached = (np.arange(1, k + 1) / np.sort(shuffled[:, :k], axis=1)).mean(1)
    return float((1 + (reached >= average - 1e-12).sum()) / (1 + N_DRAWS))


def _judge(
    ranked: Sequence[RankedInput],
    above: Sequence[RankedInput],
    wanted: set[int],
    precision: float,
    share: float,
    p_value: float,
) -> tuple[Verdict, str]:
    """The verdict and its reason, by the first rule that applies."""
    if all(r.score == 0 for r in ranked):
        return "not as expected", "No input token has any effect on this output."
    numbers = f"{share:.0%} of the absolute mass, p = {p_value:.2g}"
    if not above:
        chance = "" if p_value <= CHANCE else " With so few tokens that could be chance."
        return (
            "as expected",
            f"Every expected token ranks above every other one ({numbers}).{chance}",
        )
    first = above[0]
    best = next(r for r in ranked if r.input in wanted)
    intruders = (
        f"{len(above)} unexpected token{'s outrank' if len(above) > 1 else ' outranks'} expected "
        f"ones, first {first.token.strip() or first.token!r} (rank {first.rank}, "
        f"{first.share:.0%} of the mass); the best expected one, "
        f"{best.token.strip() or best.token!r}, has rank {best.rank}"
    )
    if p_value > CHANCE:
        return "not as expected", f"{intruders}: no better than chance ({numbers})."
    if precision == 0:
        return "not as expected", f"{intruders}; none is among the first ({numbers})."
    return "partly as expected", f"{intruders} ({numbers})."


def _positions(
    texts: Sequence[str], attributed: Sequence[int], expected: Sequence[Expected]
) -> set[int]:
    if isinstance(expected, str) or not expected:
        raise ValueError(f"expected={expected!r}: give a list of tokens, phrases or positions.")
    found: set[int] = set()
    for item in expected:
        where = "the attributed input tokens"
        found.update(find_or_raise(texts, attributed, item, "expected", where))
    if len(found) == len(attributed):
        raise ValueError(
            "every attributed input is expected, so none is left to rank below. Name the "
            "inputs that should matter more than the others."
        )
    return found
