"""Probes by layer: the slow obvious loop says the same; what they are tested on is never seen."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mechinterp.probing import (
    Labelled,
    Probe,
    ProbeError,
    best_layers,
    logistic,
    mass_mean,
    probe_layers,
)


def obvious(x, y, folds):
    """Each layer by scikit-learn's own pipeline and cross-validation."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    return np.stack(
        [
            cross_val_predict(pipeline, layer, y, cv=PredefinedSplit(folds), method=how)
            for layer in x
            for how in ("decision_function",)
        ]
    )


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_slow_loop_says_the_same(n_classes, acts_of):
    rng = np.random.default_rng(n_classes)
    labels = [f"class {i % n_classes}" for i in range(90)]
    given = Labelled.of([f"text {i}" for i in range(90)], labels)
    x = rng.normal(size=(3, 90, 11)) * 10.0 ** rng.integers(-2, 3, 11)
    x[1:, :, 2] += given.y * x[0, :, 2].std()
    found = probe_layers(acts_of(x), given)
    wanted = obvious(x, given.y, found["fold"].values)
    np.testing.assert_allclose(
        found["score"].values.squeeze(-1) if n_classes == 2 else found["score"].values,
        wanted,
        atol=1e-8,
    )
    said = (wanted > 0).astype(int) if n_classes == 2 else wanted.argmax(-1)
    right = found["right"].sel(of="task").values
    assert (right == (said == given.y)).all()
    accuracy = found["mean"].sel(of="task", measure="accuracy").values
    np.testing.assert_allclose(accuracy, right.mean(1))


