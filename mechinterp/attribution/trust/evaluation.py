"""Faithfulness over prompts: means with intervals, one method beside the others, a table.

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.trust.evaluation import summarise, table
>>> from mechinterp.attribution.trust.faithfulness import faithfulness
>>> from mechinterp.attribution.methods.single_removal import leave_one_out
>>> model, each = load_model("toy:trigger"), []
>>> prompts = ("the sesame to a garden", "bring a sesame today", "please bring the sesame")
>>> for seed, prompt in enumerate(prompts):
...     question = ask(model, prompt, outputs=1)
...     options = {"keep": (), "k": [1], "fractions": [0.5], "seed": seed}
...     each.append(faithfulness(question, {"one out": leave_one_out(question)}, **options))
>>> print(table(summarise(each).sel(scorer=["one out"], removal=["delete"])))
| removal | scorer | comprehensiveness ↑ | sufficiency ↓ | drop@1 ↑ | sufficiency@1 ↓ |
|---|---|---|---|---|---|
| delete | one out | 8.00 [8.00, 8.00] | 0.00 [0.00, 0.00] | 8.00 [8.00, 8.00] | 0.00 [0.00, 0.00] |

The prompts are the sample: every mean of a measure is over the same ones. Results say nothing of
prompts of another kind, and with few prompts (below about 20) the intervals are too narrow.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
import xarray as xr

from mechinterp import stats
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.cautions import caution

_SINGLE = ("comprehensiveness", "sufficiency")
_ALIKE = ("scorer", "removal", "keep", "fraction", "k")
_EACH = {"lds": "keep", "drop_at_k": "k", "sufficiency_at_k": "k"}


class DifferenceOptions(TypedDict):
    """Keyword options of `stats.difference`."""

    level: float
    n_resamples: int
    seed: int


class SharedSeedWarning(UserWarning):
    """Prompts were evaluated with the same draws, so intervals over them are too narrow."""


def measures(results: Sequence[xr.Dataset]) -> xr.DataArray:
    """The measures of several prompts, from `faithfulness`: (measure, removal, scorer, prompt).

    Measures: "comprehensiveness", "sufficiency", "lds@0.5", "drop@3", "sufficiency@5" and so on,
    each the mean over the outputs of a prompt that have a value. The coordinate `unit` gives its
    unit, and `low_is_good` whether low is good.

    Warns: `SharedSeedWarning` if prompts share a seed, so that they are not independent.

    Raises:
        ValueError: if there are no results, or they differ in a label or the metric.
    """
    _check_alike(results)
    first = results[0]
    parts: dict[str, list[xr.DataArray]] = {}
    for result in results:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mean of empty slice")  # no value: NaN
            mean = result.mean("output", skipna=True)
        for name in _SINGLE:
            parts.setdefault(name, []).append(mean[name])
        for name, dim in _EACH.items():
            for at, label in enumerate(mean[dim].values.tolist()):
                called = f"{name.removesuffix('_at_k')}@{label:g}"
                parts.setdefault(called, []).append(mean[name].isel({dim: at}, drop=True))
    names = sorted(parts, key=lambda name: (not name.startswith("lds"),))
    values = np.array(
        [[part.transpose("removal", "scorer").values for part in parts[n]] for n in names]
    )
    return xr.DataArray(
        np.moveaxis(values, 1, -1),
        dims=("measure", "removal", "scorer", "prompt"),
        name="faithfulness",
        coords={
            "measure": names,
            "removal": first["removal"].values,
            "scorer": first["scorer"].values,
            "prompt": range(len(results)),
            "unit": (
                "measure",
                ["" if n.startswith("lds") else first.attrs["unit"] for n in names],
            ),
            "low_is_good": ("measure", [n.startswith("sufficiency") for n in names]),
        },
        attrs={"metric": first.attrs["metric"]},
    )


@checks_arguments
def summarise(results: Sequence[xr.Dataset], *, level: float = 0.95) -> xr.Dataset:
    """`mean`, `low`, `high` of each measure over prompts: dims (measure, removal, scorer).

    `n`: the number of prompts with a value for every scorer; only those count. NaN: fewer than two.
    The intervals are those of `stats.interval`.

    Raises:
        ValueError: as `measures`, or if `level` is not between 0 and 1.
    """
    values = measures(results)
    scorers = values["scorer"].values.tolist()
    return _each_cell(
        values, ("mean", "low", "high"), scorers, lambda cell: stats.interval(cell, level=level)
    ).assign_attrs(level=level)


@checks_arguments
def compare_scorers(
    results: Sequence[xr.Dataset],
    scorer: str,
    *,
    level: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> xr.Dataset:
    """How much better one scorer is than each other, prompt by prompt: (measure, removal, scorer).

    `mean`, `low`, `high` and `p` as in `stats.difference`, the sign reversed where low is good:
    positive means that `scorer` is the more faithful. Where `high` is below 0 the other is better.
    `n` as in `summarise`. Correct many comparisons by `stats.correct_p_values`.

    Raises:
        ValueError: as `summarise`, or if no scorer has this name.
    """
    values = measures(results)
    names = values["scorer"].values.tolist()
    if scorer not in names:
        raise ValueError(f"no scorer is called {scorer!r}: {', '.join(names)}.")
    others = [name for name in names if name != scorer]
    options: DifferenceOptions = {"level": level, "n_resamples": n_resamples, "seed": seed}

    def beside(cell: xr.DataArray) -> xr.Dataset:
        theirs = cell.sel(scorer=others)
        ours = theirs.copy(data=np.broadcast_to(cell.sel(scorer=scorer).values, theirs.shape))
        a, b = (theirs, ours) if cell["low_is_good"] else (ours, theirs)
        return stats.difference(a, b, **options)

    found = _each_cell(values, ("mean", "low", "high", "p"), others, beside)
    return found.assign_coords(low_is_good=found["low_is_good"] & False).assign_attrs(
        options, sign=f"Positive: {scorer} is the more faithful."
    )


@checks_arguments
def table(summary: xr.Dataset) -> str:
    """A summary as a Markdown table: a row for each removal and scorer, a column for each measure.

    The arrow of a measure says which way is good; brackets hold the interval.
    """
    names = summary["measure"].values.tolist()
    arrows = ["↓" if low else "↑" for low in summary["low_is_good"].values]
    titles = [f"{name} {arrow}" for name, arrow in zip(names, arrows, strict=True)]
    lines = [_row(["removal", "scorer", *titles]), "|---" * (len(names) + 2) + "|"]
    for removal in summary["removal"].values.tolist():
        for scorer in summary["scorer"].values.tolist():
            at = {"removal": removal, "scorer": scorer}
            three = zip(*(summary[x].sel(at).values for x in ("mean", "low", "high")), strict=True)
            lines.append(_row([removal, scorer, *map(_shown, three)]))
    return "\n".join(lines)


def _check_alike(results: Sequence[xr.Dataset]) -> None:
    if not results:
        raise ValueError("measures: there are no results. Give a list of those of faithfulness.")
    first, *others = ({**_labels(result), "metric": result.attrs["metric"]} for result in results)
    for number, other in enumerate(others, 1):
        for name, found in other.items():
            if found != first[name]:
                raise ValueError(
                    f"prompt {number}: its {name} is {found}, that of prompt 0 is {first[name]}. "
                    f"Evaluate all prompts alike."
                )
    seeds = [result.attrs["seed"] for result in results]
    if len(set(seeds)) < len(seeds):
        caution(
            f"{len(seeds)} prompts have {len(set(seeds))} seed(s): prompts of equally many units "
            f"share random sets and scores, whose errors do not average out, and the intervals do "
            f"not show it. Give faithfulness another seed for each prompt.",
            SharedSeedWarning,
        )


def _labels(result: xr.Dataset) -> dict[str, object]:
    return {name: result[name].values.tolist() for name in _ALIKE}


def _each_cell(
    values: xr.DataArray,
    names: Sequence[str],
    scorers: Sequence[str],
    statistic: Callable[[xr.DataArray], xr.Dataset],
) -> xr.Dataset:
    """The statistic of each measure and removal, over the prompts with values for all scorers."""
    dims = ("measure", "removal", "scorer")
    shape = (*values.shape[:2], len(scorers))
    made = {name: np.full(shape, np.nan) for name in names}
    n = np.zeros(shape[:2], dtype=int)
    for at in np.ndindex(*n.shape):
        cell = values[at]
        known = np.flatnonzero(np.isfinite(cell.values).all(0))
        n[at] = len(known)
        if len(known) > 1:
            found = statistic(cell.isel(prompt=known))
            for name in names:
                made[name][at] = found[name].values
    coords = {name: c for name, c in values.coords.items() if "prompt" not in c.dims}
    return xr.Dataset(
        {name: (dims, array) for name, array in made.items()} | {"n": (dims[:2], n)},
        coords=coords | {"scorer": list(scorers)},
        attrs=values.attrs,
    )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(figure: tuple[float, float, float]) -> str:
    mean, low, high = (f"{value:.2f}".replace("-0.00", "0.00") for value in figure)
    return f"{mean} [{low}, {high}]"
