"""The steps of a forward pass. The engine puts them together.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.models.forward_parts import embed, run_block
>>> model = load_model("toy:trigger")
>>> resid, positions = embed(model, tokenize(model, "please bring").tokens)
>>> run_block(model, 0, resid, positions).shape
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


def library_logits(
    model: HookedTransformer, tokens: Int[Tensor, "row pos"]
) -> Float[Tensor, "row pos vocab"]:
    """The logits of TransformerLens's own forward pass, unchanged."""
    logits: Tensor = model(tokens)
    return logits


def embed(
    model: HookedTransformer, tokens: Int[Tensor, "row pos"], first: int = 0
) -> tuple[Float[Tensor, "row pos d_model"], Float[Tensor, "row pos d_model"] | None]:
    """The residual stream before layer 0, for tokens at positions `first`, `first` + 1, ...

    A shortformer's residual stream holds no positions: its layers' queries and keys read position
    embeddings, which are the second value here. For all other models it is None.
    """
    if model.cfg.use_hook_tokens:
        tokens = model.hook_tokens(tokens)
    embed = model.hook_embed(model.embed(tokens))
    return model.get_residual(embed, first, tokens=tokens)


def run_block(
    model: HookedTransformer,
    layer: int,
    resid: Float[Tensor, "row pos d_model"],
    positions: Float[Tensor, "row pos d_model"] | None = None,
    entry: TransformerLensKeyValueCacheEntry | None = None,
    *,
    fused: bool = False,
) -> Float[Tensor, "row pos d_model"]:
    """The residual stream after a layer, from the residual stream before it.

    `positions`: the second value of `embed`. `entry`: keys and values of earlier positions.
    `fused`: use fused attention, so that no attention scores and no pattern exist.
    """
    here = model.blocks[layer]
    here = with_fused_attention(here) if fused else here
    place = here.attn.W_O.device
    positions = None if positions is None else positions.to(place)
    return here(resid.to(place), shortformer_pos_embed=positions, past_kv_cache_entry=entry)


def normalize(
    model: HookedTransformer, resid: Float[Tensor, "row pos d_model"]
) -> Float[Tensor, "row pos d_model"]:
    """The residual stream after the final norm, which acts on each position separately."""
    return resid if model.cfg.normalization_type is None else model.ln_final(resid)


def unembed_with_hooks(
    model: HookedTransformer, normalized: Float[Tensor, "row pos d_model"]
) -> Float[Tensor, "row pos vocab"]:
    """Logits from the final norm's output, by the library's own unembedding; its hooks run."""
    return apply_softcap(model.unembed(normalized), model.cfg.output_logits_soft_cap)


def unembed(
    model: HookedTransformer,
    normalized: Float[Tensor, "row pos d_model"],
    tokens: Int[Tensor, "row n"] | None = None,
    part: slice = slice(None),
) -> Float[Tensor, "row pos column"]:
    """Logits from the final norm's output, without a copy of the unembedding; no hooks run.

    All logits, those of a slice of the vocabulary (`part`), or those of `tokens`, some for each
    row.
    """
    weights, biases = model.unembed.W_U.detach().T, model.unembed.b_U.detach()
    if tokens is None:
        logits = nn.functional.linear(normalized, weights[part], biases[part])
    else:
        # [row, pos, d_model], [row, n, d_model] -> [row, pos, n]
        logits = torch.einsum("rpd,rnd->rpn", normalized, weights[tokens]) + biases[tokens][:, None]
    return apply_softcap(logits, model.cfg.output_logits_soft_cap)


def keys_and_values(
    model: HookedTransformer,
    layer: int,
    resid: Float[Tensor, "row pos d_model"],
    before: TransformerLensKeyValueCacheEntry | None = None,
) -> TransformerLensKeyValueCacheEntry:
    """The keys and values of a layer, appended to those `before`; no queries are computed."""
    here = model.blocks[layer]
    normed = here.ln1(resid)
    _, keys, values = here.attn.calculate_qkv_matrices(normed[:, :0], normed, normed)
    if before is not None:
        keys, values = before.append(keys, values)
    return cache_entry(keys, values)


def cache_entry(
    keys: Float[Tensor, "row pos head d_head"], values: Float[Tensor, "row pos head d_head"]
) -> TransformerLensKeyValueCacheEntry:
    """A cache entry of earlier positions' keys and values, to which `run_block` adds nothing."""
    return TransformerLensKeyValueCacheEntry(keys, values, frozen=True)


def key_value_cache(model: HookedTransformer, n_rows: int) -> TransformerLensKeyValueCache:
    """An empty cache of keys and values, to which `run_block` adds."""
    return TransformerLensKeyValueCache.init_cache(model.cfg, device(model), n_rows)
