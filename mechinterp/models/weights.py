"""The weights of a model by what they do, read for analyses.

>>> from mechinterp import load_model
>>> from mechinterp.models.weights import output_weights
>>> output_weights(load_model("toy:trigger"), layer=1).shape
torch.Size([3, 4, 57])
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import HookedTransformer

from mechinterp.models.facts import device


def mean_embedding(model: HookedTransformer) -> Float[Tensor, " d_model"]:
    """The mean over the vocabulary of what the embedding gives."""
    with torch.no_grad():
        every = torch.arange(model.cfg.d_vocab, device=device(model))
        return model.embed(every[None])[0].mean(0)


def embedding(
    model: HookedTransformer, tokens: Int[Tensor, "row pos"]
) -> Float[Tensor, "row pos d_model"]:
    """What the embedding gives for tokens, without positions."""
    embedded: Tensor = model.embed(tokens)
    return embedded


def token_embeddings(
    model: HookedTransformer, ids: Int[Tensor, " token"]
) -> Float[Tensor, "token d_model"]:
    """The embedding of each token, without positions."""
    with torch.no_grad():
        return model.embed(ids[None])[0]


def unembedding_weights(model: HookedTransformer) -> Float[Tensor, "d_model vocab"]:
    """W_U."""
    return model.unembed.W_U.detach()


def output_weights(model: HookedTransformer, layer: int) -> Float[Tensor, "head d_head d_model"]:
    """W_O of a layer: what a head writes into the residual stream is its `z` times its part."""
    return model.blocks[layer].attn.W_O.detach()


def unscaled_norm(
    model: HookedTransformer, layer: int | None, value: Float[Tensor, "*row d_model"]
) -> Float[Tensor, "*row d_model"]:
    """What a layer's first norm (None: the final one) does to a value but for its scale and bias.

    That is linear: the mean is taken off where the norm does so, and each dimension is multiplied
    by its gain.
    """
    if model.cfg.normalization_type is None:
        return value
    norm = model.ln_final if layer is None else model.blocks[layer].ln1
    if str(model.cfg.normalization_type).startswith("LN"):
        value = value - value.mean(-1, keepdim=True)
    return value * norm.w.detach() if hasattr(norm, "w") else value


def value_lengths(
    model: HookedTransformer, layer: int, value: Float[Tensor, "prompt src kv_head d_head"]
) -> Float[Tensor, "prompt head src"]:
    """The length of what each head would write of each value, if it took it whole: ‖v W_O‖."""
    weights = output_weights(model, layer).double()
    value = value.double().repeat_interleave(len(weights) // value.shape[2], 2)  # heads share one
    written = [(value[:, :, head] @ weight).norm(dim=-1) for head, weight in enumerate(weights)]
    return torch.stack(written, 1)


def parts_from_output(model: HookedTransformer) -> dict[str, list[nn.Parameter]]:
    """The weights of each part by its name, from the output down; each weight in one part."""
    given: list[tuple[str, Any]] = [("unembed", [model.unembed, getattr(model, "ln_final", None)])]
    given += [(f"L{n}", [model.blocks[n]]) for n in reversed(range(model.cfg.n_layers))]
    given += [("embed", [model])]
    seen: set[int] = set()
    parts: dict[str, list[nn.Parameter]] = {}
    for name, modules in given:
        weights = [p for module in modules if module is not None for p in module.parameters()]
        parts[name] = [p for p in weights if id(p) not in seen]
        seen.update(map(id, weights))
    return parts


def shuffle_weights(weights: Sequence[nn.Parameter], seed: Sequence[int]) -> None:
    """Put the numbers of each tensor in random order, in place: the model must be your own copy."""
    rng = np.random.default_rng(list(seed))
    with torch.no_grad():
        for weight in weights:
            order = torch.from_numpy(rng.permutation(weight.numel())).to(weight.device)
            weight.copy_(weight.flatten()[order].reshape(weight.shape))


def copy_of(model: HookedTransformer) -> Any:
    """The model with weights of its own; its tokenizer is shared."""
    return copy.deepcopy(model, {id(model.tokenizer): model.tokenizer})


def attention_bias(model: HookedTransformer, layer: int) -> Float[Tensor, " d_model"]:
    """b_O of a layer."""
    return model.blocks[layer].attn.b_O.detach()


def mlp_output(
    model: HookedTransformer, layer: int
) -> tuple[Float[Tensor, "neuron d_model"], Float[Tensor, " d_model"]]:
    """W_out and b_out of a layer: what a neuron writes is its activation times its row."""
    mlp = model.blocks[layer].mlp
    return mlp.W_out.detach(), mlp.b_out.detach()


def modules_of_layer(model: HookedTransformer, layer: int) -> Any:
    """A layer's own modules: `attn`, `ln1` and, where it has an MLP, `mlp` and `ln2`."""
    return model.blocks[layer]


def final_norm(model: HookedTransformer) -> nn.Module | None:
    """The norm before the unembedding; None if there is none."""
    return None if model.cfg.normalization_type is None else model.ln_final
