"""The numbers of KernelSHAP and of the LASSO, on games written down here, without a model."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from mechinterp.attribution.methods import subset_fits
from mechinterp.attribution.methods.subset_fits import fit_sparse, fit_with_sum, paired_sets


def shapley_by_orders(game, n):
    """The average over every order of removal: the definition."""
    total = np.zeros(n)
    for order in itertools.permutations(range(n)):
        for place, unit in enumerate(order):
            total[unit] += game(order[: place + 1]) - game(order[:place])
    return total / math.factorial(n)


def estimated(game, n, n_pairs, seed=0):
    sets, weight, drawn = paired_sets(n, n_pairs, np.random.default_rng(seed))
    everything = set(range(n))
    joint = game(tuple(everything))
    told = [(game(s) + joint - game(tuple(everything - set(s)))) / 2 for s in sets]
    removed = np.array([[float(j in s) for j in range(n)] for s in sets])
    removed = removed.reshape(len(sets), n)
    return fit_with_sum(removed, np.array(told), float(joint), weight, drawn)


def random_game(n, seed):
    """A drop for every set, with effects of every order."""
    values = np.random.default_rng(seed).normal(size=2**n)
    values[0] = 0
    return lambda chosen: values[sum(1 << j for j in chosen)]


def game_of_pairs(n, seed):
    rng = np.random.default_rng(seed)
    single, both = rng.normal(size=n), rng.normal(size=(n, n))

    def game(chosen):
        pairs = itertools.combinations(sorted(chosen), 2)
        return single[list(chosen)].sum() + sum(both[pair] for pair in pairs)

    exact = single.copy()  # of a pair's effect, each of the two gets half
    for first, second in itertools.combinations(range(n), 2):
        exact[[first, second]] += both[first, second] / 2
    return game, exact


@given(n=st.integers(2, 9), more=st.integers(0, 300), seed=st.integers(0, 5))
def test_paired_sets_are_one_of_each_pair(n, more, seed):
    least = min(n, 2 ** (n - 1) - 1)
    sets, weight, drawn = paired_sets(n, least + more, np.random.default_rng(seed))
    assert len(sets) == len(weight) == len(drawn) == min(least + more, 2 ** (n - 1) - 1)
    pairs = {frozenset([s, tuple(j for j in range(n) if j not in s)]) for s in sets}
    assert len(pairs) == len(sets)
    assert all(s == tuple(sorted(set(s))) and 0 < len(s) <= n / 2 for s in sets)
    assert {s for s in sets if len(s) == 1} >= ({(j,) for j in range(n)} if n > 2 else set())
    # What was not drawn weighs as in Shapley's kernel; what was stands for all the rest of it.
    kernel = {s: 2 * (n - 1) / (math.comb(n, s) * s * (n - s)) for s in range(1, n)}
    at_all = [kernel[len(s)] for s in sets]
    scale = weight[0] / at_all[0]
    np.testing.assert_allclose(weight[~drawn], scale * np.array(at_all)[~drawn])
    if least + more > n:
        assert weight.sum() == pytest.approx(
            scale * sum(1 / (s * (n - s)) for s in range(1, n)) * (n - 1)
        )


def test_sizes_drawn_are_all_of_them_in_turn():
    n, n_pairs = 12, 400
    counts = np.zeros(7)
    for seed in range(200):
        sets, _, drawn = paired_sets(n, n_pairs, np.random.default_rng(seed))
        for at in np.flatnonzero(drawn):
            counts[len(sets[at])] += 1
    sizes = np.flatnonzero(counts)
    assert sizes.tolist() == [3, 4, 5, 6]  # of sizes 1 and 2 all were taken
    share = np.array([(2 - (2 * s == n)) / (s * (n - s)) for s in sizes])
    np.testing.assert_allclose(counts[sizes] / counts.sum(), share / share.sum(), atol=0.01)


def test_each_set_of_a_size_is_drawn_as_often():
    n, met = 7, {}
    for seed in range(3000):
        sets, _, drawn = paired_sets(n, 20, np.random.default_rng(seed))
        for at in np.flatnonzero(drawn):
            met[sets[at]] = met.get(sets[at], 0) + 1
    for size in (2, 3):
        counts = np.array([met.get(s, 0) for s in itertools.combinations(range(n), size)])
        assert counts.min() > 0
        assert counts.std() / counts.mean() < 0.08


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_all_pairs_give_the_definition(n):
    game = random_game(n, seed=n)
    values, _ = estimated(game, n, 2 ** (n - 1) - 1)
    np.testing.assert_allclose(values, shapley_by_orders(game, n), atol=1e-12)


@pytest.mark.parametrize("n_pairs", [9, 11, 40])
def test_effects_that_stop_at_pairs_take_no_more_than_two_sets_a_unit(n_pairs):
    game, exact = game_of_pairs(9, seed=1)
    np.testing.assert_allclose(estimated(game, 9, n_pairs)[0], exact, atol=1e-10)


@given(n=st.integers(2, 12), more=st.integers(0, 60), seed=st.integers(0, 9))
def test_values_always_sum_to_the_joint_effect(n, more, seed):
    game = random_game(n, seed)
    values, _ = estimated(game, n, min(n, 2 ** (n - 1) - 1) + more, seed)
    assert values.sum() == pytest.approx(game(tuple(range(n))), abs=1e-9)


@pytest.mark.parametrize("n_pairs", [20, 60])
def test_the_error_is_about_what_the_estimate_is_off(n_pairs):
    n, off, claimed = 9, [], []
    game = random_game(n, seed=3)
    exact = estimated(game, n, 2 ** (n - 1))[0]
    for seed in range(150):
        values, error = estimated(game, n, n_pairs, seed)
        off.append(values - exact)
        claimed.append(error)
    off, claimed = np.array(off), np.array(claimed)
    assert 1 <= np.sqrt((claimed**2).mean() / (off**2).mean()) < 1.4
    assert (np.abs(off) < 2 * claimed).mean() > 0.93
    spread = off.std(0) / np.sqrt(len(off))
    assert (np.abs(off.mean(0)) < 5 * spread).all()  # right on average


def test_too_few_drawn_sets_have_no_error():
    game = random_game(9, seed=3)
    assert np.isnan(estimated(game, 9, 9)[1]).all()
    assert np.isnan(estimated(game, 9, 12)[1]).all()
    assert np.isfinite(estimated(game, 9, 18)[1]).all()


# The sparse fit


def drawn_sets(n_sets=60, n=7, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    removed = (rng.random((n_sets, n)) < 0.4).astype(float)
    drop = removed @ np.array([3.0, 0, 0, -1.5, 0, 0.05, 0]) + noise * rng.normal(size=n_sets) + 1
    return removed, drop


def test_the_fit_is_the_least_of_its_objective():
    removed, drop = drawn_sets()
    alpha = 0.2
    scaled = (removed - removed.mean(0)) / removed.std(0)

    def objective(parts):  # weights as a difference of two that are not negative
        weights = parts[:7] - parts[7:14]
        left = drop - drop.mean() - scaled @ weights
        return (left**2).sum() / (2 * len(drop)) + alpha * parts.sum()

    least = minimize(objective, np.full(14, 0.1), bounds=[(0, None)] * 14, options={"ftol": 1e-14})
    weights, _, used = fit_sparse(removed, drop, alpha)
    assert used == alpha
    np.testing.assert_allclose(weights * removed.std(0), least.x[:7] - least.x[7:], atol=1e-4)
    assert (weights[[1, 2, 4, 5, 6]] == 0).all()


def test_a_faint_penalty_is_least_squares():
    removed, drop = drawn_sets()
    design = np.column_stack([removed, np.ones(len(drop))])
    exact = np.linalg.lstsq(design, drop)[0][:-1]
    np.testing.assert_allclose(fit_sparse(removed, drop, 1e-9)[0], exact, atol=1e-3)


def test_the_fit_is_told_by_sets_that_were_left_out():
    removed, drop = drawn_sets()
    told = np.zeros(60)
    for fold in range(5):
        out = np.arange(60) // 12 == fold
        scaled = (removed - removed.mean(0)) / removed.std(0)  # the scale is that of all sets
        centre = scaled[~out].mean(0)
        # The same penalty on the rest, by coordinate descent as it is written in textbooks.
        x, y, w = scaled[~out] - centre, drop[~out] - drop[~out].mean(), np.zeros(7)
        for _ in range(300):
            for j in range(7):
                rest = x[:, j] @ (y - x @ w + x[:, j] * w[j]) / len(y)
                w[j] = np.sign(rest) * max(abs(rest) - 0.1, 0) / (x[:, j] ** 2).mean()
        told[out] = drop[~out].mean() + (scaled[out] - centre) @ w
    expected = 1 - ((drop - told) ** 2).sum() / ((drop - drop.mean()) ** 2).sum()
    assert fit_sparse(removed, drop, 0.1)[1] == pytest.approx(expected, abs=1e-4)
    assert 0.9 < expected < 1
    # Where nothing is to be predicted, the fit says so.
    assert fit_sparse(removed, np.random.default_rng(1).normal(size=60), 1e-6)[1] < 0.1


def test_the_penalty_is_the_one_that_predicts_best():
    removed, drop = drawn_sets(n_sets=40, noise=1.0)
    _, fit, alpha = fit_sparse(removed, drop, None)
    for factor in (0.2, 0.5, 2, 5):
        assert fit_sparse(removed, drop, alpha * factor)[1] <= fit + 1e-3


def test_a_score_that_never_moves_has_no_fit():
    weights, fit, alpha = fit_sparse(drawn_sets()[0], np.full(60, 2.0), None)
    assert (weights == 0).all()
    assert math.isnan(fit)
    assert math.isnan(alpha)


def test_a_fit_that_does_not_converge_is_an_error(monkeypatch, refuses):
    monkeypatch.setattr(subset_fits, "MOST_ROUNDS", 1)
    removed, drop = drawn_sets()
    for alpha in (1e-6, None):
        refuses(
            lambda alpha=alpha: fit_sparse(removed, drop, alpha),
            "did not converge in 1 rounds",
            "larger alpha",
        )
