"""The scales on which results of patching are read."""

import numpy as np

from mechinterp import Pair, Prompts, logit_diff
from mechinterp.patching import normalized, normalized_mean, patch_residual

CLEAN = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]
CORRUPT = [[3, 8, 4, 1, 5], [9, 2, 7, 9, 3]]
METRIC = logit_diff([7, 8], [1, 2])


def test_the_scale_is_0_at_corrupt_and_1_at_clean(model):
    clean, corrupt = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], [[3, 8, 4, 1, 5], [9, 1, 6, 5, 3]]
    pair = Pair(Prompts.from_ids(clean), Prompts.from_ids(corrupt))
    for direction, end in {"noise": 0.0, "denoise": 1.0}.items():
        found = patch_residual(model, pair, METRIC, direction=direction, layers=[0])
        expected = np.full((1, 5, 2), 1 - end)
        expected[:, 1] = end  # all that differs before the first layer is at position 1
        np.testing.assert_allclose(normalized(found), expected, atol=1e-4)
        np.testing.assert_allclose(normalized_mean(found), expected[..., 0], atol=1e-4)


def test_normalized_is_worked_out_by_hand(absolute_model):
    pair = Pair(Prompts.from_ids(CLEAN), Prompts.from_ids(CORRUPT))
    found = patch_residual(absolute_model, pair, METRIC, layers=[1])
    made = found.copy(data=np.array([3.0, -1.0]) * np.ones(found.shape))
    made = made.assign_coords(
        clean_score=("prompt", [5.0, 1.0]), corrupt_score=("prompt", [1.0, 0.0])
    )
    np.testing.assert_allclose(normalized(made), np.array([0.5, -1.0]) * np.ones(found.shape))
    # (3 - 1 + -1 - 0) / (5 - 1 + 1 - 0)
    np.testing.assert_allclose(normalized_mean(made), np.full((1, 5), 1 / 5))
    assert normalized(made).dims == found.dims
    assert normalized_mean(made).dims == ("layer", "pos")
    assert normalized(made).attrs["unit"] == normalized_mean(made).attrs["unit"]
    assert normalized(made).attrs["act"] == "resid_pre"
    assert made.attrs["unit"] == "logits"


def test_no_scale_between_equal_scores(absolute_model, refuses):
    same = Pair(Prompts.from_ids(CLEAN), Prompts.from_ids([CLEAN[0], CORRUPT[1]]))
    found = patch_residual(absolute_model, same, METRIC, layers=[1])
    refuses(lambda: normalized(found), "prompt 0", "score", "Leave such prompts out")
    assert np.isfinite(normalized(found.sel(prompt=[1]))).all()
    assert np.isfinite(normalized_mean(found)).all()
    equal = found.sel(prompt=[0])
    refuses(lambda: normalized_mean(equal), "the mean", "score")
    refuses(lambda: normalized(found.mean("prompt")), "before averaging")
