"""Attention weights stored as the library multiplies them, which it would copy at every call.

TransformerLens holds W_Q as (head, d_model, d_head), and multiplies by (head d_head, d_model): a
copy of all attention weights for each layer of each pass, a tenth of a short one. Where the numbers
lie in memory in that order already, the same expression is a view. No number changes.

>>> import torch
>>> from mechinterp import load_model
>>> attention = load_model("toy:trigger").blocks[0].attn
>>> attention.W_Q.shape, attention.W_Q.permute(0, 2, 1).is_contiguous()
(torch.Size([3, 57, 4]), True)
"""

import torch
from transformer_lens import HookedTransformer

_STORED_AS = {"W_Q": (0, 2, 1), "W_K": (0, 2, 1), "W_V": (0, 2, 1), "W_O": (2, 0, 1)}
"""The axes of each weight in the order in which its numbers are to lie."""


def lay_out(model: HookedTransformer) -> None:
    """Put the attention weights of a model of your own into that order, in place."""
    with torch.no_grad():
        for block in model.blocks:
            for name, weight in block.attn.named_parameters(recurse=False):
                axes = _STORED_AS.get(name.removeprefix("_"))  # _W_K where queries share keys
                if axes is not None and weight.ndim == len(axes):
                    back = [axes.index(axis) for axis in range(len(axes))]
                    weight.data = weight.data.permute(axes).contiguous().permute(back)
