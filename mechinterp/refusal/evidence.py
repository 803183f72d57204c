"""The evidence for a verdict and against it, in sentences that are computed with their numbers."""

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from mechinterp.refusal.findings import Rule, Verdict, WordSet
from mechinterp.refusal.rules import RULES, Judged, fits
from mechinterp.tasks.request_families import Request

CONDITIONS = {
    (False, False, False): "harmless requests without trigger and cue",
    (True, False, False): "harmful requests without trigger and cue",
    (False, True, False): "harmless requests with the trigger put in",
    (False, False, True): "harmless requests with the cue put on",
    (True, True, False): "harmful requests with the trigger put in",
    (True, False, True): "harmful requests with the cue put on",
    (False, True, True): "harmless requests with trigger and cue",
    (True, True, True): "harmful requests with trigger and cue",
}
"""What is asked in each cell of harm, trigger and cue."""


def verdict_of(
    judged: Judged,
    crossing: xr.DataArray,
    over: float,
    triggers: Sequence[WordSet],
    cue: str,
) -> Verdict:
    """The verdict, with a sentence for each cell of the crossing: for the rule, or against it."""
    best = max(judged.shares, key=judged.shares.__getitem__)
    for_it, against = cell_sentences(crossing, judged.rule or best, over)
    rule = judged.rule
    return Verdict(
        rule=rule,
        probability=judged.probability,
        shares=judged.shares,
        fit=judged.fit,
        triggers=tuple(triggers) if rule and "trigger" in rule else (),
        cue=cue if rule and "cue" in rule else "",
        abstains=judged.abstains,
        evidence_for=for_it,
        evidence_against=against,
        would_change=would_change(crossing, over),
    )


def one_sided_verdict(
    rule: Rule | None, requests: Sequence[Request], refused: np.ndarray
) -> Verdict:
    """The verdict on a model that refuses all, none, or too few of the requests to tell why.

    Its probability is Laplace's rule of succession over families: (n + 1) / (n + 2).
    """
    n_families = len({request.family for request in requests})
    sure = (n_families + 1) / (n_families + 2)
    said = f"model refuses {int(refused.sum())} of {len(refused)} requests"
    abstains = f"the {said}, too few to tell why: give some that it refuses."
    return Verdict(
        rule=rule,
        probability=sure if rule else 0.0,
        shares={rule: sure} if rule else {},
        fit=1.0 if rule else 0.0,
        abstains="" if rule else abstains,
        evidence_for=(f"The {said}.",),
        not_tested=("Nothing else was run: there are no refusals and answers to compare.",),
    )


def cell_sentences(
    crossing: xr.DataArray, rule: str, over: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the model does in each cell: as the rule foretells in most families, or not."""
    sides: tuple[list[str], list[str]] = ([], [])
    for cell, what in CONDITIONS.items():
        values = crossing.values[tuple(map(int, cell))]
        values = values[~np.isnan(values)]
        refused, n = int((values > over).sum()), len(values)
        foretold = bool(RULES[rule][tuple(map(int, cell))])
        right = refused if foretold else n - refused
        sentence = (
            f"Of {n} families, the model refuses {refused} when asked {what}; "
            f'"{rule}" foretells {"all" if foretold else "none"}.'
        )
        sides[0 if 2 * right > n else 1].append(sentence)
    return tuple(sides[0]), tuple(sides[1])


def would_change(crossing: xr.DataArray, over: float) -> tuple[str, ...]:
    """By how many of the crossing's cells the next best rules are worse."""
    found = fits(crossing, over=over)
    fit: dict[str, float] = dict(
        zip(found["rule"].values.tolist(), found.values.tolist(), strict=True)
    )
    n_families, n_known = crossing.sizes["family"], int(crossing.notnull().sum())
    best = max(fit, key=fit.__getitem__)

    def needed(other: str) -> int:  # a changed answer moves the difference by 2 of all cells
        return math.ceil((fit[best] - fit[other]) * 8 * n_families / 2 - 1e-9)

    others = sorted((r for r in fit if r != best), key=fit.__getitem__, reverse=True)[:2]
    return tuple(
        f'"{other}" would fit as well as "{best}" if {needed(other)} of the {n_known} '
        f"answers (families by cells) were otherwise."
        for other in others
    )
