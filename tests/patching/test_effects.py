"""The scales on which results of patching are read."""

import numpy as np
import pytest
import xarray as xr

from mechinterp import Pair, Prompts, logit_diff
from mechinterp.patching import UnevenPromptsWarning, normalized, normalized_each, patch_residual

CLEAN = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]
CORRUPT = [[3, 8, 4, 1, 5], [9, 2, 7, 9, 3]]
METRIC = logit_diff([7, 8], [1, 2])


@pytest.mark.filterwarnings("ignore::mechinterp.patching.effects.UnevenPromptsWarning")
def test_the_scale_is_0_at_corrupt_and_1_at_clean(model):
    clean, corrupt = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], [[3, 8, 4, 1, 5], [9, 1, 6, 5, 3]]
    pair = Pair(Prompts.from_ids(clean), Prompts.from_ids(corrupt))
    for direction, end in {"noise": 0.0, "denoise": 1.0}.items():
        found = patch_residual(model, pair, METRIC, direction=direction, layers=[0])
        expected = np.full((1, 5, 2), 1 - end)
        expected[:, 1] = end  # all that differs before the first layer is at position 1
        np.testing.assert_allclose(normalized_each(found), expected, atol=1e-4)
        np.testing.assert_allclose(normalized(found), expected[..., 0], atol=1e-4)


def test_normalized_is_worked_out_by_hand(absolute_model):
    pair = Pair(Prompts.from_ids(CLEAN), Prompts.from_ids(CORRUPT))
    found = patch_residual(absolute_model, pair, METRIC, layers=[1])
    made = found.copy(data=np.array([3.0, -1.0]) * np.ones(found.shape))
    made = made.assign_coords(
        clean_score=("prompt", [5.0, 1.0]), corrupt_score=("prompt", [1.0, 0.0])
    )
    np.testing.assert_allclose(normalized_each(made), np.array([0.5, -1.0]) * np.ones(found.shape))
    # (3 - 1 + -1 - 0) / (5 - 1 + 1 - 0)
    np.testing.assert_allclose(normalized(made), np.full((1, 5), 1 / 5))
    assert normalized_each(made).dims == found.dims
    assert normalized(made).dims == ("layer", "pos")
    assert normalized(made).attrs["unit"] == normalized_each(made).attrs["unit"]
    assert normalized(made).attrs["act"] == "resid_pre"
    assert made.attrs["unit"] == "logits"


def test_no_scale_between_equal_scores(absolute_model, refuses):
    same = Pair(Prompts.from_ids(CLEAN), Prompts.from_ids([CLEAN[0], CORRUPT[1]]))
    found = patch_residual(absolute_model, same, METRIC, layers=[1])
    refuses(lambda: normalized_each(found), "prompt 0", "score", "Leave such prompts out")
    assert np.isfinite(normalized_each(found.sel(prompt=[1]))).all()
    with pytest.warns(UnevenPromptsWarning, match="of 1 of 2 prompts is small or reversed: 0 of"):
        assert np.isfinite(normalized(found)).all()
    equal = found.sel(prompt=[0])
    refuses(lambda: normalized(equal), "the mean", "score")
    refuses(lambda: normalized(found.mean("prompt")), "before averaging")


def test_a6_a_reversed_prompt_does_not_rank_the_heads():
    """The first head loses most on all prompts but the last, which is reversed."""
    clean, corrupt = np.full(8, 4.0), np.full(8, 0.0)
    clean[7], corrupt[7] = 1.43, 1.95
    lost = np.array([[1.4] * 7 + [-0.1], [0.2] * 7 + [-2.6]])  # head prompt
    found = xr.DataArray(
        clean - lost,
        {"clean_score": ("prompt", clean), "corrupt_score": ("prompt", corrupt)},
        ("head", "prompt"),
        attrs={"direction": "noise"},
    )
    said = "of 1 of 8 prompts is small or reversed: -0.52 of prompt 7, on average 3.44"
    with pytest.warns(UnevenPromptsWarning, match=said):
        scaled = normalized(found)
    np.testing.assert_allclose(scaled, 1 - lost.mean(1) / (28 - 0.52) * 8)
    assert scaled.values.argmin() == (found - clean).mean("prompt").values.argmin() == 0
    with pytest.warns(UnevenPromptsWarning, match=said):
        each = normalized_each(found)
    assert each.mean("prompt").values.argmin() == 1  # what the last prompt alone would say
    np.testing.assert_allclose(each[:, 7], 1 - lost[:, 7] / -0.52)
