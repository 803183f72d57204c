"""A model's weights by what they do, for analyses that read them; and copies with other weights.

>>> from mechinterp import load_model
>>> from mechinterp.models.weights import output_weights
>>> output_weights(load_model("toy:trigger"), layer=1).shape
torch.Size([3, 4, 57])
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import HookedTransformer

from mechinterp.core.modes import gradients_off
from mechinterp.models.facts import device
from mechinterp.models.model import require_model


def mean_embedding(model: HookedTransformer) -> Float[Tensor, " d_model"]:
    """The mean token embedding over the vocabulary, without positions."""
    require_model(model)
    with gradients_off():
        every = torch.arange(model.cfg.d_vocab, device=device(model))
        return model.embed(every[None])[0].mean(0)


def embed_tokens(
    model: HookedTransformer, tokens: Int[Tensor, "row pos"]
) -> Float[Tensor, "row pos d_model"]:
    """The token embeddings of prompts, without positions; gradients flow."""
    return model.embed(tokens)


def token_embeddings(
    model: HookedTransformer, ids: Int[Tensor, " token"]
) -> Float[Tensor, "token d_model"]:
    """The embedding of each token id, without positions; no gradient."""
    with gradients_off():
        return model.embed(ids[None])[0]


def unembedding_weights(model: HookedTransformer) -> Float[Tensor, "d_model vocab"]:
    """W_U, the unembedding."""
    return model.unembed.W_U.detach()


def output_weights(model: HookedTransformer, layer: int) -> Float[Tensor, "head d_head d_model"]:
    """W_O of a layer. A head writes its `z` times its slice of it into the residual stream."""
    return model.blocks[layer].attn.W_O.detach()


def unscaled_norm(
    model: HookedTransformer, layer: int | None, value: Float[Tensor, "*row d_model"]
) -> Float[Tensor, "*row d_model"]:
    """The linear part of a layer's first norm (None: of the final norm), without scale and bias.

    It subtracts the mean, if this norm does, and multiplies each dimension by its gain.
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
    """‖v W_O‖: how much each head would write if it attended to one source alone."""
    weights = output_weights(model, layer).double()
    n_sharing = len(weights) // value.shape[2]  # query heads that share one head of values
    value = value.double().repeat_interleave(n_sharing, 2)
    written = [(value[:, :, head] @ weight).norm(dim=-1) for head, weight in enumerate(weights)]
    return torch.stack(written, 1)


def weights_by_part(model: HookedTransformer) -> dict[str, list[nn.Parameter]]:
    """The weights of each part by name, from the output to the input; each weight once.

    Parts: "unembed" (with the final norm), "L3" ... "L0", "embed".
    """
    given: list[tuple[str, list[nn.Module | None]]] = [
        ("unembed", [model.unembed, getattr(model, "ln_final", None)])
    ]
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
    """Shuffle the numbers within each tensor, in place. Do this to a copy of the model only."""
    rng = np.random.default_rng(list(seed))
    with gradients_off():
        for weight in weights:
            order = torch.from_numpy(rng.permutation(weight.numel())).to(weight.device)
            weight.copy_(weight.flatten()[order].reshape(weight.shape))


def copy_model(model: HookedTransformer) -> HookedTransformer:
    """A copy with its own weights; the tokenizer is shared."""
    require_model(model)
    return copy.deepcopy(model, {id(model.tokenizer): model.tokenizer})


def attention_bias(model: HookedTransformer, layer: int) -> Float[Tensor, " d_model"]:
    """b_O of a layer: the bias of attention's output, which belongs to no head."""
    return model.blocks[layer].attn.b_O.detach()


def mlp_output(
    model: HookedTransformer, layer: int
) -> tuple[Float[Tensor, "neuron d_model"], Float[Tensor, " d_model"]]:
    """W_out and b_out of a layer. A neuron writes its activation times its row of W_out."""
    mlp = model.blocks[layer].mlp
    return mlp.W_out.detach(), mlp.b_out.detach()


def final_norm(model: HookedTransformer) -> nn.Module | None:
    """The norm before the unembedding; None if the model has none."""
    return None if model.cfg.normalization_type is None else model.ln_final
