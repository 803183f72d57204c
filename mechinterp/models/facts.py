"""Facts about a model: its name, sizes and switches, and what they allow.

The framework takes any `HookedTransformer`, whether `load_model` made it or you did.

    >>> from mechinterp import load_model
    >>> from mechinterp.models.facts import size
    >>> size(load_model("toy:trigger"))
    '2 layers, 3 heads, d_model 57, vocabulary 55, context 17'
"""

import copy
import hashlib
import json
import weakref
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import FunctionType, MethodType
from typing import TypedDict

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from transformer_lens import HookedTransformer
from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES

from mechinterp.core.interrupts import interruptible
from mechinterp.core.modes import gradients_off
from mechinterp.core.turns import OwnHook, acts_here, lock_of, set_running

_KNOWN: ContextVar[tuple[HookedTransformer, str] | None] = ContextVar("known", default=None)
"""A model whose fingerprint is taken as known, in this thread."""


class HookSwitches(TypedDict, total=False):
    """Options of `load_model` that turn on hook points which cost time or memory."""

    attn_in: bool
    split_qkv: bool
    mlp_in: bool
    head_result: bool


SWITCHES: Mapping[str, str] = {
    "attn_in": "use_attn_in",
    "split_qkv": "use_split_qkv_input",
    "mlp_in": "use_hook_mlp_in",
    "head_result": "use_attn_result",
}
"""Option of `load_model` -> the flag in the configuration that it sets."""


def name(model: HookedTransformer) -> str:
    """The name under which the model was loaded."""
    return model.cfg.model_name or "model"


def size(model: HookedTransformer) -> str:
    """The model's sizes, in words."""
    cfg = model.cfg
    grouped = f" ({cfg.n_key_value_heads} key-value)" if cfg.n_key_value_heads else ""
    return (
        f"{cfg.n_layers} layers, {cfg.n_heads}{grouped} heads, d_model {cfg.d_model}, "
        f"vocabulary {cfg.d_vocab}, context {cfg.n_ctx}"
    )


def processing(model: HookedTransformer) -> str:
    """How the weights were processed, as the model itself shows it."""
    folded = str(model.cfg.normalization_type).endswith("Pre")
    unembedding = model.W_U.detach()[:16]  # each row is centred on its own: a few are enough
    spread = float(unembedding.mean(-1).abs().max() / unembedding.abs().max().clamp(min=1e-30))
    norms = "norms folded" if folded else f"norm {model.cfg.normalization_type} not folded"
    return f"{norms}, unembedding {'centred' if spread < 1e-5 else 'not centred'}"


