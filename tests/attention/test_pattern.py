import numpy as np
import pytest
import torch

from mechinterp import Site, load_model, read, run
from mechinterp.attention import over_prompts, patterns
from mechinterp.attention.pattern import n_keys, seen_keys


def test_they_are_what_a_run_reads(model, ragged):
    found = patterns(model, ragged)
    assert found.dims == ("prompt", "layer", "head", "pos", "src")
    assert found.shape == (3, 3, model.cfg.n_heads, 7, 7)
    for layer in range(3):
        whole = run(model, ragged, read(Site("pattern", layer))).acts[Site("pattern", layer)]
        for row, length in enumerate((7, 4, 6)):
            here = found.values[row, layer]
            there = whole[row, :, :length, :length].numpy()
            np.testing.assert_array_equal(here[:, :length, :length], there)
            assert np.isnan(here[:, length:]).all()
            assert np.isnan(here[:, :, length:]).all()


def test_a_prompt_in_a_batch_is_as_alone(model, ragged):
    found = patterns(model, ragged)
    for row, length in enumerate((7, 4, 6)):
        alone = patterns(model, ragged.tokens[row, :length])
        here = found.values[row, :, :, :length, :length]
        np.testing.assert_allclose(here, alone.values[0], atol=1e-6)


def test_rows_add_up_to_1_and_means_leave_padding_out(model, ragged):
    found = patterns(model, ragged)
    there = np.isfinite(found).any("src")
    assert there.sum() == 3 * model.cfg.n_heads * (7 + 4 + 6)
    np.testing.assert_allclose(found.sum("src").where(there, 1), 1, atol=1e-5)
    by_hand = [found.values[row, 1, 2, 5, 3] for row in (0, 2)]
    mean = found.mean("prompt").sel(layer=1, head=2, pos=5, src=3)
    np.testing.assert_allclose(mean, np.mean(by_hand), rtol=1e-6)


def test_some_layers(model, ragged):
    some = patterns(model, ragged, layers=[2, 0])
    assert some["layer"].values.tolist() == [2, 0]
    assert some.sel(layer=2).equals(patterns(model, ragged).sel(layer=2))


def test_tokens_stand_beside_positions():
    found = patterns(load_model("toy:trigger"), ["bring the sesame", "the map"])
    assert found["token"].values[1].tolist() == ["<bos>", "the", "map", ""]
    assert found["source_token"].sel(prompt=0, src=3).item() == "sesame"


def test_the_mean_over_prompts(model, even):
    found = patterns(model, even)
    averaged = over_prompts(found, even)
    assert averaged["token"].values.tolist() == ["3/2", "1/7", "4/1", "1/8", "5/2", "9/8"]
    np.testing.assert_allclose(averaged.values, found.values.mean(0), atol=1e-6)
    assert averaged.attrs["n_prompts"] == 2


def test_no_mean_over_prompts_of_several_lengths(absolute_model, ragged, refuses):
    refuses(
        lambda: over_prompts(patterns(absolute_model, ragged), ragged),
        "4 to 7 tokens",
        "one by one",
    )


@pytest.mark.parametrize("causal", [1, 0])
def test_which_keys_a_query_can_see(absolute_model, ragged, causal):
    one = patterns(absolute_model, ragged).isel(prompt=1).assign_attrs(causal=causal)
    expected = np.zeros((7, 7), dtype=bool)
    for query in range(4):
        for key in range(4):
            expected[query, key] = key <= query or not causal
    assert (seen_keys(one) == expected).all()
    assert n_keys(one).tolist() == expected.sum(1).tolist()


def test_the_model_stays_as_it_was(model, snapshot, ragged):
    before = snapshot(model)
    patterns(model, ragged)
    before.check()
    assert not torch.is_inference_mode_enabled()
