"""Linear fits to the drops of sets of units: `fit_with_sum`, `fit_sparse`; the sets of KernelSHAP.

Numbers only, without a model.

>>> import numpy as np
>>> from mechinterp.attribution.methods.subset_fits import paired_sets
>>> sets, weights, drawn = paired_sets(5, 7, np.random.default_rng(0))
>>> sets[:5], [len(chosen) for chosen in sets[5:]], drawn.sum()
([(0,), (1,), (2,), (3,), (4,)], [2, 2], np.int64(2))
"""

import itertools
import math
import warnings

import numpy as np
from jaxtyping import Bool, Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LassoCV
from sklearn.model_selection import KFold, cross_val_predict

Places = tuple[int, ...]
"""Which of the attributed units, by their places among them: 0 to n - 1."""

N_FOLDS = 5
MOST_ROUNDS = 100_000
"""The most rounds of the LASSO's coordinate descent."""


def paired_sets(
    n: int, n_pairs: int, rng: np.random.Generator
) -> tuple[list[Places], Float[np.ndarray, " set"], Bool[np.ndarray, " set"]]:
    """One set of each pair of complements, its weight, and whether it was drawn.

    Sizes are taken from the smallest, complete as long as a size's share of the pairs covers it.
    The remaining pairs are drawn among the other sizes by their shares, rounded at random, all of
    the same weight. Size 1 is always complete: it alone tells all units apart, which makes the fit
    much less noisy.
    """
    halves = {size: 1 if 2 * size == n else 2 for size in range(1, n // 2 + 1)}
    weights = {size: half / (size * (n - size)) for size, half in halves.items()}
    counts = {size: math.comb(n, size) * half // 2 for size, half in halves.items()}
    chosen: list[Places] = []
    weight: list[float] = []
    left = list(halves)
    while left:
        size, total = left[0], sum(weights[s] for s in left)
        if size > 1 and n_pairs * weights[size] / total < counts[size] - 1e-9:
            break
        chosen += _all_of_size(n, size)
        weight += [weights[size] / counts[size]] * counts[size]
        n_pairs -= counts[size]
        left.pop(0)
    n_whole = len(chosen)
    if left and n_pairs > 0:
        ends = np.cumsum([weights[size] for size in left])
        points = ends[-1] * (rng.random() + np.arange(n_pairs)) / n_pairs
        for size, count in zip(left, np.histogram(points, [0, *ends])[0].tolist(), strict=True):
            chosen += _some_of_size(n, size, count, counts[size], rng)
        weight += [float(ends[-1]) / n_pairs] * n_pairs
    return chosen, np.array(weight), np.arange(len(chosen)) >= n_whole


def _all_of_size(n: int, size: int) -> list[Places]:
    """One set of each pair of complements; if both have the size, the one with unit 0."""
    sets = itertools.combinations(range(n), size)
    return [one for one in sets if 2 * size != n or one[0] == 0]


def _some_of_size(n: int, size: int, count: int, of: int, rng: np.random.Generator) -> list[Places]:
    """`count` different sets drawn from the `of` sets of `_all_of_size`."""
    if of <= 4 * count:
        whole = _all_of_size(n, size)
        return [whole[at] for at in sorted(rng.choice(of, count, replace=False).tolist())]
    found: set[Places] = set()
    while len(found) < count:
        one = set(rng.permutation(n)[:size].tolist())
        if 2 * size == n and 0 not in one:
            one = set(range(n)) - one
        found.add(tuple(sorted(one)))
    return sorted(found)


def fit_with_sum(
    removed: Float[np.ndarray, "set unit"],
    told: Float[np.ndarray, " set"],
    joint: float,
    weight: Float[np.ndarray, " set"],
    drawn: Bool[np.ndarray, " set"],
) -> tuple[Float[np.ndarray, " unit"], Float[np.ndarray, " unit"]]:
    """Weighted least squares for values that sum to `joint`, and their standard errors.

    `told`: what each set says of the sum of its values. The errors are the jackknife's over the
    drawn sets (HC3: a residual is divided by 1 - leverage); NaN if they are fewer than the units.
    """
    n = removed.shape[1]
    free = np.linalg.svd(np.ones((1, n)))[2][1:].T  # directions that do not change the sum
    root = np.sqrt(weight)
    rows, wanted = root[:, None] * removed @ free, root * (told - removed.sum(1) * joint / n)
    inverse = np.linalg.pinv(rows)
    values = joint / n + free @ (inverse @ wanted)
    if drawn.sum() < n:
        return values, np.full(n, np.nan)
    leverage = (rows * inverse.T).sum(1)
    without = (wanted - rows @ (inverse @ wanted)) / np.maximum(1 - leverage, 1e-6)
    return values, np.sqrt(((free @ inverse * without)[:, drawn] ** 2).sum(1))


def fit_sparse(
    removed: Float[np.ndarray, "set unit"], drop: Float[np.ndarray, " set"], alpha: float | None
) -> tuple[Float[np.ndarray, " unit"], float, float]:
    """The weight of each unit in a LASSO fit, its cross-validated R squared, and the penalty.

    The penalty applies to weights of indicators scaled to standard deviation 1. Without `alpha` it
    is chosen by cross-validation with `N_FOLDS` folds.

    Raises:
        ValueError: if the fit does not converge.
    """
    if np.ptp(drop) <= 1e-9:
        return np.zeros(removed.shape[1]), math.nan, math.nan
    spread = removed.std(0)
    scaled = (removed - removed.mean(0)) / spread
    folds = KFold(N_FOLDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            if alpha is None:
                alpha = float(LassoCV(cv=folds, max_iter=MOST_ROUNDS).fit(scaled, drop).alpha_)
            solver = Lasso(alpha, max_iter=MOST_ROUNDS)
            weights = solver.fit(scaled, drop).coef_ / spread
            told = cross_val_predict(solver, scaled, drop, cv=folds)
        except ConvergenceWarning as stopped:
            raise ValueError(
                f"the LASSO fit to {len(drop)} sets of {len(spread)} units did not converge in "
                f"{MOST_ROUNDS} rounds. Take more sets, or a larger alpha."
            ) from stopped
    fit = 1 - ((drop - told) ** 2).sum() / ((drop - drop.mean()) ** 2).sum()
    return weights, float(fit), alpha
