"""Attention weights stored in the memory order in which TransformerLens multiplies them.

It holds W_Q as (head, d_model, d_head), but multiplies by (head d_head, d_model), which copies all
attention weights in every pass: a tenth of the time of a short pass. If the numbers lie in memory
in the second order, the same expression is a view. No number changes.

>>> import torch
>>> from mechinterp import load_model
>>> attention = load_model("toy:trigger").blocks[0].attn
>>> attention.W_Q.shape, attention.W_Q.permute(0, 2, 1).is_contiguous()
(torch.Size([3, 57, 4]), True)
"""

from transformer_lens import HookedTransformer

from mechinterp.core.modes import gradients_off

_STORED_AS = {"W_Q": (0, 2, 1), "W_K": (0, 2, 1), "W_V": (0, 2, 1), "W_O": (2, 0, 1)}
"""The order of each weight's axes in memory."""


def store_as_multiplied(model: HookedTransformer) -> None:
    """Store the attention weights in that order, in place; the model must be your own."""
    with gradients_off():
        for block in model.blocks:
            for name, weight in block.attn.named_parameters(recurse=False):
                axes = _STORED_AS.get(name.removeprefix("_"))  # _W_K where queries share keys
                if axes is not None and weight.ndim == len(axes):
                    back = [axes.index(axis) for axis in range(len(axes))]
                    weight.data = weight.data.permute(axes).contiguous().permute(back)
