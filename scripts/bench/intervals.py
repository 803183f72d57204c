"""How often intervals hold the truth, and how often p values are small where nothing differs.

    python scripts/bench/intervals.py [--check] [--quick]

Every kind of interval that a page, a table or a finding shows, at the numbers of prompts that
people use: samples are drawn from distributions whose truth is known, and the share of samples
whose 95% interval holds it is printed, 2,000 samples a cell. `--check` exits with 1 if it is below
.93 for the symmetric distributions (from 6 prompts) or .88 for the skewed ones (from 8), below .93
for shares and a probe's measures, or if more than 6.5% of the p values are at most .05. `--quick`:
300 samples, 8 and 24 prompts, nothing is judged.

normal: variance 1. t3: Student's with 3 degrees of freedom. lognormal: of a standard normal. one in
five: a normal, and 4 more in one of five. uniform: 0 to 1.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats as scipy_stats

from mechinterp.probing import Answers, compare_with_random, figures
from mechinterp.probing.causal import KINDS
from mechinterp.stats import difference, interval, ratio_interval, share_interval

SIZES = (6, 8, 16, 24, 60)
DRAWS, QUICK_DRAWS = 2000, 300
SYMMETRIC, SKEWED, SHARES, MOST_P = 0.93, 0.88, 0.93, 0.065
RATIO = 0.7

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]

DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t3": lambda rng, shape: rng.standard_t(3, shape),
    "lognormal": lambda rng, shape: rng.lognormal(size=shape) - np.exp(0.5),
    "one in five": lambda rng, shape: rng.normal(size=shape) + 4 * (rng.random(shape) < 0.2) - 0.8,
    "uniform": lambda rng, shape: rng.random(shape) - 0.5,
}
"""Each with mean 0."""

DENOMINATORS: dict[str, Draw] = {
    "steady": lambda rng, shape: 5 + rng.normal(size=shape),
    "varied": lambda rng, shape: 2 + rng.normal(size=shape),
    "skewed": lambda rng, shape: 1 + rng.exponential(size=shape),
}


@dataclass(frozen=True)
class Row:
    """A kind of interval over one distribution: the share that holds the truth, by sample size."""

    kind: str
    of: str
    held: dict[int, float]
    least: float
    least_from: int = 6

    @property
    def fails(self) -> list[int]:
        """The sample sizes at which it holds too seldom."""
        return [n for n, share in self.held.items() if n >= self.least_from and share < self.least]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    began = time.process_time()
    sizes = (8, 24) if options.quick else SIZES
    draws = QUICK_DRAWS if options.quick else DRAWS
    rows: list[Row] = []
    print("| interval | of | " + " | ".join(f"n = {n}" for n in sizes) + " |")
    print("|---|---|" + "---|" * len(sizes))
    for row in every_row(sizes, draws):
        rows.append(row)
        show(row)
    small = dict(p_values(sizes, draws))
    print("\n| share of p at most .05 | " + " | ".join(f"n = {n}" for n in sizes) + " |")
    print("|---|" + "---|" * len(sizes))
    for name, shares in small.items():
        print(f"| {name} | " + " | ".join(_digits(share) for share in shares) + " |")
    print(f"\n{time.process_time() - began:.0f} CPU seconds")
    failed = [f"{row.kind}, {row.of}, n = {n}" for row in rows for n in row.fails]
    failed += [name for name, shares in small.items() if max(shares) > MOST_P]
    if options.check and not options.quick and failed:
        sys.exit("\n".join(["too far from 95%:", *failed]))


def every_row(sizes: tuple[int, ...], draws: int) -> Iterator[Row]:
    """All kinds of interval."""
    for name in DISTRIBUTIONS:
        skewed = name in ("lognormal", "one in five")
        bar = {"least": SKEWED if skewed else SYMMETRIC, "least_from": 8 if skewed else 6}
        yield Row("mean", name, {n: of_mean(name, n, draws) for n in sizes}, **bar)
        yield Row("difference", name, {n: of_difference(name, n, draws) for n in sizes}, **bar)
        yield Row("mean over groups", name, {n: of_groups(name, n, draws) for n in sizes}, **bar)
        for under in DENOMINATORS:
            held = {n: of_ratio(name, under, n, draws) for n in sizes}
            yield Row(f"ratio, {under} denominator", name, held, **bar)
        held = {n: of_faithfulness(name, n, draws) for n in sizes}
        yield Row("faithfulness", name, held, **bar)
    for share in (0.5, 0.9):
        held = {n: of_zeros_and_ones(share, n, draws) for n in sizes}
        yield Row("mean of 0 and 1", f"truth {share}", held, 0.0)
        held = {n: of_share(share, n, draws) for n in sizes}
        yield Row("share of prompts", f"truth {share}", held, SHARES)
    for share in (0.5, 0.75, 0.95):
        for balance in (2, 4):
            found = {n: of_probe(share, balance, n, draws) for n in sizes}
            for measure in found[sizes[0]]:
                held = {n: each[measure] for n, each in found.items()}
                of = f"accuracy {share}, one in {balance} positive"
                yield Row(measure, of, held, SHARES)


def show(row: Row) -> None:
    """Print it as a line of a table."""
    cells = " | ".join(_digits(share) for share in row.held.values())
    print(f"| {row.kind} | {row.of} | {cells} |", flush=True)


def of_mean(name: str, n: int, draws: int) -> float:
    """The interval of a mean over prompts."""
    return _holds(interval(_cells(DISTRIBUTIONS[name](_rng(n), (draws, n)))), 0)


def of_difference(name: str, n: int, draws: int) -> float:
    """The interval of a paired difference."""
    rng = _rng(n, 1)
    common = 3 * rng.normal(size=(draws, n))
    values = DISTRIBUTIONS[name](rng, (draws, n))
    return _holds(difference(_cells(common + values), _cells(common), n_resamples=1), 0)


def of_groups(name: str, n: int, draws: int) -> float:
    """The interval of a mean over groups of three prompts, of which each group is one value."""
    rng = _rng(n, 2)
    shared = DISTRIBUTIONS[name](rng, (draws, n))
    own = rng.normal(size=(draws, n, 3)) * shared.std()
    return _holds(interval(_cells((shared[..., None] + own).mean(-1))), 0)


def of_ratio(name: str, under: str, n: int, draws: int) -> float:
    """The interval of a ratio whose numerator follows the denominator."""
    rng = _rng(n, 3)
    below = DENOMINATORS[under](rng, (draws, n))
    above = RATIO * below + DISTRIBUTIONS[name](rng, (draws, n)) / 2
    return _holds(ratio_interval(_cells(above), _cells(below)), RATIO)


def of_faithfulness(name: str, n: int, draws: int) -> float:
    """As circuits' faithfulness: (circuit - empty) / (whole - empty), of pairs with own scores."""
    rng = _rng(n, 4)
    empty = rng.normal(size=(draws, n))
    whole = empty + 4 + DISTRIBUTIONS[name](rng, (draws, n))
    part = empty + RATIO * (whole - empty) + rng.normal(size=(draws, n)) / 2
    return _holds(ratio_interval(_cells(part - empty), _cells(whole - empty)), RATIO)


