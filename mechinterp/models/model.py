"""`Model`: what the framework needs of a model, whatever library made it.

A TransformerLens `HookedTransformer` has all of it. Everything else about a model (its weights, the
steps of its forward pass, its layers in parts) is asked of the functions in `mechinterp.models`,
which alone import TransformerLens. One more place knows a model's own modules: `hooked`
(`engine.context`), which follows a forward pass that somebody else calls.

>>> from mechinterp import load_model
>>> from mechinterp.models import Model
>>> isinstance(load_model("toy:trigger"), Model)
True
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class ModelConfig(Protocol):
    """The sizes and switches of a model, under their names in TransformerLens."""

    n_layers: int
    n_heads: int
    n_key_value_heads: int | None
    d_model: int
    d_head: int
    d_mlp: int  # meaningless if attn_only
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
class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer, besides its special tokens (`special_id`)."""

    added_tokens_decoder: Mapping[int, Any]
    all_special_ids: list[int]
    chat_template: str | dict[str, str] | None

    def __len__(self) -> int:
        """How many tokens it knows, the added ones included."""

    def __call__(self, text: str, **options: bool) -> Mapping[str, Any]:
        """The encoding of a text: "input_ids", and "offset_mapping" on request."""

    def decode(self, ids: Sequence[int], **options: bool) -> str:
        """The text of token ids."""

    def convert_ids_to_tokens(self, ids: int) -> str:
        """The vocabulary's entry for a token id."""

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, object]], **options: bool
    ) -> object:
        """The chat as the template renders it."""


@runtime_checkable
class Model(Protocol):
    """A model with named hook points, and its tokenizer."""

    @property
    def cfg(self) -> ModelConfig:
        """Sizes and switches."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer; None if the model takes only token ids."""

    @property
    def hook_dict(self) -> Mapping[str, nn.Module]:
        """Every hook point, by full name such as "blocks.0.attn.hook_z"."""


def require_model(model: object) -> None:
    """Check that it is a model with hook points, as `load_model` gives.

    Raises:
        ValueError: if it is not.
    """
    if not (hasattr(model, "cfg") and hasattr(model, "hook_dict") and hasattr(model, "tokenizer")):
        how = "load_model(model) loads a model of Hugging Face transformers"
        if isinstance(model, str):
            how = f"load_model({model!r}) loads the model of this name"
        raise ValueError(f"{type(model).__name__} is no model with hook points: {how}.")
