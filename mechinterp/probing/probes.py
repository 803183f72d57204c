"""Linear probes, which read a class off an activation: `logistic`, `mass_mean`, or your own.

A probe is a name and a function that fits it to activations and class numbers:

>>> import numpy as np
>>> from mechinterp.probing.probes import logistic, mass_mean
>>> x, y = np.array([[0.0, 9.0], [1.0, 7.0], [4.0, 8.0], [5.0, 9.5]]), np.array([0, 0, 1, 1])
>>> mass_mean().fit(x, y).direction.tolist()
[4.0, 0.75]
>>> logistic().fit(x, y).predicted(x).tolist()
[0, 0, 1, 1]

Probes are linear, because a larger probe may compute what it finds.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mechinterp.core.arguments import checks_arguments

Features = Float[np.ndarray, "prompt feature"]
Classes = Int[np.ndarray, " prompt"]


class ProbeError(RuntimeError):
    """A probe could not be fitted. The message says where, and what to try."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A fitted probe: scores `((x - mean) / scale) @ weights.T + bias`, a row of weights per class.

    With two classes there is one row, and a positive score means the second. `mean` and `scale` are
    those of the prompts to which it was fitted.
    """

    weights: Float[np.ndarray, "output feature"]
    bias: Float[np.ndarray, " output"]
    mean: Float[np.ndarray, " feature"]
    scale: Float[np.ndarray, " feature"]

    def scores(self, x: Features) -> Float[np.ndarray, "prompt output"]:
        """The score of each class, or of the second of two; log-odds if the probe is logistic."""
        standard = (x - self.mean) / self.scale
        found: Float[np.ndarray, "prompt output"] = standard @ self.weights.T + self.bias
        return found

    def predicted(self, x: Features) -> Classes:
        """The number of the class with the highest score."""
        return predicted_class(self.scores(x))

    @property
    def direction(self) -> Float[np.ndarray, " feature"]:
        """With two classes, the direction in which the score rises, in activation units.

        Raises:
            ValueError: if there are more than two classes.
        """
        if len(self.weights) != 1:
            raise ValueError(
                f"a probe of {len(self.weights)} classes has one direction per class: take a row "
                f"of weights / scale."
            )
        along: Float[np.ndarray, " feature"] = self.weights[0] / self.scale
        return along


@dataclass(frozen=True)
class Probe:
    """A kind of probe: `fit(x, y)` returns a `Linear`; y are class numbers from 0, all present.

    Your own is `Probe("mine", fit)`.
    """

    name: str
    fit: Callable[[Features, Classes], Linear]


@checks_arguments
def logistic(C: float = 0.1, *, max_iter: int = 1000) -> Probe:  # noqa: N803 - as in scikit-learn
    """Logistic regression with an L2 penalty (inverse strength `C`) on standardised activations.

    Mean and scale are those of the training prompts. More than two classes: multinomial. A feature
    that does not vary is not scaled.

    Raises:
        ValueError: if `C` or `max_iter` is not positive.
        ProbeError: when fitted, if the solver has not converged after `max_iter` steps: such a
            probe says more about the solver than about the activations.

    Source: Alain and Bengio 2016, arXiv 1610.01644.
    """
    if C <= 0 or max_iter < 1:
        raise ValueError(f"C={C}, max_iter={max_iter}: both must be positive.")

    def fit(x: Features, y: Classes) -> Linear:
        scaler = StandardScaler().fit(x)
        weights, bias = regression(scaler.transform(x), y, C=C, max_iter=max_iter)
        return Linear(weights, bias, scaler.mean_, scaler.scale_)

    return Probe(f"logistic, C={C:g}", fit)


def regression(
    x: Features,
    y: Classes,
    *,
    C: float,  # noqa: N803 - as in scikit-learn
    max_iter: int,
) -> tuple[Float[np.ndarray, "output feature"], Float[np.ndarray, " output"]]:
    """Weights and bias of logistic regression, without standardisation.

    Raises:
        ProbeError: if the solver has not converged after `max_iter` steps.
    """
    solver = LogisticRegression(C=C, max_iter=max_iter)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            solver.fit(x, y)
        except ConvergenceWarning:
            raise ProbeError(
                f"the logistic probe has not converged after {max_iter} steps on {len(x)} "
                f"prompts of {x.shape[1]} features. Try a stronger penalty, "
                f"logistic(C={C / 10:g}), or more steps, "
                f"logistic(C={C:g}, max_iter={10 * max_iter})."
            ) from None
    return solver.coef_, solver.intercept_


@checks_arguments
def mass_mean() -> Probe:
    """The difference of the class means, in activation units; no solver and no penalty.

    A score of 0 is halfway between the two means. With more than two classes: the nearest mean.

    Source: Marks and Tegmark 2023, "The Geometry of Truth", section 5, arXiv 2310.06824.
    """

    def fit(x: Features, y: Classes) -> Linear:
        overall = x.mean(0)
        means = np.stack([x[y == number].mean(0) - overall for number in range(int(y.max()) + 1)])
        bias = -(means**2).sum(1) / 2
        if len(means) == 2:
            means, bias = means[1:] - means[:1], bias[1:] - bias[:1]
        return Linear(means, bias, overall, np.ones_like(overall))

    return Probe("mass mean", fit)


def predicted_class(scores: Float[np.ndarray, "*more output"]) -> Int[np.ndarray, "*more"]:
    """The class of each row of scores; with a single score, the second class if it is positive."""
    if scores.shape[-1] == 1:
        return np.asarray(scores[..., 0] > 0).astype(int)
    return np.asarray(scores.argmax(-1))
