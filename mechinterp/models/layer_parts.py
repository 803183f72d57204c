"""A layer in parts: what each head and the MLP read, and what they write.

The library's own pass gives all heads of a layer one input and adds up what they write. Here each
can be given an input of its own, and what one writes is had by itself, which is what edges between
them are made of.

>>> import torch
>>> from mechinterp import load_model
>>> from mechinterp.models.layer_parts import Layer, check_parts
>>> model = load_model("toy:trigger")
>>> check_parts(model)
>>> layer, resid = Layer(model, 1), torch.randn(1, 9, 57)
>>> found = layer.run(resid)
>>> torch.allclose(found.resid, model.blocks[1](resid), atol=1e-5)
True
>>> layer.by_head(found.z).shape
torch.Size([3, 1, 9, 57])

`check_parts` compares the parts with the library's own pass, once for a model: an architecture that
does something else between them is refused, and not computed wrongly.
"""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedTransformer

from mechinterp import models
from mechinterp.core.sites import HookError

_REFUSED = {
    "use_attention_sinks": "attention sinks",
    "load_in_4bit": "4-bit weights",
    "use_logn_attn": "log-n attention scaling",
    "use_dynamic_ntk_rope": "a rotary base that moves with the length",
    "clip_qkv": "clipped queries and keys",
}


@dataclass(frozen=True, eq=False)
class Passed:
    """What a layer computed on the way: of keys and values those of its own positions alone."""

    q: Float[Tensor, "row pos head d_head"]
    k: Float[Tensor, "row src head d_head"]
    v: Float[Tensor, "row src head d_head"]
    z: Float[Tensor, "row pos head d_head"]
    mlp_in: Float[Tensor, "row pos d_model"] | None
    mlp_out: Float[Tensor, "row pos d_model"] | None
    resid: Float[Tensor, "row pos d_model"]
    """The residual stream after the layer."""


KeysValues = tuple[Float[Tensor, "row src head d_head"], Float[Tensor, "row src head d_head"]]


def joined(
    before: tuple[Tensor, Tensor] | None,
    k: Float[Tensor, "row pos head d_head"],
    v: Float[Tensor, "row pos head d_head"],
) -> KeysValues:
    """Keys and values, after those of the positions before them, if there are any."""
    if before is None:
        return k, v
    return torch.cat([before[0], k], 1), torch.cat([before[1], v], 1)


