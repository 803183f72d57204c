"""What a model of TransformerLens is: its name, sizes and switches, and what they allow.

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
from torch import nn
from transformer_lens import HookedTransformer
from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES

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
