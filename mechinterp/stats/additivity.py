"""Do the effects of inputs one at a time add up to that of all: numbers alone, no model.

>>> import numpy as np
>>> from mechinterp.stats.additivity import residual, stands_in
>>> single, joint = np.array([[0.1, 0.1], [2.0, 1.0]]), np.array([4.0, 3.0])
>>> residual(single, joint).round(2).tolist()
[0.95, 0.0]
>>> stands_in(single, joint, "nats").tolist()
[True, False]
"""

import numpy as np
from jaxtyping import Float

NOTABLE = {"probability": 0.05}
"""The least effect, in a metric's unit, that is worth a warning; of other units 0.5."""


def notable(unit: str) -> float:
    """The least effect that is worth a warning."""
    return NOTABLE.get(unit, 0.5)


def residual(
    scores: Float[np.ndarray, "output input"], joint: Float[np.ndarray, " output"]
) -> Float[np.ndarray, " output"]:
    """1 - sum of the scores / effect of removing all: 0 if they add up; NaN if it is 0."""
    some = np.where(np.abs(joint) > 1e-6, joint, np.nan)
    return np.asarray(1 - scores.sum(1) / some)


def stands_in(
    parts: Float[np.ndarray, "output input"], joint: Float[np.ndarray, " output"], unit: str
) -> np.ndarray:
    """True for each output of which a group takes, or gives, more than twice the sum of its parts.

    The sum is of sizes, so that effects of both signs do not make it small.
    """
    size = np.abs(joint)
    return np.asarray((size >= notable(unit)) & (np.abs(parts).sum(1) < size / 2))
