"""Layers with torch's fused attention: the same output, without attention scores and pattern.

For long prompts, scores and pattern are most of the memory of a pass, and half of them are masked.
Where no spec needs them, fused attention takes a fraction of the time. It rounds differently.

>>> import torch
>>> from mechinterp import load_model
>>> from mechinterp.models.fused_attention import with_fused_attention
>>> layer, resid = load_model("toy:trigger").blocks[1], torch.randn(1, 9, 57)
>>> torch.allclose(with_fused_attention(layer)(resid), layer(resid), atol=1e-5)
True
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedTransformer
from transformer_lens.components import TransformerBlock

FROM = 128
"""The prompt length, in positions, from which fused attention is faster."""

QUERIES = 256
"""How many queries one call takes, with all keys up to the last of them."""


def can_fuse(model: HookedTransformer) -> bool:
    """True if all layers have plain causal attention in float32 or float64.

    In half precision the model rounds its scores more than fused attention does: they would differ.
    """
    cfg = model.cfg
    return (
        cfg.dtype in (torch.float32, torch.float64)
        and cfg.positional_embedding_type in ("standard", "rotary")
        and cfg.attention_dir == "causal"
        and not (cfg.use_local_attn or cfg.use_attention_sinks or cfg.load_in_4bit)
        and not cfg.attn_scores_soft_cap > 0
        and all(_is_plain(block.attn) for block in model.blocks)
    )


def _is_plain(attn: nn.Module) -> bool:
    """True for the library's own attention, none of whose methods has been replaced."""
    kind = type(attn)
    plain = kind.__name__ in ("Attention", "GroupedQueryAttention")
    plain = plain and kind.__module__.startswith("transformer_lens.components.")
    plain = plain and attn._attention_dir_override is None
    return plain and not any(hasattr(kind, name) for name in vars(attn))


def with_fused_attention(block: TransformerBlock) -> TransformerBlock:
    """A copy of a layer that attends fused; it shares weights and hook points with the original.

    Its hook points "attn_scores" and "pattern" receive placeholders: no spec may be on them.
    """
    here, attn = copy.copy(block), copy.copy(block.attn)
    here.__dict__["_modules"] = {**block._modules, "attn": attn}
    seen: list[Tensor] = []

    def scores(q: Tensor, k: Tensor) -> Tensor:
        seen[:] = q, k
        return q.new_zeros(1, 1, 1, 1)

    def z(v: Tensor, pattern: Tensor) -> Tensor:
        q, k = seen
        shown: Tensor = attn.hook_z(_attend(q, k, v, 1 / attn.attn_scale))
        return shown

    # The library's forward asks for scores, masks them, and asks for z: q and k wait until then.
    attn.calculate_attention_scores = scores
    attn.apply_causal_mask = lambda scores, *more: scores
    attn.calculate_z_scores = z
    return here


def _attend(
    q: Float[Tensor, "row pos head d_head"],
    k: Float[Tensor, "row src kv_head d_head"],
    v: Float[Tensor, "row src kv_head d_head"],
    scale: float,
) -> Float[Tensor, "row pos head d_head"]:
    """`z` of the last positions, each attending to all keys up to itself."""
    shared = q.shape[2] // k.shape[2]
    keys, values = (x.repeat_interleave(shared, 2).transpose(1, 2) for x in (k, v))
    n_before, made = k.shape[1] - q.shape[1], []
    for start in range(0, q.shape[1], QUERIES):
        some = q[:, start : start + QUERIES].transpose(1, 2)
        end = n_before + start + some.shape[2]
        causal = torch.ones(some.shape[2], end, dtype=torch.bool, device=q.device)
        made.append(
            torch.nn.functional.scaled_dot_product_attention(
                some,
                keys[:, :, :end],
                values[:, :, :end],
                attn_mask=causal.tril(n_before + start),
                scale=scale,
            ).transpose(1, 2)
        )
    return torch.cat(made, 1)
