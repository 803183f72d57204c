"""Probes beside scikit-learn and beside what can be worked out by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mechinterp.probing import ProbeError, logistic, mass_mean


def drawn(n_classes, n=60, d=7, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    x = rng.normal(size=(n, d)) * 10.0 ** np.arange(-3, d - 3) + 5
    x[:, 0] += 0.002 * y
    return x, y


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_is_a_pipeline_of_scikit_learn(n_classes):
    x, y = drawn(n_classes)
    ours = logistic(C=0.3).fit(x, y)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=1000)).fit(x, y)
    assert ours.predicted(x).tolist() == theirs.predict(x).tolist()
    wanted = theirs.decision_function(x).reshape(len(x), -1)
    np.testing.assert_allclose(ours.scores(x), wanted, atol=1e-9)


def test_the_direction_is_the_slope_of_the_score():
    x, y = drawn(2)
    for probe in (logistic(), mass_mean()):
        fitted = probe.fit(x, y)
        step = np.random.default_rng(1).normal(size=x.shape[1])
        change = fitted.scores(x + step) - fitted.scores(x)
        np.testing.assert_allclose(change[:, 0], fitted.direction @ step, rtol=1e-6)


def test_mass_mean_by_hand():
    x = np.array([[0.0, 0.0], [2.0, 0.0], [5.0, 3.0], [7.0, 3.0]])
    fitted = mass_mean().fit(x, np.array([0, 0, 1, 1]))
    assert fitted.direction.tolist() == [5.0, 3.0]
    halfway = np.array([[3.5, 1.5], [3.6, 1.5], [3.4, 1.5]])
    assert np.sign(fitted.scores(halfway)[:, 0].round(9)).tolist() == [0, 1, -1]


def test_mass_mean_of_three_classes_is_the_nearest_mean():
    x, y = drawn(3)
    fitted = mass_mean().fit(x, y)
    means = np.stack([x[y == k].mean(0) for k in range(3)])
    nearest = ((x[:, None] - means) ** 2).sum(-1).argmin(1)
    assert fitted.predicted(x).tolist() == nearest.tolist()


def test_a_feature_that_does_not_vary_is_no_division_by_zero():
    x, y = drawn(2)
    x[:, 3] = 1e3
    assert np.isfinite(logistic().fit(x, y).scores(x)).all()


def test_what_has_not_converged_is_an_error(refuses):
    x, y = drawn(2)
    refuses(
        lambda: logistic(C=1.0, max_iter=2).fit(x, y),
        *("has not converged after 2 steps", "logistic(C=0.1)", "max_iter=20"),
        kind=ProbeError,
    )


def test_what_is_refused(refuses):
    refuses(lambda: logistic(C=0.0), "both must be positive", kind=ValueError)
    x, y = drawn(3)
    refuses(lambda: logistic().fit(x, y).direction, "3 classes has one direction per class")
