"""Do the effects of single inputs add up to the effect of all? From numbers alone, without a model.

>>> import numpy as np
>>> from mechinterp.stats.additivity import additivity_residual, shows_redundancy
>>> single, joint = np.array([[0.1, 0.1], [2.0, 1.0]]), np.array([4.0, 3.0])
>>> additivity_residual(single, joint).round(2).tolist()
[0.95, 0.0]
>>> shows_redundancy(single, joint, "nats").tolist()
[True, False]
"""

import numpy as np
from jaxtyping import Float

from mechinterp.core.arguments import checks_arguments

NOTABLE = {"probability": 0.05}
"""The least effect that is worth a warning, by the metric's unit; 0.5 in any other unit."""


@checks_arguments
def notable_effect(unit: str) -> float:
    """The least effect, in this unit, that is worth a warning."""
    return NOTABLE.get(unit, 0.5)


@checks_arguments
def additivity_residual(
    scores: Float[np.ndarray, "output input"], joint: Float[np.ndarray, " output"]
) -> Float[np.ndarray, " output"]:
    """1 - sum of scores / effect of removing all: 0 if they add up; NaN if the effect is 0."""
    some = np.where(np.abs(joint) > 1e-6, joint, np.nan)
    return np.asarray(1 - scores.sum(1) / some)


@checks_arguments
def shows_redundancy(
    parts: Float[np.ndarray, "output input"], joint: Float[np.ndarray, " output"], unit: str
) -> np.ndarray:
    """True for each output on which a group has more than twice the effect of its parts together.

    Then some part stands in for another that is removed. The parts' sizes are summed, so that
    effects of opposite sign do not cancel.
    """
    size = np.abs(joint)
    return np.asarray((size >= notable_effect(unit)) & (np.abs(parts).sum(1) < size / 2))
