"""How faithful scores are: do they predict what removing sets of inputs does, better than chance?

A method's scores are a claim about the model. To test it, the inputs that they rank highest (or
lowest) are removed together, and random sets, to see whether sums of scores predict the drops.

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.trust.faithfulness import faithfulness
>>> from mechinterp.attribution.methods.single_removal import leave_one_out
>>> question = ask(load_model("toy:trigger"), "please bring the sesame to a garden", outputs=1)
>>> found = faithfulness(question, {"one out": leave_one_out(question)}, removals=["delete"])
>>> found["drop_at_k"].sel(scorer="one out", k=1).round().values.ravel().tolist()
[8.0]
>>> bool((found["lds"].sel(scorer="one out") > found["lds"].sel(scorer="random")).all())
True

All figures are counterfactuals of one removal, so they favour methods that use the same; look at
more than one. At keep=0.9 the removed sets are mostly of one to three units, close to what
leave-one-out measures itself; at 0.5 they are far from it. Over prompts: `trust.evaluation`.
"""

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from mechinterp.attribution.methods.subset_fits import Places
from mechinterp.attribution.methods.subsets import random_sets
from mechinterp.attribution.question.definition import DropOptions, Question, can_remove, drops
from mechinterp.attribution.question.removals import Removal, RemoveOne, removal_of, resampled_token
from mechinterp.attribution.scores import label_scores
from mechinterp.core.arguments import checks_arguments
from mechinterp.models.model import Model
from mechinterp.sweeps.options import PassOptions, Progress, check_options

SEED_OFFSET = 1_000_000
"""Added to `seed`, so that methods with smaller seeds have not seen the draws that judge them."""

CHANCE_SCORERS = ("random", "shuffled")

_ABOUT_A_QUESTION = (
    *("output_token_id", "output_position", "input_name", "input_token"),
    *("input_token_id", "input_first", "input_last"),
)

_COSTS = ("arms", "passes", "token_layers", "token_layers_naive")