def of_zeros_and_ones(share: float, n: int, draws: int) -> float:
    """The interval of a mean where every value is 0 or 1, for which it is not made."""
    return _holds(interval(_cells((_rng(n, 5).random((draws, n)) < share).astype(float))), share)


def of_share(share: float, n: int, draws: int) -> float:
    """The interval of a share of prompts."""
    return _holds(share_interval(_cells((_rng(n, 5).random((draws, n)) < share) * 1.0)), share)


def of_probe(share: float, balance: int, n: int, draws: int) -> dict[str, float]:
    """Intervals of a probe's measures over `n` groups of 1, 2 and 3 prompts that are alike.

    The truth is the accuracy, and what the other measures are for the same scores.
    """
    rng = _rng(n, 6)
    groups = np.repeat(np.arange(n), [1 + (g // balance) % 3 for g in range(n)])
    y = (groups % balance == 0).astype(int)
    distance = scipy_stats.norm.ppf(share)
    noise = rng.normal(size=(draws, n))[:, groups] + rng.normal(size=(draws, len(groups)))
    scores = noise / 2**0.5 + distance * (2 * y - 1)
    folds = (groups // balance) % (2 if n >= 16 else 1)
    found = figures(Answers(y, scores[..., None]), groups=groups, folds=folds)
    positive = y.mean()
    hit, miss = positive * share, (1 - positive) * (1 - share)
    f1 = [
        2 * part * share / (part * share + part * share + part * (1 - share) + other)
        for part, other in ((positive, miss), (1 - positive, positive - hit))
    ]
    truth = {
        "accuracy": share,
        "balanced_accuracy": share,
        "auroc": float(scipy_stats.norm.cdf(2**0.5 * distance)),
        "macro_f1": float(np.mean(f1)),
    }
    return {name: _holds(found.sel(measure=name), value) for name, value in truth.items()}


def p_values(sizes: tuple[int, ...], draws: int) -> Iterator[tuple[str, list[float]]]:
    """The share of p values of at most .05 where nothing differs."""
    for name, draw in DISTRIBUTIONS.items():
        shares = []
        for n in sizes:
            a, b = (_cells(draw(_rng(n, seed), (draws, n))) for seed in (7, 8))
            shares.append(float((difference(a, b, n_resamples=999)["p"] <= 0.05).mean()))
        yield f"difference, {name}", shares
    shares = []
    for n in sizes:
        found = [_beside_random(_rng(n, 9, i), n) for i in range(draws // 10)]
        shares.append(float(np.mean(np.array(found) <= 0.05)))
    yield "a direction beside 39 random ones", shares


def _beside_random(rng: np.random.Generator, n: int) -> float:
    names = ["probe", *(f"{kind} {i}" for kind in KINDS for i in range(39))]
    kinds = [name.partition(" ")[0] for name in names]
    effects = xr.DataArray(
        rng.normal(size=(1, len(names), 1)) + rng.normal(size=(1, len(names), n)),
        {
            "how": ["add"],
            "direction": names,
            "kind": ("direction", kinds),
            "unchanged": ("prompt", np.zeros(n)),
        },
        ("how", "direction", "prompt"),
        attrs={"unit": "nats"},
    )
    return float(compare_with_random(effects)["p"][0, 0])


def _cells(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, dims=("cell", "prompt"))


def _holds(found: xr.Dataset, truth: float) -> float:
    inside = (found["low"] <= truth + 1e-12) & (found["high"] >= truth - 1e-12)
    return float(inside.mean())


def _rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _digits(share: float) -> str:
    return f"{share:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