def fingerprint(model: HookedTransformer) -> str:
    """A hash of the configuration and all weights: equal only for equal models."""
    known = _KNOWN.get()
    if known is not None and known[0] is model:
        return known[1]
    shape = {k: str(v) for k, v in sorted(vars(model.cfg).items()) if k != "device"}
    digest = hashlib.sha256(json.dumps(shape).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@contextmanager
def one_fingerprint(model: HookedTransformer) -> Iterator[None]:
    """Inside, the weights are hashed once: for work of many sweeps, which each note the hash.

    They are hashed again at the end.

    Raises:
        RuntimeError: at the end, if the weights are others than at the begin.
    """
    before = fingerprint(model)
    token = _KNOWN.set((model, before))
    try:
        yield
    finally:
        _KNOWN.reset(token)
    if fingerprint(model) != before:
        raise RuntimeError(
            f"{name(model)}: its weights or its configuration changed while it was studied, so "
            f"what was found is of no one model. Leave the model as it is, and run it again, in "
            f"another folder if it had one: what is in that one is of the changed model too."
        )


def is_hooked_transformer(module: nn.Module) -> bool:
    """True if the module is a whole TransformerLens model."""
    return isinstance(module, HookedTransformer)


def fired_points(model: HookedTransformer) -> set[str]:
    """The full names of the hook points that fire when one token is run."""
    fired: set[str] = set()
    handles = []
    lock = lock_of(model)
    with lock, interruptible(lock), gradients_off():
        before = set_running(fired)
        try:
            for name, point in model.hook_dict.items():
                hook = OwnHook(lambda *_, n=name: fired.add(n), fired)
                handles.append(point.register_forward_hook(hook))
            model(torch.zeros(1, 1, dtype=torch.long, device=model.W_E.device))
        finally:
            set_running(before)
            for handle in handles:
                handle.remove()
    return fired


def device(model: HookedTransformer) -> torch.device:
    """The device on which the model takes its tokens."""
    return model.W_E.device


def can_start_at_any_layer(model: HookedTransformer) -> bool:
    """True if a pass can start at any layer, because layers read only the residual stream."""
    return model.cfg.positional_embedding_type != "shortformer"


def can_start_at_later_position(model: HookedTransformer) -> bool:
    """True if a pass can start at a later position, with cached keys and values before it.

    That takes causal attention without a window, and inputs that are not split.
    """
    cfg = model.cfg
    split = cfg.use_split_qkv_input or cfg.use_attn_in
    return cfg.attention_dir == "causal" and not cfg.use_local_attn and not split


def has_norm_after_heads(model: HookedTransformer) -> bool:
    """True if a norm acts on the sum of what a layer's heads write: no head then writes alone."""
    after = bool(model.cfg.use_normalization_before_and_after)
    return after or model.cfg.original_architecture in POST_NORM_ARCHITECTURES


def as_it_is(model: HookedTransformer) -> Hashable:
    """A key for what was found out about a model: another one as soon as anything may differ.

    Its configuration; every module, by identity, with its mode, precision and replaced methods; and
    the methods of their classes. Not its weights: what is found out holds for any numbers.
    """
    modules = _modules(model)
    kinds = dict.fromkeys(map(type, modules))
    methods = {kind: _methods(kind) for kind in kinds}
    state = tuple(
        (
            weakref.ref(module),
            module.training,
            tuple(p.dtype for p in module._parameters.values() if p is not None),
            tuple(
                (name, _identity(vars(module)[name]))
                for name in vars(module).keys() & methods[type(module)].keys()
            ),
        )
        for module in modules
    )
    return (
        repr(sorted(vars(model.cfg).items(), key=str)),
        state,
        tuple((kind, tuple(found.items())) for kind, found in methods.items()),
    )


def _methods(kind: type) -> dict[str, object]:
    """The methods of a class of modules, by name, without those of torch's base class."""
    found: dict[str, object] = {}
    for base in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        for name, value in vars(base).items():
            if isinstance(value, FunctionType | property):
                found.setdefault(name, value)
    return found


def _identity(value: object) -> Hashable:
    """Equal only for the same function; it keeps nothing alive."""
    if isinstance(value, MethodType):
        return _identity(value.__self__), _identity(value.__func__)
    try:
        return weakref.ref(value)
    except TypeError:
        return id(value)


def random_part(model: HookedTransformer) -> str | None:
    """The name of a part that draws at random in every pass: dropout that is switched on."""
    if not any(_draws(module) for module in _modules(model)):
        return None
    return next(name for name, module in model.named_modules() if _draws(module))


def _draws(module: nn.Module) -> bool:
    return module.training and isinstance(module, _DropoutNd) and module.p > 0


def _modules(model: nn.Module) -> list[nn.Module]:
    """The model and all modules in it, in less time than `modules` takes."""
    found = [model]
    for module in found:  # it grows
        found.extend(inner for inner in module._modules.values() if inner is not None)
    return found


def layer_without_data(model: HookedTransformer) -> nn.Module:
    """A copy of the first layer on torch's meta device: shapes without data, and no hooks."""
    layer = model.blocks[0]
    bare = {id(p): nn.Parameter(p.to("meta"), requires_grad=False) for p in layer.parameters()}
    with lock_of(model):  # another thread's pass would change the hooks while they are copied
        copied = copy.deepcopy(layer, bare | {id(b): b.to("meta") for b in layer.buffers()})
    for module in copied.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return copied


def has_foreign_hooks(model: HookedTransformer) -> bool:
    """True if there are hooks that are not ours: they would see rows of several arms.

    On a module of the model, or on every module there is. Those of a context `hooked` count, if it
    is this thread's.
    """
    everywhere = (
        nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks
    )
    if everywhere:
        return True
    registers = (r for m in _modules(model) for r in (m._forward_hooks, m._forward_pre_hooks) if r)
    return any(acts_here(hook) for register in registers for hook in list(register.values()))
