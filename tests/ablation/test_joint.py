"""Pairs of ablations and ablations in order, beside single runs."""

import numpy as np
import pytest

from mechinterp import Prompts, Site, logit_diff, run, zero
from mechinterp.ablation.joint import ablate_cumulatively, ablate_pairs, interaction
from mechinterp.ablation.single import ablate_heads, effect
from mechinterp.engine.replacements import mean_of, resample_from

PROMPTS = Prompts.from_ids([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
REFERENCE = Prompts.from_ids([[7, 8, 9, 3, 2], [1, 2, 3, 4, 5]])
METRIC = logit_diff([7, 8], [1, 2])
SITES = [Site("z", 1, 1), Site("attn_out", 0, pos=2), Site("z", 0, 0)]
LABELS = ["L1H1.z", "L0.attn_out@2", "L0H0.z"]


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def alone(model, *sites):
    specs = sum((zero(site) for site in sites), ())
    return METRIC(run(model, PROMPTS, specs)).numpy()


def test_pairs_are_runs_of_both(model):
    found = ablate_pairs(model, PROMPTS, METRIC, "zero", SITES)
    assert found.dims == ("first", "second", "prompt")
    assert found["first"].values.tolist() == found["second"].values.tolist() == LABELS
    for i, a in enumerate(SITES):
        for j, b in enumerate(SITES):
            expected = alone(model, a) if i == j else alone(model, a, b)
            close(found.sel(first=str(a), second=str(b)), expected)
    assert found.attrs["arms"] == 6
    assert found.attrs["how"] == "zero"


def test_interaction_is_worked_out_from_single_runs(model):
    found = interaction(ablate_pairs(model, PROMPTS, METRIC, "zero", SITES))
    base = METRIC(run(model, PROMPTS)).numpy()
    sizes = []
    for i, a in enumerate(SITES):
        for j, b in enumerate(SITES):
            if i == j:
                assert found[i, j].isnull().all()
                continue
            by_hand = alone(model, a, b) - alone(model, a) - alone(model, b) + base
            np.testing.assert_allclose(found[i, j], by_hand, atol=3e-5)
            sizes.append(np.abs(by_hand).max())
    assert max(sizes) > 1e-3
    assert found.dims == ("first", "second", "prompt")
    assert found.attrs["method"] == "ablation"


def test_two_that_stand_in_for_one_another_interact_negatively(absolute_model):
    """With a metric that is lowered only when both are gone."""
    found = ablate_pairs(absolute_model, PROMPTS, METRIC, "zero", SITES[:2])
    made = found.copy(data=np.array([[5.0, 1.0], [1.0, 5.0]])[..., None] * np.ones(2))
    made = made.assign_coords(base_score=("prompt", [5.0, 5.0]))
    assert interaction(made).sel(first=LABELS[0], second=LABELS[1]).values.tolist() == [-4.0, -4.0]


@pytest.mark.parametrize("how", ["zero", mean_of(REFERENCE), resample_from(REFERENCE, seed=1)])
def test_one_more_at_a_time(model, how):
    found = ablate_cumulatively(model, PROMPTS, METRIC, how, SITES)
    assert found.sizes == {"n_ablated": 4, "prompt": 2}
    assert found["n_ablated"].values.tolist() == [0, 1, 2, 3]
    assert found["site"].values.tolist() == ["", *LABELS]
    close(found[0], found["base_score"])
    close(effect(found)[0], [0, 0])
    close(found[1], ablate_heads(model, PROMPTS, METRIC, how, layers=[1], heads=[1])[0, 0])
    if how == "zero":
        close(found[2], alone(model, *SITES[:2]))
        close(found[3], alone(model, *SITES))
    pairs = ablate_pairs(model, PROMPTS, METRIC, how, SITES)
    close(found[2], pairs.sel(first=LABELS[0], second=LABELS[1]))
    assert np.abs(np.diff(found.values, axis=0)).max(axis=1).min() > 1e-4


def test_what_makes_no_pair_is_refused(absolute_model, refuses):
    twice = [SITES[0], SITES[1], SITES[0]]
    for fn in (ablate_pairs, ablate_cumulatively):
        refuses(lambda fn=fn: fn(absolute_model, PROMPTS, METRIC, "zero", twice), "named twice")
        refuses(lambda fn=fn: fn(absolute_model, PROMPTS, METRIC, "none", SITES), "how='none'")
    found = ablate_cumulatively(absolute_model, PROMPTS, METRIC, "zero", SITES)
    refuses(lambda: interaction(found), "not a result of ablate_pairs", "n_ablated")