class Layer:
    """One layer of a model. Keys and values have a head for each query head throughout."""

    def __init__(self, model: HookedTransformer, layer: int) -> None:
        self._block, self._cfg = model.blocks[layer], model.cfg
        self.has_mlp = not model.cfg.attn_only

    def project(
        self, kind: str, inputs: Float[Tensor, "row pos *reader d_model"], first: int = 0
    ) -> Float[Tensor, "row pos head d_head"]:
        """The queries, keys or values ("q", "k", "v") of residual streams from position `first` on.

        Rotated where the model does. `inputs`: one for all heads, or for each its own (of keys and
        values, for each head, or each key-value head).
        """
        attn = self._block.attn
        normed = self._block.ln1(inputs)
        n_readers = 0 if inputs.ndim == 3 else inputs.shape[2]
        weight, bias = self._weights(kind, n_readers)
        if n_readers:
            made = torch.einsum("rphd,hde->rphe", normed, weight) + bias
        else:
            flat = weight.transpose(1, 2).reshape(-1, weight.shape[1])
            made = nn.functional.linear(normed, flat, bias.reshape(-1))
            made = made.reshape(*made.shape[:2], *bias.shape)
        if kind != "v":
            if self._cfg.use_qk_norm:
                made = (attn.q_norm if kind == "q" else attn.k_norm)(made)
            if self._cfg.positional_embedding_type == "rotary":
                made = attn.apply_rotary(made, first)
        heads: Tensor = made.repeat_interleave(self._cfg.n_heads // made.shape[2], 2)
        return heads

    def pattern(self, dots: Float[Tensor, "*row pos src"]) -> Float[Tensor, "*row pos src"]:
        """The attention of products of queries and keys; the queries are the last of `src`."""
        attn, scores = self._block.attn, self.scores(dots)
        if self._cfg.attention_dir == "causal":
            n, n_src = scores.shape[-2:]
            shown = attn._make_causal_mask(n, n_src, n_src - n, scores.device)[0, 0]
            scores = scores.masked_fill(~shown, -torch.inf)
        made: Tensor = scores.softmax(-1)
        return made

    def scores(self, dots: Float[Tensor, "*row pos src"]) -> Float[Tensor, "*row pos src"]:
        """The products as they go into the softmax, before the mask: scaled, and capped."""
        cap, scores = self._cfg.attn_scores_soft_cap, dots / self._block.attn.attn_scale
        made: Tensor = cap * torch.tanh(scores / cap) if cap > 0 else scores
        return made

    def attend(
        self,
        q: Float[Tensor, "row pos head d_head"],
        k: Float[Tensor, "row src head d_head"],
        v: Float[Tensor, "row src head d_head"],
    ) -> Float[Tensor, "row pos head d_head"]:
        """What each head takes from the values: `z`."""
        pattern = self.pattern(q.transpose(1, 2) @ k.permute(0, 2, 3, 1))
        return (pattern @ v.transpose(1, 2)).transpose(1, 2)

    def run(
        self,
        resid: Float[Tensor, "row pos d_model"],
        before: KeysValues | None = None,
        skip: int = 0,
    ) -> Passed:
        """The whole layer, with the keys and values of the positions before those given.

        `skip`: so many positions give keys and values alone, and are not in what comes out.
        """
        first = 0 if before is None else before[0].shape[1]
        asking = resid[:, skip:]
        q = self.project("q", asking, first + skip)
        k, v = (self.project(kind, resid, first) for kind in "kv")
        z = self.attend(q, *joined(before, k, v))
        written = self.attn_out(z)
        if not self.has_mlp:
            return Passed(q, k, v, z, None, None, asking + written)
        read = asking if self._cfg.parallel_attn_mlp else asking + written
        mlp_in = read.view_as(read)  # of its own, for the gradient of what the MLP alone reads
        out = self.mlp(mlp_in)
        return Passed(q, k, v, z, mlp_in, out, asking + written + out)

    def by_head(
        self, z: Float[Tensor, "row pos head d_head"]
    ) -> Float[Tensor, "head row pos d_model"]:
        """What each head writes: its `z` times its part of W_O."""
        rows = z.permute(2, 0, 1, 3).flatten(1, 2)
        written = torch.bmm(rows, self.output_weights)
        return written.reshape(len(written), *z.shape[:2], -1)

    def attn_out(self, z: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "row pos d_model"]:
        """What attention writes: all heads together, with the bias that belongs to none."""
        return nn.functional.linear(
            z.flatten(2), self.output_weights.flatten(0, 1).T, self.output_bias
        )

    @property
    def output_weights(self) -> Float[Tensor, "head d_head d_model"]:
        """W_O."""
        weights: Tensor = self._block.attn.W_O.detach()
        return weights

    @property
    def output_bias(self) -> Float[Tensor, " d_model"]:
        """b_O."""
        bias: Tensor = self._block.attn.b_O.detach()
        return bias

    @property
    def value_weights(self) -> Float[Tensor, "head d_model d_head"]:
        """W_V, for each query head that of the values it reads."""
        weights: Tensor = self._weights("v", self._cfg.n_heads)[0]
        return weights

    @property
    def value_bias(self) -> Float[Tensor, "head d_head"]:
        """b_V, likewise."""
        bias: Tensor = self._weights("v", self._cfg.n_heads)[1]
        return bias

    def mlp(self, resid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """What the MLP writes, of the residual stream that it reads."""
        written: Tensor = self._block.mlp(self._block.ln2(resid))
        return written

    def _weights(self, kind: str, n_readers: int) -> tuple[Tensor, Tensor]:
        attn = self._block.attn
        shared = kind != "q" and hasattr(attn, "_W_K")  # stored once for the queries that share it
        if shared and n_readers in (0, self._cfg.n_key_value_heads):
            return getattr(attn, f"_W_{kind.upper()}").detach(), getattr(
                attn, f"_b_{kind.upper()}"
            ).detach()
        return getattr(attn, f"W_{kind.upper()}").detach(), getattr(
            attn, f"b_{kind.upper()}"
        ).detach()


_TESTED: WeakKeyDictionary[Any, dict[str, float]] = WeakKeyDictionary()


def check_parts(model: HookedTransformer) -> None:
    """Nothing, if the parts give what the model gives; tried once for a model and its switches.

    Raises:
        HookError: if they do not, or somebody else's hooks are on the model, which would see rows
            that are none of theirs.
    """
    cfg = model.cfg
    if models.has_foreign_hooks(model):
        raise HookError(
            "somebody else's hooks are on the model: circuits run each head by itself, where a "
            "hook would see something else. Remove them: model.reset_hooks()."
        )
    why = next((what for name, what in _REFUSED.items() if getattr(cfg, name, None)), None)
    if cfg.positional_embedding_type not in ("standard", "rotary"):
        why = f"{cfg.positional_embedding_type} positions"
    if models.heads_pass_a_norm(model):
        why = "a norm on what all heads of a layer write together"
    if why:
        raise HookError(
            f"circuits cannot take apart a model with {why}: none of them would be exact."
        )
    tested, switches = _TESTED.setdefault(model, {}), models.switches(model)
    if switches not in tested:
        tested[switches] = _distance(model)
    if not tested[switches] <= 100 * torch.finfo(cfg.dtype).eps:
        raise HookError(
            f"circuits cannot take this model apart: its parts, put together, are off its own pass "
            f"by {tested[switches]:.1e}. Its attention does something between that is not known."
        )


def _distance(model: HookedTransformer) -> float:
    """How far the parts, put together, are from the library's own pass, relative to its size."""
    width = min(5, model.cfg.n_ctx)
    ids = torch.linspace(0, model.cfg.d_vocab - 1, width, device=models.device(model)).long()[None]
    with torch.no_grad():
        resid, _ = models.embedded(model, ids)
        whole = resid
        for number in range(model.cfg.n_layers):
            whole = models.block(model, number, whole)
            resid = Layer(model, number).run(resid).resid
        return float((resid - whole).abs().max() / whole.abs().max().clamp(min=1e-30))
