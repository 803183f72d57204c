"""How faithful scores are: what happens when sets of inputs are really removed, beside chance.

A method's scores are a claim about the model. Here it is tried: inputs that they rank highest (or
lowest) are removed together, and random sets are, to see whether the sums of scores foretell it.

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.trust.faithfulness import faithfulness
>>> from mechinterp.attribution.methods.single_removal import leave_one_out
>>> question = ask(load_model("toy:trigger"), "please bring the sesame to a king", outputs=1)
>>> found = faithfulness(question, {"one out": leave_one_out(question)}, removals=["delete"])
>>> found["drop_at_k"].sel(scorer="one out", k=1).round().values.ravel().tolist()
[8.0]
>>> bool((found["lds"].sel(scorer="one out") > found["lds"].sel(scorer="random")).all())
True

All figures are counterfactuals of one removal, so they favour a method that uses the same: look at
more than one. Sets that are kept at 0.9 are mostly of one to three units, near what leave-one-out
has seen itself; those at 0.5 are far from it. Over prompts: `trust.evaluation`.
"""

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from mechinterp.attribution.methods.subsets import random_sets
from mechinterp.attribution.question.definition import DropOptions, Question, can_remove, drops
from mechinterp.attribution.question.removals import Removal, RemoveOne, removal_of, resampled_token
from mechinterp.attribution.scores import scored
from mechinterp.models.model import Model
from mechinterp.sweeps.options import Progress

SEED_OFFSET = 1_000_000
"""What is added to `seed`: methods with seeds below it have not seen the draws that judge them."""

ROWS_OF_CHANCE = ("random", "shuffled")

_ABOUT_A_QUESTION = (
    *("output_token_id", "output_position", "input_name", "input_token"),
    *("input_token_id", "input_first", "input_last"),
)

_COSTS = ("arms", "passes", "token_layers", "token_layers_naive")
Places = tuple[int, ...]
"""Which of the attributed units, by their places among them."""


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
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """How well the scores of each method foretell removals: dims (scorer, removal, output, ...).

    `methods`: name -> scores of this question, such as `leave_one_out(question)`; the names are the
    labels of `scorer`. Two are added: "random", normal scores, and "shuffled", the first method's
    in another order; where most of those are positive, its sums still tell how many units are left.

    All but `lds` are drops of the output's score, in the metric's unit, positive: it fell. Units
    are ranked by their signed score, equal ones by their place; those after the output are left
    out. Of a fraction, the nearest whole number of units is taken, one at least.

    - `most_first`, `least_first` (.., fraction): the drop without the highest, the lowest ones.
    - `comprehensiveness`, `sufficiency`: the means of these two over the fractions, high and low
      is good. The first is also Samek's AOPC; as for the second, to remove the lowest is to keep
      the highest.
    - `drop_at_k`, `sufficiency_at_k` (.., k): the drop without the k highest, and with them alone.
    - `lds` (.., keep): Spearman's correlation, over `n_subsets` random sets, of the sum of the kept
      units' scores with the output's score; a unit is kept with probability `keep`. It is 0 if a
      method's sums are all equal.

    NaN: fewer than k units; a set that cannot be removed, since too little would be left (`attrs`
    count them); a correlation of fewer than 3 sets, or of scores that never move. The draws are
    from `seed` + `SEED_OFFSET`, the tokens of "resample" too, but a `Removal` of yours has its own.
    Give each prompt another seed: else those of as many units get the same sets and random scores.
    The total that `progress` is told grows with each removal.

    Raises:
        ValueError: if a method answers another question or has the name of an added row, or an
            option is out of range.
        HookError: as `drops`.

    Source: DeYoung et al. 2020 (ERASER), section 4, arXiv 1911.03429; Samek et al. 2015, section
    III, arXiv 1509.06321; for `lds` Park et al. 2023 (TRAK), section 2, arXiv 2303.14186.
    """
    began = time.perf_counter()
    _check(methods, removals, n_subsets, fractions, k)
    hows = [_unseen(question.model, removal, seed) for removal in removals]
    names = [how.name for how in hows]
    if len(set(names)) < len(names):
        raise ValueError(f"two removals are called the same: {names}. Give each its name.")
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
    shape = (len(scores), len(hows), len(past))
    made = {name: np.full((*shape, size), np.nan) for name, (_, size) in along.items()}
    cost = dict.fromkeys(("sets", "sets_not_removable", *_COSTS), 0)
    for r, how in enumerate(hows):
        tick = progress and _after(cost["token_layers"], progress)
        fell, added = _fallen(question, asked, how, budget_bytes=budget_bytes, progress=tick)
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
    """Spearman's: 0 if all scores are equal, NaN if what they should tell is, or of two or one."""
    if len(truth) < 3 or np.ptp(truth) <= 1e-9:
        return math.nan
    if np.ptp(scores) <= 1e-9:
        return 0.0
    # What differs by rounding alone is equal.
    ranked = [np.round(x / (1e-5 * max(1.0, float(np.ptp(x))))) for x in (scores, truth)]
    return float(stats.spearmanr(*ranked).statistic)


