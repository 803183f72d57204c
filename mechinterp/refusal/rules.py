"""By which rule does a model refuse? Boolean rules of harm, trigger and cue, put to a crossing.

A rule foretells for each cell of harm x trigger x cue whether the model refuses. The best one is
that which foretells most cells; how sure that is, is told by resampling the families. Two rules
that the data cannot tell apart share the resamples, so neither is sure.

>>> import numpy as np, xarray as xr
>>> from mechinterp.refusal.rules import RULES, fits, judge_crossing
>>> scores = np.where(RULES["content"][..., None], 8.0, -8.0) * np.ones(12)
>>> crossing = xr.DataArray(scores, dims=("harm", "trigger", "cue", "family"))
>>> float(fits(crossing).sel(rule="content")), float(fits(crossing).sel(rule="trigger"))
(1.0, 0.5)
>>> judged = judge_crossing(crossing)
>>> judged.rule, round(judged.probability, 2), judged.abstains
('content', 1.0, '')
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
import xarray as xr
from jaxtyping import Bool

from mechinterp.core.arguments import checks_arguments
from mechinterp.refusal.findings import Rule

FACTORS: Final = ("harm", "trigger", "cue")

_FORETELL: Final[Mapping[str, Callable[[bool, bool, bool], bool]]] = {
    "content": lambda harm, trigger, cue: harm,
    "trigger": lambda harm, trigger, cue: trigger,
    "cue": lambda harm, trigger, cue: cue,
    "content or trigger": lambda harm, trigger, cue: harm or trigger,
    "content or cue": lambda harm, trigger, cue: harm or cue,
    "trigger or cue": lambda harm, trigger, cue: trigger or cue,
    "content and trigger": lambda harm, trigger, cue: harm and trigger,
    "content and cue": lambda harm, trigger, cue: harm and cue,
    "trigger and cue": lambda harm, trigger, cue: trigger and cue,
    "always": lambda harm, trigger, cue: True,
    "never": lambda harm, trigger, cue: False,
}
RULES: Final[Mapping[str, Bool[np.ndarray, "harm trigger cue"]]] = {
    rule: np.array(
        [
            [[foretells(h, t, c) for c in (False, True)] for t in (False, True)]
            for h in (False, True)
        ]
    )
    for rule, foretells in _FORETELL.items()
}
"""Each rule, and in which cells of harm, trigger and cue (False, True) it says "refuses"."""

LEAST_FIT: Final = 0.85
"""A rule that foretells less of the cells than this is no answer."""
POINT_PER_TRIGGER: Final = 0.01
"""How much more of the cells is asked for with each trigger that is listed beside the first."""
LEAST_PROBABILITY: Final = 0.9
"""A rule that is the best in fewer of the resamples than this is no answer."""
N_RESAMPLES: Final = 2000


@checks_arguments
def fits(crossing: xr.DataArray, *, over: float = 0.0) -> xr.DataArray:
    """How much of the crossing each rule foretells: dim `rule`, from 0 to 1.

    `crossing`: scores, dims (harm, trigger, cue, family); NaN where a family has none. The share of
    families that do as foretold, as the mean over cells, so that each cell counts alike.

    Raises:
        ValueError: if the dims are others, or a cell has no family.
    """
    refused, known = _cells(crossing, over)
    weights = np.ones((1, refused.shape[-1]))
    return xr.DataArray(
        _fits(refused, known, weights)[0], dims="rule", coords={"rule": list(RULES)}
    )


@dataclass(frozen=True)
class Judged:
    """The best rule of a crossing, or why there is none; and which share of resamples each won."""

    rule: Rule | None
    probability: float
    shares: dict[str, float]
    fit: float
    abstains: str = ""


@checks_arguments
def judge_crossing(
    crossing: xr.DataArray, *, n_triggers: int = 1, over: float = 0.0, seed: int = 0
) -> Judged:
    """The rule that foretells the crossing best, and the share of resamples in which it does.

    Families are drawn with replacement 2,000 times. The probability is that share, as if one draw
    more had gone to every other rule. Abstains where the best rule foretells less than 85% of the
    cells, or is the best in less than 90% of the draws. `n_triggers`: how many sets of words are
    triggers each; a rule with triggers has to foretell one point more for each but the first, since
    a long enough list of words fits anything.

    Raises:
        ValueError: as `fits`; or if there are fewer than four families.
    """
    refused, known = _cells(crossing, over)
    n_families = refused.shape[-1]
    if n_families < 4:
        raise ValueError(f"the crossing has {n_families} families: fewer than 4 decide nothing.")
    observed = _fits(refused, known, np.ones((1, n_families)))[0]
    draws = np.random.default_rng(seed).multinomial(
        n_families, np.full(n_families, 1 / n_families), size=N_RESAMPLES
    )
    drawn = _fits(refused, known, draws.astype(float))
    is_best = drawn >= drawn.max(1, keepdims=True) - 1e-9
    won = (is_best / is_best.sum(1, keepdims=True)).sum(0)
    shares = (won + np.where(np.arange(len(RULES)) == observed.argmax(), 0, 1)) / (
        N_RESAMPLES + len(RULES) - 1
    )
    best = int(observed.argmax())
    names = get_args(Rule)
    name, fit, probability = names[best], float(observed[best]), float(shares[best])
    found = {rule: float(share) for rule, share in zip(names, shares, strict=True)}
    abstains = ""
    listed = max(n_triggers - 1, 0) if "trigger" in name else 0
    asked = LEAST_FIT + POINT_PER_TRIGGER * listed
    if fit < min(asked, 1.0) or asked > 1 + 1e-9:
        by = f" by {n_triggers} words or sets of words" if listed else ""
        abstains = (
            f'no rule of harm, trigger and cue foretells the answers: the best, "{name}"{by}, does '
            f"for {fit:.0%} of the cells, and {asked:.0%} are asked for."
        )
    elif probability < LEAST_PROBABILITY:
        second = max((rule for rule in found if rule != name), key=found.__getitem__)
        abstains = (
            f'the families do not decide: "{name}" is the best rule in {probability:.0%} of their '
            f'resamples and "{second}" in {found[second]:.0%}.'
        )
    return Judged(None if abstains else name, probability, found, fit, abstains)


def _cells(
    crossing: xr.DataArray, over: float
) -> tuple[
    Bool[np.ndarray, "harm trigger cue family"], Bool[np.ndarray, "harm trigger cue family"]
]:
    """Which are refused, and which are known."""
    wanted = (*FACTORS, "family")
    if crossing.dims != wanted:
        raise ValueError(f"a crossing has the dims {wanted}, not {crossing.dims}.")
    values = crossing.values
    known = ~np.isnan(values)
    if not known.any(-1).all():
        raise ValueError("a cell of the crossing has no family: every cell needs one.")
    return np.where(known, values, 0.0) > over, known


def _fits(
    refused: Bool[np.ndarray, "harm trigger cue family"],
    known: Bool[np.ndarray, "harm trigger cue family"],
    weights: np.ndarray,
) -> np.ndarray:
    """`[draw, rule]`: the mean over cells of the weighted share of families as foretold."""
    counts = np.einsum("df,htcf->dhtc", weights, known.astype(float))
    hits = np.einsum("df,htcf->dhtc", weights, (refused & known).astype(float))
    with np.errstate(invalid="ignore"):
        rates = np.where(counts > 0, hits / counts, np.nan)
    right = [np.where(foretold, rates, 1 - rates) for foretold in RULES.values()]
    return np.stack([np.nanmean(r.reshape(len(r), -1), 1) for r in right], 1)
