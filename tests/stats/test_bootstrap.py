"""The bootstrap of a function of means: many cells at once are each cell alone."""

import numpy as np

from mechinterp.stats.bootstrap import bca_bounds, ratio_of_means, resample_counts


def test_cells_do_not_see_one_another():
    rng = np.random.default_rng(0)
    over, under = rng.normal(2, 1, (2, 4, 15))
    counts = resample_counts(15, 199, seed=1)
    low, high = bca_bounds(ratio_of_means, (over, under), counts, 0.9)
    for cell in range(4):
        alone = bca_bounds(ratio_of_means, (over[[cell]], under[[cell]]), counts, 0.9)
        np.testing.assert_allclose([low[cell], high[cell]], np.ravel(alone), rtol=1e-12)


def test_each_resample_draws_as_many_prompts_as_there_are():
    counts = resample_counts(7, 50, seed=0)
    assert counts.shape == (50, 7)
    assert (counts.sum(1) == 7).all()
    assert len(np.unique(counts, axis=0)) > 40
