"""The layout of weights changes where numbers lie, and none of them."""

import copy

import torch

from mechinterp.models.facts import fingerprint
from mechinterp.models.weight_layout import store_as_multiplied


def test_no_number_changes_and_no_logit(model):
    other = copy.deepcopy(model)
    store_as_multiplied(other)
    ids = torch.tensor([[3, 9, 4, 7]])
    assert fingerprint(other) == fingerprint(model)
    assert torch.equal(other(ids), model(ids))
    for name, weight in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight)


def test_what_the_library_multiplies_by_is_a_view(model):
    other = copy.deepcopy(model)
    store_as_multiplied(other)
    for block in other.blocks:
        for weight in (block.attn.W_Q, getattr(block.attn, "_W_K", block.attn.W_K)):
            flat = weight.permute(0, 2, 1).flatten(0, 1)
            assert flat.data_ptr() == weight.data_ptr()
        out = block.attn.W_O.permute(2, 0, 1).flatten(1)
        assert out.data_ptr() == block.attn.W_O.data_ptr()
        mlp = getattr(block, "mlp", None)
        for weight in (mlp.W_gate, mlp.W_in, mlp.W_out) if hasattr(mlp, "W_gate") else ():
            assert weight.T.is_contiguous()
    assert other.unembed.W_U.T.is_contiguous()