def test_a_probe_and_its_scaler_see_the_training_prompts_alone(plant):
    acts, given = plant()
    whole = logistic()
    seen = []

    def fit(x, y):
        seen.append(x)
        return whole.fit(x, y)

    found = probe_layers(acts, given, probe=Probe("watched", fit), n_shuffles=0)
    folds = found["fold"].values
    for number, x in enumerate(seen):
        np.testing.assert_array_equal(x, acts.values[number // 5][folds != number % 5])
    # a test prompt far out moves no other prompt's score, as it would through a shared scaler
    for row in (0, 7):
        moved = acts.copy()
        moved[:, row] += 1e4
        again = probe_layers(moved, given, n_shuffles=0)
        same_fold = (folds == folds[row]) & (np.arange(len(given)) != row)
        one, two = (f["score"].values[:, same_fold] for f in (found, again))
        np.testing.assert_array_equal(one, two)
        others = (f["score"].values[:, folds != folds[row]] for f in (found, again))
        assert not np.allclose(*others)  # it was trained on there


def test_a_group_is_never_on_both_sides(plant):
    acts, given = plant(per_group=4)
    found = probe_layers(acts, given, n_shuffles=0)
    fold_of = dict(zip(given.groups, found["fold"].values, strict=True))
    assert [fold_of[g] for g in given.groups] == found["fold"].values.tolist()


def test_splitting_paraphrases_would_find_what_is_not_there(acts_of):
    """Why groups matter: labels at random, one a family, are "found" where families are split."""
    rng = np.random.default_rng(0)
    family = np.repeat(np.arange(24), 5)
    labels = rng.permutation([0, 1] * 12)[family].tolist()
    x = rng.normal(size=(1, 24, 40))[:, family] + 0.1 * rng.normal(size=(1, 120, 40))
    texts = [f"text {i}" for i in range(120)]
    whole = probe_layers(acts_of(x), Labelled.of(texts, labels, family.tolist()))
    split = probe_layers(acts_of(x), Labelled.of(texts, labels))
    accuracy = [float(f["mean"].sel(of="task", measure="accuracy")[0]) for f in (whole, split)]
    assert accuracy[0] < 0.75 < 0.95 < accuracy[1]
    shuffled = whole.sel(of="shuffled", measure="balanced_accuracy")
    assert float(shuffled["low"][0]) < 0.5 < float(shuffled["high"][0])


@pytest.mark.parametrize("at", [1, 4, 8])
@pytest.mark.parametrize("probe", [logistic(), mass_mean()])
def test_a_planted_layer_is_located(at, probe, plant):
    acts, given = plant(n_layers=12, at=at, strength=5.0)
    best = best_layers(probe_layers(acts, given, probe=probe, n_shuffles=0))
    assert abs(min(best.attrs["as_good"]) - at) <= 1
    assert best.attrs["best"] >= at


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_labels_stay_at_the_majority_rate(seed, plant):
    acts, given = plant(strength=6.0, seed=seed)
    found = probe_layers(acts, given, n_shuffles=5, seed=seed)
    shuffled, majority = (found.sel(of=of, measure="accuracy") for of in ("shuffled", "majority"))
    assert float(found["mean"].sel(of="task", measure="accuracy")[-1]) > 0.95
    assert (shuffled["low"] <= majority["high"]).all()
    assert (majority["low"] <= shuffled["high"]).all()
    assert (abs(shuffled["mean"] - 0.5) < 0.1).all()


def test_an_ill_conditioned_layer_is_read(acts_of):
    """Scales far apart, as in residual streams: what a careless probe misses is there."""
    acts, given = ill_conditioned(acts_of)
    found = probe_layers(acts, given)
    y, folds = given.y, found["fold"].values
    careless = LogisticRegression(max_iter=100)
    with pytest.warns(ConvergenceWarning):
        said = cross_val_predict(careless, acts.values[0], y, cv=PredefinedSplit(folds))
    assert (said == y).mean() < 0.65
    assert float(found["mean"].sel(of="task", measure="accuracy")[0]) >= 0.95


def ill_conditioned(acts_of):
    rng = np.random.default_rng(0)
    scales = 10.0 ** np.linspace(-3, 3, 64)
    y = np.arange(400) % 2
    x = rng.normal(size=(400, 64))
    x[:, :8] += 1.5 * y[:, None]  # in the features that vary least
    given = Labelled.of([f"text {i}" for i in range(400)], y.tolist())
    return acts_of((x * scales)[None]), given


def test_selectivity_is_accuracy_less_that_of_the_control(plant):
    acts, given = plant()
    types = [f"word {i % 10}" for i in range(len(given))]
    found = probe_layers(acts, given, types=types)
    accuracy = found["mean"].sel(measure="accuracy")
    wanted = accuracy.sel(of="task") - accuracy.sel(of="control")
    np.testing.assert_allclose(found["selectivity"], wanted)
    assert (found["selectivity_low"] <= found["selectivity"]).all()


def test_a_control_is_learnt_by_heart_where_words_are_there(acts_of):
    """With the word itself in the activations the control task is easy, and selectivity none."""
    rng = np.random.default_rng(0)
    words = np.arange(160) % 8
    x = np.eye(8)[words] + 0.05 * rng.normal(size=(1, 160, 8))
    given = Labelled.of([f"text {i}" for i in range(160)], (np.arange(160) // 8 % 2).tolist())
    found = probe_layers(acts_of(x), given, types=words.tolist())
    assert float(found["mean"].sel(of="control", measure="accuracy")[0]) > 0.95
    assert float(found["selectivity_high"][0]) < 0


def test_errors_name_the_layer(plant, refuses):
    acts, given = plant()
    named = acts.assign_coords(layer=range(3, 9), site=("layer", [f"s{i}" for i in range(6)]))
    refuses(
        lambda: probe_layers(named, given, probe=logistic(max_iter=1)),
        *("layer 3 (s0), fold 0", "has not converged"),
        kind=ProbeError,
    )
    broken = named.copy()
    broken[4, 0, 0] = np.inf
    refuses(lambda: probe_layers(broken, given), "layer 7 (s4): the activations are not finite")
    refuses(lambda: probe_layers(acts[:, 1:], given), "of 119 prompts, but labels of 120")
    refuses(lambda: probe_layers(acts.rename(layer="depth"), given), "use gather")