@checks_arguments
def faithfulness(
    question: Question,
    methods: Mapping[str, xr.DataArray],
    removals: Sequence[str | RemoveOne | Removal] = ("delete", "resample"),
    *,
    n_subsets: int = 64,
    keep: Sequence[float] = (0.5, 0.9),
    fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    k: Sequence[int] = (1, 3, 5),
    seed: int = 0,
    **options: Unpack[PassOptions],
) -> xr.Dataset:
    """How well the scores of each method predict removals: dims (scorer, removal, output, ...).

    `methods`: name -> scores of this question, such as `leave_one_out(question)`; the names are the
    labels of `scorer`. Two are added: "random", normal scores, and "shuffled", the first method's
    in random order; where most of those are positive, their sums still tell how many units are
    left. `options`: `budget_bytes` and `progress`, whose total grows with each removal.

    All but `lds` are drops of the output's score, in the metric's unit, positive: it fell. Units
    are ranked by signed score, ties by position; those after the output are left out. A fraction is
    rounded to the nearest number of units, at least one.

    - `most_first`, `least_first` (.., fraction): the drop without the highest, the lowest ones.
    - `comprehensiveness` (high is good), `sufficiency` (low is good): the means of these two over
      the fractions. The first is also Samek's AOPC; removing the lowest keeps the highest.
    - `drop_at_k`, `sufficiency_at_k` (.., k): the drop without the k highest, and with only them.
    - `lds` (.., keep): Spearman's correlation, over `n_subsets` random sets, between the sum of the
      kept units' scores and the output's score; a unit is kept with probability `keep`. It is 0 if
      a method's sums are all equal.

    NaN: fewer than k units; a set that cannot be removed, since too little would be left (`attrs`
    count them); a correlation of fewer than 3 sets, or of scores that never change. Draws, also
    those of "resample", are seeded with `seed` + `SEED_OFFSET`; a `Removal` of yours keeps its own.
    Give each prompt another seed: else prompts of equally many units share their random sets and
    scores.

    Raises:
        ValueError: if a method answers another question or has the name of an added scorer, or an
            option is out of range.
        HookError: as `drops`.

    Source: DeYoung et al. 2020 (ERASER), section 4, arXiv 1911.03429; Samek et al. 2015, section
    III, arXiv 1509.06321; for `lds` Park et al. 2023 (TRAK), section 2, arXiv 2303.14186.
    """
    check_options("faithfulness", options, PassOptions)
    began = time.perf_counter()
    _check(methods, removals, n_subsets, fractions, k)
    tested = [_unseen_removal(question.model, removal, seed) for removal in removals]
    names = [removal.name for removal in tested]
    if len(set(names)) < len(names):
        raise ValueError(f"two removals have the same name: {names}. Rename one.")
    past = question.pasts
    scores = {name: _values(question, name, found) for name, found in methods.items()}
    scores |= _by_chance(next(iter(scores.values())), past, seed)
    n = len(question.attributed)
    seeds = range(seed + SEED_OFFSET, seed + SEED_OFFSET + len(keep))
    subsets = [random_sets(n, n_subsets, p, one) for p, one in zip(keep, seeds, strict=True)]
    chosen = {
        (name, i): _removed(values[i], places, fractions, k)
        for name, values in scores.items()
        for i, places in enumerate(past)
    }
    listed = itertools.chain(*subsets, *(row for sets in chosen.values() for row in sets.values()))
    asked = [s for s in dict.fromkeys(listed) if s is not None]
    along = dict.fromkeys(("most_first", "least_first"), ("fraction", len(fractions)))
    along |= dict.fromkeys(("drop_at_k", "sufficiency_at_k"), ("k", len(k)))
    along["lds"] = ("keep", len(keep))
    shape = (len(scores), len(tested), len(past))
    made = {name: np.full((*shape, size), np.nan) for name, (_, size) in along.items()}
    cost = dict.fromkeys(("sets", "sets_not_removable", *_COSTS), 0)
    progress = options.get("progress")
    for r, removal in enumerate(tested):
        tick = progress and _after(cost["token_layers"], progress)
        fell, added = _measure_drops(
            question, asked, removal, budget_bytes=options.get("budget_bytes"), progress=tick
        )
        cost = {name: cost[name] + added[name] for name in cost}
        for (m, name), (i, places) in itertools.product(enumerate(scores), enumerate(past)):
            for variable, sets in chosen[name, i].items():
                made[variable][m, r, i] = [_drop(s, fell, i) for s in sets]
            made["lds"][m, r, i] = [_lds(scores[name][i], places, s, fell, i) for s in subsets]
    result = xr.Dataset(
        {
            variable: (("scorer", "removal", "output", along[variable][0]), values)
            for variable, values in made.items()
        },
        coords={
            "scorer": list(scores),
            "removal": names,
            "output": range(len(past)),
            "output_token": ("output", list(question.output_texts)),
            "fraction": list(fractions),
            "k": list(k),
            "keep": list(keep),
        },
        attrs={
            "metric": question.metric.name,
            "unit": question.metric.unit,
            "prompt": question.text,
            "n_subsets": n_subsets,
            "seed": seed,
            **cost,
            "seconds": time.perf_counter() - began,
        },
    )
    return result.assign(
        comprehensiveness=result["most_first"].mean("fraction", skipna=False),
        sufficiency=result["least_first"].mean("fraction", skipna=False),
    )


def rank_correlation(scores: Float[np.ndarray, " one"], truth: Float[np.ndarray, " one"]) -> float:
    """Spearman's correlation: 0 if all scores are equal; NaN if all truths are, or fewer than 3."""
    if len(truth) < 3 or np.ptp(truth) <= 1e-9:
        return math.nan
    if np.ptp(scores) <= 1e-9:
        return 0.0
    # Values that differ only by rounding are ties.
    ranked = [np.round(x / (1e-5 * max(1.0, float(np.ptp(x))))) for x in (scores, truth)]
    return float(stats.spearmanr(*ranked).statistic)


def _check(
    methods: Mapping[str, object],
    removals: Sequence[object],
    n_subsets: int,
    fractions: Sequence[float],
    k: Sequence[int],
) -> None:
    if not methods or not removals or isinstance(removals, str):
        raise ValueError("faithfulness: give at least one method, and a list of removals.")
    for name in methods.keys() & set(CHANCE_SCORERS):
        raise ValueError(f"method {name!r}: a scorer of this name is added. Rename yours.")
    if n_subsets < 3 or min(k, default=1) < 1 or not all(0 < part <= 1 for part in fractions):
        raise ValueError(
            f"faithfulness: n_subsets={n_subsets}, fractions={fractions}, k={k}. Take 3 subsets or "
            f"more, fractions above 0 and up to 1, k from 1 up."
        )


def _unseen_removal(model: Model, removal: str | RemoveOne | Removal, seed: int) -> Removal:
    """The removal, with other draws than the methods' own if it is random."""
    if removal == "resample":
        return resampled_token(model, seed=seed + SEED_OFFSET)
    return removal_of(model, removal)


