"""Bounds of means, and of ratios of means, for all cells of a result at once; in closed form.

Student's t holds what it says for symmetric values, and too seldom for skewed ones, whose mean
lies further towards the long tail than it reaches. Hall's cubic transformation of t takes the
skewness of the sample into account; for symmetric values it is a little too short. The bounds here
are the outer ones of both, so they hold for either. No draws are made: the same values give the
same bounds.

>>> import numpy as np
>>> from mechinterp.stats.bounds import mean_bounds
>>> effect = np.array([[1.0, 2.0, 3.0, 2.0], [0.0, 0.0, 0.0, 8.0]])    # cell prompt
>>> low, high = mean_bounds(effect, level=0.95)
>>> low.round(2).tolist(), high.round(2).tolist()
([0.7, -4.36], [3.3, 22.4])

Source: Hall 1992, "On the Removal of Skewness by Transformation", section 2; Fieller 1954, "Some
Problems in Interval Estimation", for ratios. How often they hold: scripts/bench/intervals.py.
"""

import numpy as np
from jaxtyping import Float
from scipy import stats

_SYMMETRIC = 1e-6
"""Below this skewness the transformation is the identity, to the rounding of float64."""


def ratio_of_means(
    numerator: np.ndarray | np.floating, denominator: np.ndarray | np.floating
) -> np.ndarray:
    """One mean over another; infinite or NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(numerator / denominator)


def mean_bounds(
    sample: Float[np.ndarray, "*cell prompt"], level: float
) -> tuple[Float[np.ndarray, "*cell"], Float[np.ndarray, "*cell"]]:
    """The interval of the mean in each cell; NaN where a prompt is not finite.

    Where all prompts of a cell are equal, both bounds are their mean.

    Raises:
        ValueError: if `level` is not between 0 and 1.
    """
    shape, n = sample.shape[:-1], sample.shape[-1]
    reach = _reach(n, level)
    rows = sample.reshape(-1, n)
    finite = np.isfinite(rows).all(-1)
    rows = np.where(finite[:, None], rows, 0.0)
    mean = rows.mean(-1)
    deviations = rows - mean[:, None]
    size = np.where(_is_constant(rows), 0.0, np.abs(deviations).max(-1))
    deviations = deviations / np.where(size > 0, size, 1.0)[:, None]
    squares = deviations * deviations
    variance = squares.mean(-1)
    skewness = (squares * deviations).mean(-1) / np.where(size > 0, variance, 1.0) ** 1.5
    scale = size * np.sqrt(variance * n / (n - 1))
    low = mean - scale * np.maximum(reach, _untransformed(reach, skewness, n))
    high = mean - scale * np.minimum(-reach, _untransformed(-reach, skewness, n))
    low, high = (np.where(finite, bound, np.nan).reshape(shape) for bound in (low, high))
    return low, high


def ratio_bounds(
    over: Float[np.ndarray, "*cell prompt"], under: Float[np.ndarray, "*cell prompt"], level: float
) -> tuple[Float[np.ndarray, "*cell"], Float[np.ndarray, "*cell"]]:
    """The interval of mean(over) / mean(under) in each cell; NaN where a prompt is not finite.

    The outer bounds of Fieller's interval, which takes account of a denominator that varies, and of
    `mean_bounds` of what each prompt adds to the ratio, which takes account of skewness. Where
    Student's interval of the denominator holds 0, every ratio is possible: -inf and inf.

    Raises:
        ValueError: if `level` is not between 0 and 1.
    """
    shape, n = over.shape[:-1], over.shape[-1]
    reach = _reach(n, level)
    over, under = over.reshape(-1, n), under.reshape(-1, n)
    finite = (np.isfinite(over) & np.isfinite(under)).all(-1)
    over, under = (np.where(finite[:, None], values, 1.0) for values in (over, under))
    mean = under.mean(-1)
    mean = np.where(mean != 0, mean, np.nan)  # such a cell is unbounded
    ratio = over.mean(-1) / mean
    adds = (over - ratio[:, None] * under) / mean[:, None]  # what each prompt adds to the ratio
    weight = np.where(_is_constant(under)[:, None], 0.0, under / mean[:, None] - 1)
    size = np.maximum(np.abs(adds).max(-1), np.finfo(float).tiny)
    x = adds / size[:, None]
    # Fieller: the roots r of mean(over - r * under)^2 = reach^2 * variance(over - r * under)
    share = reach**2 * n / (n - 1)
    xx, xy, yy = (share * (a * b).mean(-1) for a, b in ((x, x), (x, weight), (weight, weight)))
    bounded = yy < 1  # False where the mean is 0, and yy NaN
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(xy**2 + (1 - yy) * xx)
        bent_low, bent_high = mean_bounds(adds, level)
        low = ratio + np.minimum(size * (-xy - root) / (1 - yy), bent_low)
        high = ratio + np.maximum(size * (-xy + root) / (1 - yy), bent_high)
    low, high = np.where(bounded, low, -np.inf), np.where(bounded, high, np.inf)
    low, high = (np.where(finite, bound, np.nan).reshape(shape) for bound in (low, high))
    return low, high


def _reach(n: int, level: float) -> float:
    """How far the mean may be, in standard deviations of the values, by Student's t."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, not between 0 and 1. The usual one is 0.95.")
    return float(stats.t.ppf((1 + level) / 2, n - 1) / n**0.5)


def _is_constant(values: Float[np.ndarray, "cell prompt"]) -> np.ndarray:
    """Where all values are the same, so that what is left of their deviations is rounding."""
    return np.asarray((values == values[..., :1]).all(-1))


def _untransformed(
    reach: float, skewness: Float[np.ndarray, " cell"], n: int
) -> Float[np.ndarray, " cell"]:
    """The d = (mean - truth) / deviation, at which Hall's cubic of it reaches as far as t may.

    The cubic d + s d² / 3 + s² d³ / 27 + s / 6n, of skewness s, is nearly symmetric where d is not.
    It rises everywhere, so there is one.
    """
    bent = np.abs(skewness) > _SYMMETRIC
    safe = np.where(bent, skewness, 1.0)
    root = np.cbrt(1 + safe * (reach - safe / (6 * n)))
    return np.asarray(np.where(bent, 3 / safe * (root - 1), reach))
