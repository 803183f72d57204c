"""The forward pass of a model in parts, which the engine puts together.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.models.forward_parts import block, embedded
>>> model = load_model("toy:trigger")
>>> resid, positions = embedded(model, tokenize(model, "please bring").tokens)
>>> block(model, 0, resid, positions).shape
torch.Size([1, 3, 57])
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import HookedTransformer
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.utilities.activation_functions import apply_softcap

from mechinterp.models.facts import device
from mechinterp.models.fused_attention import with_fused_attention


def whole_pass(
    model: HookedTransformer, tokens: Int[Tensor, "row pos"]
) -> Float[Tensor, "row pos vocab"]:
    """Logits by the library's own forward pass."""
    logits: Tensor = model(tokens)
    return logits


def embedded(
    model: HookedTransformer, tokens: Int[Tensor, "row pos"], first: int = 0
) -> tuple[Float[Tensor, "row pos d_model"], Float[Tensor, "row pos d_model"] | None]:
    """The residual stream before layer 0, of tokens that stand at positions from `first` on.

    Beside it, in a shortformer, the position embeddings: there each layer's queries and keys read
    them, and the residual stream does not hold them. Elsewhere None.
    """
    if model.cfg.use_hook_tokens:
        tokens = model.hook_tokens(tokens)
    embed = model.hook_embed(model.embed(tokens))
    return model.get_residual(embed, first, tokens=tokens)


def block(
    model: HookedTransformer,
    layer: int,
    resid: Float[Tensor, "row pos d_model"],
    positions: Float[Tensor, "row pos d_model"] | None = None,
    entry: TransformerLensKeyValueCacheEntry | None = None,
    fused: bool = False,
) -> Float[Tensor, "row pos d_model"]:
    """The residual stream after a layer; with a cache entry, of positions after those in it.

    `positions`: what `embedded` gave beside the residual stream. `fused`: without its attention
    scores and pattern.
    """
    here = model.blocks[layer]
    here = with_fused_attention(here) if fused else here
    place = here.attn.W_O.device
    positions = None if positions is None else positions.to(place)
    return here(resid.to(place), shortformer_pos_embed=positions, past_kv_cache_entry=entry)


def normalized(
    model: HookedTransformer, resid: Float[Tensor, "row pos d_model"]
) -> Float[Tensor, "row pos d_model"]:
    """The residual stream after the final norm; it acts on each position by itself."""
    return resid if model.cfg.normalization_type is None else model.ln_final(resid)


def hooked_unembedded(
    model: HookedTransformer, normalized: Float[Tensor, "row pos d_model"]
) -> Float[Tensor, "row pos vocab"]:
    """Logits by the library's own unembedding, whose hooks run."""
    return apply_softcap(model.unembed(normalized), model.cfg.output_logits_soft_cap)


def unembedded(
    model: HookedTransformer,
    normalized: Float[Tensor, "row pos d_model"],
    tokens: Int[Tensor, "row n"] | None = None,
    part: slice = slice(None),
) -> Float[Tensor, "row pos column"]:
    """Logits from the final norm's output: of the vocabulary or a part, or of a few tokens per row.

    Unlike the library's own it does not copy the unembedding, and fires no hooks.
    """
    weights, biases = model.unembed.W_U.detach().T, model.unembed.b_U.detach()
    if tokens is None:
        logits = nn.functional.linear(normalized, weights[part], biases[part])
    else:
        logits = torch.einsum("rpd,rnd->rpn", normalized, weights[tokens]) + biases[tokens][:, None]
    return apply_softcap(logits, model.cfg.output_logits_soft_cap)


def keys_and_values(
    model: HookedTransformer,
    layer: int,
    resid: Float[Tensor, "row pos d_model"],
    before: TransformerLensKeyValueCacheEntry | None = None,
) -> TransformerLensKeyValueCacheEntry:
    """The keys and values of a layer alone, after those before them, without its queries."""
    here = model.blocks[layer]
    normed = here.ln1(resid)
    _, keys, values = here.attn.calculate_qkv_matrices(normed[:, :0], normed, normed)
    if before is not None:
        keys, values = before.append(keys, values)
    return cache_entry(keys, values)


def cache_entry(
    keys: Float[Tensor, "row pos head d_head"], values: Float[Tensor, "row pos head d_head"]
) -> TransformerLensKeyValueCacheEntry:
    """Keys and values of positions before those that a `block` is given; it adds none to them."""
    return TransformerLensKeyValueCacheEntry(keys, values, frozen=True)


def key_value_cache(model: HookedTransformer, n_rows: int) -> TransformerLensKeyValueCache:
    """An empty cache of keys and values; `block` adds to it."""
    return TransformerLensKeyValueCache.init_cache(model.cfg, device(model), n_rows)
