"""Weights stored in the memory order in which TransformerLens multiplies them.

It holds W_Q as (head, d_model, d_head), but multiplies by (head d_head, d_model), and it multiplies
by the transposes of the unembedding and of a gated MLP's weights: so nearly all weights are copied
in every pass, which is over half of the time of a short pass. If the numbers lie in memory in the
second order, the same expression is a view. No number changes.

>>> import torch
>>> from mechinterp import load_model
>>> attention = load_model("toy:trigger").blocks[0].attn
>>> attention.W_Q.shape, attention.W_Q.permute(0, 2, 1).is_contiguous()
(torch.Size([3, 57, 4]), True)
"""

from collections.abc import Mapping

from torch import nn
from transformer_lens import HookedTransformer
from transformer_lens.components import GatedMLP

from mechinterp.core.modes import gradients_off

_ATTENTION = {"W_Q": (0, 2, 1), "W_K": (0, 2, 1), "W_V": (0, 2, 1), "W_O": (2, 0, 1)}
_GATED_MLP = {"W_gate": (1, 0), "W_in": (1, 0), "W_out": (1, 0)}
_UNEMBEDDING = {"W_U": (1, 0)}
"""The order of each weight's axes in memory. An MLP without a gate multiplies by what it holds."""


def store_as_multiplied(model: HookedTransformer) -> None:
    """Store the weights in that order, in place; the model must be your own."""
    with gradients_off():
        _store(model.unembed, _UNEMBEDDING)
        for block in model.blocks:
            _store(block.attn, _ATTENTION)
            if isinstance(getattr(block, "mlp", None), GatedMLP):
                _store(block.mlp, _GATED_MLP)


def _store(part: nn.Module, stored_as: Mapping[str, tuple[int, ...]]) -> None:
    for name, weight in part.named_parameters(recurse=False):
        axes = stored_as.get(name.removeprefix("_"))  # _W_K where queries share keys
        if axes is not None and weight.ndim == len(axes):
            back = [axes.index(axis) for axis in range(len(axes))]
            weight.data = weight.data.permute(axes).contiguous().permute(back)
