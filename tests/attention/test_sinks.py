import numpy as np
import pytest

from mechinterp import load_model
from mechinterp.attention import patterns, received, sink_share, without_sink


def test_the_share_of_the_first_token(model, ragged):
    found = patterns(model, ragged)
    share = sink_share(found)
    assert share.dims == ("prompt", "layer", "head")
    for row, length in enumerate((7, 4, 6)):
        slow = np.mean([found.values[row, :, :, q, 0] for q in range(1, length)], 0)
        np.testing.assert_allclose(share.values[row], slow, atol=1e-6)


def test_renormalised_rows_add_up_to_1(model, ragged):
    found = patterns(model, ragged)
    rest = without_sink(found)
    assert np.isnan(rest.sel(src=0)).all()
    assert np.isnan(rest.sel(pos=0)).all()
    for row, length in enumerate((7, 4, 6)):
        for query in range(1, length):
            whole = found.values[row, :, :, query, 1 : query + 1]
            here = rest.values[row, :, :, query, 1 : query + 1]
            np.testing.assert_allclose(here, whole / whole.sum(-1, keepdims=True), atol=1e-5)
            np.testing.assert_allclose(here.sum(-1), 1, atol=1e-5)


def test_what_each_key_receives(model, ragged):
    found = patterns(model, ragged)
    gets = received(found)
    for row, length in enumerate((7, 4, 6)):
        for key in range(length - 1):
            slow = np.mean([found.values[row, :, :, q, key] for q in range(key + 1, length)], 0)
            np.testing.assert_allclose(gets.values[row, :, :, key], slow, atol=1e-6)
        assert np.isnan(gets.values[row, :, :, length - 1 :]).all()


def test_a_head_without_its_word_rests_on_the_first_token():
    found = patterns(load_model("toy:trigger"), "please bring the letter to the door")
    share = sink_share(found).isel(prompt=0)
    assert share.sel(layer=1, head=0) > 0.95
    assert share.sel(layer=1, head=1) < 0.3


@pytest.mark.parametrize("call", [sink_share, without_sink])
def test_twice_is_refused(absolute_model, ragged, refuses, call):
    refuses(lambda: call(without_sink(patterns(absolute_model, ragged))), "set aside")


def test_one_token_is_refused(absolute_model, refuses):
    import torch

    refuses(lambda: sink_share(patterns(absolute_model, torch.tensor([[3]]))), "a single token")


@pytest.mark.slow
def test_on_a_real_model_about_half_goes_to_the_start_token(smollm2):
    text = "When Mary and John went to the store, John gave a drink to Mary, and then they left."
    share = sink_share(patterns(smollm2, text))
    assert 0.4 < float(share.mean()) < 0.7
    assert float(share.max()) > 0.95
