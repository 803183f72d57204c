"""What a model of TransformerLens is: its facts, and its forward pass in parts.

The framework works on a `HookedTransformer` as it is, loaded by `load_model` or made by you.

    >>> from mechinterp import load_model
    >>> from mechinterp.models.facts import size
    >>> size(load_model("toy:trigger"))
    '2 layers, 3 heads, d_model 57, vocabulary 55, context 17'
"""

import copy
import hashlib
import json
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import HookedTransformer
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.cache.key_value_cache_entry import TransformerLensKeyValueCacheEntry
from transformer_lens.utilities.activation_functions import apply_softcap
from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES

from mechinterp.models.fused_attention import with_fused_attention

SWITCHES = {
    "attn_in": "use_attn_in",
    "split_qkv": "use_split_qkv_input",
    "mlp_in": "use_hook_mlp_in",
    "head_result": "use_attn_result",
}
"""Option of `load_model` -> the flag that it sets."""


def name(model: HookedTransformer) -> str:
    """What the model was loaded as."""
    return model.cfg.model_name or "model"


def size(model: HookedTransformer) -> str:
    """Its layers, heads and other sizes, in words."""
    cfg = model.cfg
    grouped = f" ({cfg.n_key_value_heads} key-value)" if cfg.n_key_value_heads else ""
    return (
        f"{cfg.n_layers} layers, {cfg.n_heads}{grouped} heads, d_model {cfg.d_model}, "
        f"vocabulary {cfg.d_vocab}, context {cfg.n_ctx}"
    )


def processing(model: HookedTransformer) -> str:
    """How the weights were processed, read off the model itself."""
    folded = str(model.cfg.normalization_type).endswith("Pre")
    unembedding = model.W_U.detach()[:16]  # some rows tell: each is centred by itself
    spread = float(unembedding.mean(-1).abs().max() / unembedding.abs().max().clamp(min=1e-30))
    norms = "norms folded" if folded else f"norm {model.cfg.normalization_type} not folded"
    return f"{norms}, unembedding {'centred' if spread < 1e-5 else 'not centred'}"


def fingerprint(model: HookedTransformer) -> str:
    """A hash of the configuration and of every weight: equal if and only if the models are."""
    shape = {k: str(v) for k, v in sorted(vars(model.cfg).items()) if k != "device"}
    digest = hashlib.sha256(json.dumps(shape).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def is_hooked(module: nn.Module) -> bool:
    """True if it is a model of the library, with a configuration."""
    return isinstance(module, HookedTransformer)


def fired_points(model: HookedTransformer) -> set[str]:
    """The full names of the hook points that run, found by running one token."""
    fired: set[str] = set()
    points = model.hook_dict.items()
    handles = [p.register_forward_hook(lambda *_, n=name: fired.add(n)) for name, p in points]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 1, dtype=torch.long, device=model.W_E.device))
    finally:
        for handle in handles:
            handle.remove()
    return fired


# The parts of a forward pass: the runner puts them together


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


def mean_embedding(model: HookedTransformer) -> Float[Tensor, " d_model"]:
    """The mean over the vocabulary of what the embedding gives."""
    with torch.no_grad():
        every = torch.arange(model.cfg.d_vocab, device=device(model))
        return model.embed(every[None])[0].mean(0)


def token_embeddings(
    model: HookedTransformer, ids: Int[Tensor, " token"]
) -> Float[Tensor, "token d_model"]:
    """The embedding of each token, without positions."""
    with torch.no_grad():
        return model.embed(ids[None])[0]


def unembedding_weights(model: HookedTransformer) -> Float[Tensor, "d_model vocab"]:
    """W_U."""
    return model.unembed.W_U.detach()


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


def device(model: HookedTransformer) -> torch.device:
    """Where the model reads its tokens."""
    return model.W_E.device


def can_resume(model: HookedTransformer) -> bool:
    """True if every layer reads the residual stream alone, so that a pass may start at any."""
    return model.cfg.positional_embedding_type != "shortformer"


def may_begin_late(model: HookedTransformer) -> bool:
    """True if a pass may go on from cached keys and values: causal, no window, inputs not split."""
    cfg = model.cfg
    split = cfg.use_split_qkv_input or cfg.use_attn_in
    return cfg.attention_dir == "causal" and not cfg.use_local_attn and not split


def output_weights(model: HookedTransformer, layer: int) -> Float[Tensor, "head d_head d_model"]:
    """W_O of a layer: what a head writes into the residual stream is its `z` times its part."""
    return model.blocks[layer].attn.W_O.detach()


def heads_pass_a_norm(model: HookedTransformer) -> bool:
    """True if attention's output is normed before it is added to the residual stream."""
    after = bool(model.cfg.use_normalization_before_and_after)
    return after or model.cfg.original_architecture in POST_NORM_ARCHITECTURES


def switches(model: HookedTransformer) -> str:
    """The configuration as text: what was found out about a model holds while it is the same."""
    return repr(sorted(vars(model.cfg).items(), key=str))


def layer_without_data(model: HookedTransformer) -> Any:
    """A copy of the first layer whose tensors have shapes alone (torch's meta device)."""
    layer = model.blocks[0]
    bare = {id(p): nn.Parameter(p.to("meta"), requires_grad=False) for p in layer.parameters()}
    copied = copy.deepcopy(layer, bare | {id(b): b.to("meta") for b in layer.buffers()})
    for module in copied.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return copied


def has_foreign_hooks(model: HookedTransformer) -> bool:
    """True if somebody else's hooks are on the model: they may look at the whole batch."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


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
