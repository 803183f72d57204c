"""`Model`: what the framework needs of a model, whoever made it.

A `HookedTransformer` has all of it. Only files in `models/` reach into a model's modules; all else
asks them, so that another kind of model needs no more than another adapter there.

>>> from mechinterp import load_model
>>> from mechinterp.models import Model
>>> isinstance(load_model("toy:trigger"), Model)
True
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class ModelConfig(Protocol):
    """The sizes and switches of a model, by their names in TransformerLens."""

    n_layers: int
    n_heads: int
    n_key_value_heads: int | None
    d_model: int
    d_head: int
    d_mlp: int  # without a meaning where there are attention layers alone
    d_vocab: int
    d_vocab_out: int
    n_ctx: int
    dtype: torch.dtype
    attn_only: bool
    parallel_attn_mlp: bool
    attention_dir: str
    normalization_type: str | None
    positional_embedding_type: str
    output_logits_soft_cap: float
    default_prepend_bos: bool
    ungroup_grouped_query_attention: bool


@runtime_checkable
class Model(Protocol):
    """A model with named hook points, and the tokenizer that it was trained with."""

    @property
    def cfg(self) -> ModelConfig:
        """Its sizes and switches."""

    @property
    def tokenizer(self) -> Any:
        """A tokenizer of Hugging Face's interface; None if the model reads token ids alone."""

    @property
    def hook_dict(self) -> Mapping[str, nn.Module]:
        """Every hook point by its full name, such as "blocks.0.attn.hook_z"."""