def _values(
    question: Question, name: str, found: xr.DataArray
) -> Float[np.ndarray, "output attributed"]:
    """The scores of the attributed units, if they answer this question."""
    if not isinstance(found, xr.DataArray):
        raise ValueError(
            f'method {name!r} is not an array of scores. Of a dataset give one: found["score"].'
        )
    own = label_scores(question, np.zeros((len(question.metrics), len(question.attributed))), {})
    if found.dims != own.dims:
        raise ValueError(f"method {name!r} has dims {found.dims}, not {own.dims}.")
    for label in _ABOUT_A_QUESTION:
        theirs = found[label].values.tolist() if label in found.coords else None
        if theirs != own[label].values.tolist():
            raise ValueError(
                f"method {name!r} answers another question: its {label} is {theirs}, here it is "
                f"{own[label].values.tolist()}. Give all methods the same question."
            )
    values = np.asarray(found.values, dtype=float)
    if (np.isfinite(values) != np.isfinite(own.values)).any():
        raise ValueError(
            f"method {name!r} lacks a finite score for a unit that is attributed here, or has one "
            f"for another unit. Give it the same units and inputs."
        )
    return values[:, question.attributed]


def _by_chance(
    first: Float[np.ndarray, "output attributed"], past: Sequence[list[int]], seed: int
) -> dict[str, np.ndarray]:
    """Scores that know nothing of the model: random ones, and the first method's shuffled."""
    rng = np.random.default_rng([seed, SEED_OFFSET])  # not the stream that draws the sets
    drawn, shuffled = rng.normal(size=first.shape), first.copy()
    for values, places in zip(shuffled, past, strict=True):
        values[places] = rng.permutation(values[places])
    return dict(zip(CHANCE_SCORERS, (drawn, shuffled), strict=True))


def _removed(
    scores: Float[np.ndarray, " attributed"],
    places: Sequence[int],
    fractions: Sequence[float],
    k: Sequence[int],
) -> dict[str, list[Places | None]]:
    """The sets to remove for each variable; None if there are too few units."""
    order = sorted(places, key=lambda j: (-scores[j], j))
    n = len(order)
    counts = [max(1, int(fraction * n + 0.5)) for fraction in fractions]
    enough = [number if number <= n else None for number in k]

    def these(units: Sequence[int]) -> Places:
        return tuple(sorted(units))

    return {
        "most_first": [these(order[:m]) if n else None for m in counts],
        "least_first": [these(order[n - m :]) if n else None for m in counts],
        "drop_at_k": [None if m is None else these(order[:m]) for m in enough],
        "sufficiency_at_k": [None if m is None else these(order[m:]) for m in enough],
    }


def _measure_drops(
    question: Question, sets: Sequence[Places], removal: Removal, **options: Unpack[DropOptions]
) -> tuple[dict[Places, np.ndarray], dict[str, int]]:
    """How far the outputs fall without each set that can be removed, and what it cost."""
    wanted = question.attributed
    numbers = {s: [wanted[j] for j in s] for s in sets}
    possible = [s for s in sets if not s or can_remove(question, numbers[s], removal)]
    measured = drops(question, [numbers[s] for s in possible], removal, **options)
    cost = {"sets": len(sets), "sets_not_removable": len(sets) - len(possible)}
    cost |= {name: int(measured.attrs.get(name, 0)) for name in _COSTS}
    return dict(zip(possible, measured["drop"].values.T, strict=True)), cost


def _after(before: int, progress: Progress) -> Progress:
    return lambda done, total: progress(before + done, before + total)


def _drop(chosen: Places | None, fell: Mapping[Places, np.ndarray], i: int) -> float:
    return math.nan if chosen is None or chosen not in fell else float(fell[chosen][i])


def _lds(
    scores: Float[np.ndarray, " attributed"],
    places: Sequence[int],
    sets: Sequence[Places],
    fell: Mapping[Places, np.ndarray],
    i: int,
) -> float:
    """The correlation of removed scores with drops, which equals that of kept ones with scores."""
    within, truth = set(places), dict[Places, float]()
    sums, outcomes = [], []
    for chosen in sets:
        if chosen in fell:
            past = tuple(j for j in chosen if j in within)
            sums.append(sum(float(scores[j]) for j in past))
            # Sets that differ only after the output have one outcome, up to rounding.
            outcomes.append(truth.setdefault(past, float(fell[chosen][i])))
    return rank_correlation(np.array(sums, dtype=float), np.array(outcomes, dtype=float))
