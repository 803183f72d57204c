"""A layer with fused attention: the same output, while its scores and pattern are never made.

Of a long prompt they are most of what a pass allocates, and half of them are masked. Where nothing
looks at them, torch's fused attention takes a fraction of the time, and rounds otherwise.

>>> import torch
>>> from mechinterp import load_model
>>> from mechinterp.models.fused_attention import with_fused_attention
>>> layer, resid = load_model("toy:trigger").blocks[1], torch.randn(1, 9, 57)
>>> torch.allclose(with_fused_attention(layer)(resid), layer(resid), atol=1e-5)
True
"""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import HookedTransformer

FROM = 128
"""The positions from which on it pays."""

QUERIES = 256
"""How many queries are taken at a time, each such block with the keys up to its end."""


def can_fuse(model: HookedTransformer) -> bool:
    """Whether all layers have plain causal attention, in single precision at least.

    In half precision the unfused scores are rounded more, so that the two would not agree.
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


def _is_plain(attn: Any) -> bool:
    """The library's own attention, of which nobody replaced a method."""
    kind = type(attn)
    plain = kind.__name__ in ("Attention", "GroupedQueryAttention")
    plain = plain and kind.__module__.startswith("transformer_lens.components.")
    plain = plain and attn._attention_dir_override is None
    return plain and not any(hasattr(kind, name) for name in vars(attn))


def with_fused_attention(block: Any) -> Any:
    """A layer that shares its weights and hook points with this one, which stays as it is.

    Of its hook points, "attn_scores" and "pattern" are passed by something else than they say.
    """
    here, attn = copy.copy(block), copy.copy(block.attn)
    here.__dict__["_modules"] = {**block._modules, "attn": attn}
    seen: list[Tensor] = []

    def scores(q: Tensor, k: Tensor) -> Tensor:
        seen[:] = q, k
        return q.new_zeros(1, 1, 1, 1)

    def z(v: Tensor, pattern: Tensor) -> Tensor:
        q, k = seen
        shown: Tensor = attn.hook_z(_attended(q, k, v, 1 / attn.attn_scale))
        return shown

    attn.calculate_attention_scores = scores
    attn.apply_causal_mask = lambda scores, *more: scores
    attn.calculate_z_scores = z
    return here


def _attended(
    q: Float[Tensor, "row pos head d_head"],
    k: Float[Tensor, "row src kv_head d_head"],
    v: Float[Tensor, "row src kv_head d_head"],
    scale: float,
) -> Float[Tensor, "row pos head d_head"]:
    """What the last positions take from those up to each."""
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