def _check(
    methods: Mapping[str, Any],
    removals: Sequence[Any],
    n_subsets: int,
    fractions: Sequence[float],
    k: Sequence[int],
) -> None:
    if not methods or not removals or isinstance(removals, str):
        raise ValueError("faithfulness: give a method at least, and a list of removals.")
    for name in methods.keys() & set(ROWS_OF_CHANCE):
        raise ValueError(f"method {name!r}: a row of this name is added. Call it otherwise.")
    if n_subsets < 3 or min(k, default=1) < 1 or not all(0 < part <= 1 for part in fractions):
        raise ValueError(
            f"faithfulness: n_subsets={n_subsets}, fractions={fractions}, k={k}. Take 3 subsets or "
            f"more, fractions above 0 and up to 1, k from 1 up."
        )


def _unseen(model: Model, removal: str | RemoveOne | Removal, seed: int) -> Removal:
    if removal == "resample":
        return resampled_token(model, seed=seed + SEED_OFFSET)
    return removal_of(model, removal)


def _values(
    question: Question, name: str, found: xr.DataArray
) -> Float[np.ndarray, "output attributed"]:
    """The scores of the attributed units, if they answer this question."""
    if not isinstance(found, xr.DataArray):
        raise ValueError(
            f'method {name!r} is no array of scores. Of a dataset give one: found["score"].'
        )
    own = scored(question, np.zeros((len(question.metrics), len(question.attributed))), {})
    if found.dims != own.dims:
        raise ValueError(f"method {name!r} has dims {found.dims}, not {own.dims}.")
    for label in _ABOUT_A_QUESTION:
        theirs = found[label].values.tolist() if label in found.coords else None
        if theirs != own[label].values.tolist():
            raise ValueError(
                f"method {name!r} answers another question: its {label} is {theirs}, here it is "
                f"{own[label].values.tolist()}. Ask once, and give all methods that question."
            )
    values = np.asarray(found.values, dtype=float)
    if (np.isfinite(values) != np.isfinite(own.values)).any():
        raise ValueError(
            f"method {name!r} has no finite score for some unit that is attributed here, or one "
            f"for another. Give it the same units and inputs."
        )
    return values[:, question.attributed]


def _by_chance(
    first: Float[np.ndarray, "output attributed"], past: Sequence[list[int]], seed: int
) -> dict[str, np.ndarray]:
    """The rows that know nothing."""
    rng = np.random.default_rng([seed, SEED_OFFSET])  # another stream than that of the sets
    drawn, shuffled = rng.normal(size=first.shape), first.copy()
    for values, places in zip(shuffled, past, strict=True):
        values[places] = rng.permutation(values[places])
    return dict(zip(ROWS_OF_CHANCE, (drawn, shuffled), strict=True))


def _removed(
    scores: Float[np.ndarray, " attributed"],
    places: Sequence[int],
    fractions: Sequence[float],
    k: Sequence[int],
) -> dict[str, list[Places | None]]:
    """The sets that are removed for each variable; None: there are not enough units."""
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


def _fallen(
    question: Question, sets: Sequence[Places], how: Removal, **options: Unpack[DropOptions]
) -> tuple[dict[Places, np.ndarray], dict[str, int]]:
    """How far the outputs fall without each set that can be removed; what it cost."""
    wanted = question.attributed
    numbers = {s: [wanted[j] for j in s] for s in sets}
    possible = [s for s in sets if not s or can_remove(question, numbers[s], how)]
    fallen = drops(question, [numbers[s] for s in possible], how, **options)
    cost = {"sets": len(sets), "sets_not_removable": len(sets) - len(possible)}
    cost |= {name: int(fallen.attrs.get(name, 0)) for name in _COSTS}
    return dict(zip(possible, fallen["drop"].values.T, strict=True)), cost


def _after(before: int, progress: Progress) -> Progress:
    return lambda done, all_of_it: progress(before + done, before + all_of_it)


def _drop(chosen: Places | None, fell: Mapping[Places, np.ndarray], i: int) -> float:
    return math.nan if chosen is None or chosen not in fell else float(fell[chosen][i])


def _lds(
    scores: Float[np.ndarray, " attributed"],
    places: Sequence[int],
    sets: Sequence[Places],
    fell: Mapping[Places, np.ndarray],
    i: int,
) -> float:
    """Of what is removed with the drop: the same as of what is kept with the score."""
    within, truth = set(places), dict[Places, float]()
    sums, outcomes = [], []
    for chosen in sets:
        if chosen in fell:
            past = tuple(j for j in chosen if j in within)
            sums.append(sum(float(scores[j]) for j in past))
            # Sets that differ in what comes after the output have one outcome, but for rounding.
            outcomes.append(truth.setdefault(past, float(fell[chosen][i])))
    return rank_correlation(np.array(sums, dtype=float), np.array(outcomes, dtype=float))
