"""An empty model to write a mechanism into: a configuration, and a state dict of zeros.

It has no norms and does not scale scores: sums stay sums, and a score is a dot product.

>>> from mechinterp.toys.blank import attention_only, zeros
>>> config = attention_only(n_layers=1, n_heads=2, d_head=3, n_ctx=4, d_vocab=5, d_model=6)
>>> zeros(config)["blocks.0.attn.W_Q"].shape
torch.Size([2, 6, 3])
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Config = Mapping[str, Any]
"""Keyword arguments of `HookedTransformerConfig`."""


def attention_only(**sizes: int) -> Config:
    """The configuration of a model without MLPs."""
    return {
        **sizes,
        "attn_only": True,
        "normalization_type": None,
        "use_attn_scale": False,
        "positional_embedding_type": "standard",
    }


def with_mlps(**sizes: int) -> Config:
    """The configuration of a model with ReLU MLPs."""
    return {**attention_only(**sizes), "attn_only": False, "act_fn": "relu"}


def zeros(config: Config) -> dict[str, Tensor]:
    """The complete state dict of this configuration, all zero."""
    d_model, d_vocab = config["d_model"], config["d_vocab"]
    n_heads, d_head = config["n_heads"], config["d_head"]
    shapes: dict[str, Sequence[int]] = {
        "embed.W_E": (d_vocab, d_model),
        "pos_embed.W_pos": (config["n_ctx"], d_model),
        "unembed.W_U": (d_model, d_vocab),
        "unembed.b_U": (d_vocab,),
    }
    for layer in range(config["n_layers"]):
        for name in "QKV":
            shapes[f"blocks.{layer}.attn.W_{name}"] = (n_heads, d_model, d_head)
            shapes[f"blocks.{layer}.attn.b_{name}"] = (n_heads, d_head)
        shapes[f"blocks.{layer}.attn.W_O"] = (n_heads, d_head, d_model)
        shapes[f"blocks.{layer}.attn.b_O"] = (d_model,)
        if not config["attn_only"]:
            d_mlp = config["d_mlp"]
            shapes[f"blocks.{layer}.mlp.W_in"] = (d_model, d_mlp)
            shapes[f"blocks.{layer}.mlp.b_in"] = (d_mlp,)
            shapes[f"blocks.{layer}.mlp.W_out"] = (d_mlp, d_model)
            shapes[f"blocks.{layer}.mlp.b_out"] = (d_model,)
    return {name: torch.zeros(shape) for name, shape in shapes.items()}
