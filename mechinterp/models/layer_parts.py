"""A layer in parts: what each head and the MLP read, and what each writes.

The library's own pass gives all heads of a layer the same input and sums their outputs. Here each
head can have its own input, and its output is available by itself: edges between parts need both.

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

`check_parts` compares the parts with the library's own pass, once per model: an architecture that
does anything else in between is refused.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedTransformer

from mechinterp import models
from mechinterp.core.modes import gradients_off
from mechinterp.core.sites import HookError

_REFUSED = {
    "use_attention_sinks": "attention sinks",
    "load_in_4bit": "4-bit weights",
    "use_logn_attn": "log-n attention scaling",
    "use_dynamic_ntk_rope": "a rotary base that moves with the length",
    "clip_qkv": "clipped queries and keys",
}


@dataclass(frozen=True, eq=False)
class LayerPass:
    """What a layer computed; keys and values only of its own positions, not of earlier ones."""

    q: Float[Tensor, "row pos head d_head"]
    k: Float[Tensor, "row src head d_head"]
    v: Float[Tensor, "row src head d_head"]
    z: Float[Tensor, "row pos head d_head"]
    mlp_in: Float[Tensor, "row pos d_model"] | None
    mlp_out: Float[Tensor, "row pos d_model"] | None
    resid: Float[Tensor, "row pos d_model"]
    """The residual stream after the layer."""


Norm = Callable[[Tensor], Tensor]

KeysValues = tuple[Float[Tensor, "row src head d_head"], Float[Tensor, "row src head d_head"]]


def append_keys_values(
    before: tuple[Tensor, Tensor] | None,
    k: Float[Tensor, "row pos head d_head"],
    v: Float[Tensor, "row pos head d_head"],
) -> KeysValues:
    """Keys and values, preceded by those of earlier positions if there are any."""
    if before is None:
        return k, v
    return torch.cat([before[0], k], 1), torch.cat([before[1], v], 1)


class Layer:
    """One layer of a model. Keys and values are repeated, so that each query head has its own.

    `ln1` and `ln2`: its norms, as functions; a subclass may replace them.
    """

    def __init__(self, model: HookedTransformer, layer: int) -> None:
        block = self._block = model.blocks[layer]
        self._cfg, self._number = model.cfg, layer
        self.has_mlp = not model.cfg.attn_only
        self.ln1: Norm = block.ln1
        self.ln2: Norm = block.ln2 if self.has_mlp else nn.Identity()

    def project(
        self, kind: str, inputs: Float[Tensor, "row pos *reader d_model"], first: int = 0
    ) -> Float[Tensor, "row pos head d_head"]:
        """The queries, keys or values ("q", "k", "v") of residual streams from position `first` on.

        Rotated if the model has rotary positions. `inputs`: one for all heads, or one for each head
        (for keys and values also one for each key-value head).
        """
        attn = self._block.attn
        normed = self.ln1(inputs)
        n_readers = 0 if inputs.ndim == 3 else inputs.shape[2]
        weight, bias = self._weights(kind, n_readers)
        if n_readers:
            # [row, pos, head, d_model], [head, d_model, d_head] -> [row, pos, head, d_head]
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
        """Attention from dot products of queries and keys; the queries are the last of `src`."""
        attn, scores = self._block.attn, self.scores(dots)
        if self._cfg.attention_dir == "causal":
            n, n_src = scores.shape[-2:]
            shown = attn._make_causal_mask(n, n_src, n_src - n, scores.device)[0, 0]
            scores = scores.masked_fill(~shown, -torch.inf)
        made: Tensor = scores.softmax(-1)
        return made

    def scores(self, dots: Float[Tensor, "*row pos src"]) -> Float[Tensor, "*row pos src"]:
        """The dot products scaled, and capped if the model caps them; before mask and softmax."""
        cap, scores = self._cfg.attn_scores_soft_cap, dots / self._block.attn.attn_scale
        made: Tensor = cap * torch.tanh(scores / cap) if cap > 0 else scores
        return made

    def attend(
        self,
        q: Float[Tensor, "row pos head d_head"],
        k: Float[Tensor, "row src head d_head"],
        v: Float[Tensor, "row src head d_head"],
    ) -> Float[Tensor, "row pos head d_head"]:
        """`z`: what each head takes from the values."""
        # [row, head, pos, d_head] @ [row, head, d_head, src] -> [row, head, pos, src]
        pattern = self.pattern(q.transpose(1, 2) @ k.permute(0, 2, 3, 1))
        return (pattern @ v.transpose(1, 2)).transpose(1, 2)

    def run(
        self,
        resid: Float[Tensor, "row pos d_model"],
        before: KeysValues | None = None,
        skip: int = 0,
    ) -> LayerPass:
        """The whole layer. `before`: the keys and values of earlier positions.

        `skip`: the first `skip` positions only give keys and values, and are not in the result.
        """
        first = 0 if before is None else before[0].shape[1]
        asking = resid[:, skip:]
        q = self.project("q", asking, first + skip)
        k, v = (self.project(kind, resid, first) for kind in "kv")
        z = self.attend(q, *append_keys_values(before, k, v))
        written = self.attn_out(z)
        if not self.has_mlp:
            return LayerPass(q, k, v, z, None, None, asking + written)
        read = asking if self._cfg.parallel_attn_mlp else asking + written
        mlp_in = read.view_as(read)  # a node of its own: the gradient of what only the MLP reads
        out = self.mlp(mlp_in)
        return LayerPass(q, k, v, z, mlp_in, out, asking + written + out)

    def by_head(
        self, z: Float[Tensor, "row pos head d_head"]
    ) -> Float[Tensor, "head row pos d_model"]:
        """What each head writes: its `z` times its slice of W_O."""
        rows = z.permute(2, 0, 1, 3).flatten(1, 2)
        written = torch.bmm(rows, self.output_weights)
        return written.reshape(len(written), *z.shape[:2], -1)

    def attn_out(self, z: Float[Tensor, "row pos head d_head"]) -> Float[Tensor, "row pos d_model"]:
        """What attention writes: the sum over heads, and b_O, which belongs to none of them."""
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
        """W_V; query heads that share values have the same."""
        weights: Tensor = self._weights("v", self._cfg.n_heads)[0]
        return weights

    @property
    def value_bias(self) -> Float[Tensor, "head d_head"]:
        """b_V; query heads that share values have the same."""
        bias: Tensor = self._weights("v", self._cfg.n_heads)[1]
        return bias

    def mlp(self, resid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """What the MLP writes, from the residual stream that it reads."""
        written: Tensor = self._block.mlp(self.ln2(resid))
        return written

    def activation(self, inputs: Tensor) -> Tensor:
        """The MLP's activation function."""
        made: Tensor = self._block.mlp.act_fn(inputs)
        return made

    def neurons(
        self,
        resid: Float[Tensor, "row pos d_model"],
        product: Callable[[Tensor, Tensor], Tensor] = torch.mul,
    ) -> Float[Tensor, "row pos neuron"]:
        """The neurons after `activation`; in a gated MLP the `product` with the gate.

        Raises:
            HookError: if they do not give what the MLP writes, because it is of an unknown kind.
        """
        mlp, normed, linear = self._block.mlp, self.ln2(resid), nn.functional.linear
        if hasattr(mlp, "W_gate"):
            gate = self.activation(linear(normed, mlp.W_gate.T))
            found: Tensor = product(gate, linear(normed, mlp.W_in.T)) + mlp.b_in
        elif hasattr(mlp, "W_in"):
            found = self.activation(linear(normed, mlp.W_in.T, mlp.b_in))
        else:
            kind = type(mlp).__name__
            raise HookError(f"the MLP of layer {self._number} is a {kind}, with no neurons.")
        with gradients_off():
            wrote = mlp(normed)
            missed = (self.mlp_out(found) - wrote).abs().max()
            largest = wrote.abs().max().clamp(min=1e-30)
            if not missed <= 100 * torch.finfo(wrote.dtype).eps * largest:
                raise HookError(
                    f"the neurons of layer {self._number} do not give what its MLP writes: it is "
                    f"off by {missed:.1e}. Its MLP does something that is not known."
                )
        return found

    def mlp_out(self, neurons: Float[Tensor, "row pos neuron"]) -> Float[Tensor, "row pos d_model"]:
        """What the MLP writes, from its neurons."""
        return nn.functional.linear(neurons, self._block.mlp.W_out.T, self._block.mlp.b_out)

    def _weights(self, kind: str, n_readers: int) -> tuple[Tensor, Tensor]:
        """Weight and bias; `n_readers`: how many inputs they are applied to, 0 if all share one."""
        attn, letter = self._block.attn, kind.upper()
        grouped = kind != "q" and hasattr(attn, "_W_K")  # stored once for heads that share it
        stored = "_" if grouped and n_readers in (0, self._cfg.n_key_value_heads) else ""
        weight, bias = (getattr(attn, f"{stored}{name}_{letter}").detach() for name in "Wb")
        return weight, bias


_TESTED: WeakKeyDictionary[nn.Module, dict[Hashable, float]] = WeakKeyDictionary()


def check_parts(model: HookedTransformer) -> None:
    """Check that the parts put together give the model's own pass; once for a model as it is.

    Raises:
        HookError: if they do not, or if the model has hooks that are not ours: they would see
            other rows than their own.
    """
    cfg = model.cfg
    if models.has_foreign_hooks(model):
        raise HookError(
            "somebody else's hooks are on the model: circuits run each head by itself, and a hook "
            "would see other values than in a full pass. Remove them: model.reset_hooks()."
        )
    why = next((what for name, what in _REFUSED.items() if getattr(cfg, name, None)), None)
    if cfg.positional_embedding_type not in ("standard", "rotary"):
        why = f"{cfg.positional_embedding_type} positions"
    if models.has_norm_after_heads(model):
        why = "a norm on the sum of what a layer's heads write"
    if why:
        raise HookError(f"circuits cannot take apart a model with {why}: no edge would be exact.")
    tested, now = _TESTED.setdefault(model, {}), models.as_it_is(model)
    if now not in tested:
        tested[now] = _distance(model)
    if not tested[now] <= 100 * torch.finfo(cfg.dtype).eps:
        raise HookError(
            f"circuits cannot take this model apart: its parts, put together, differ from its own "
            f"pass by {tested[now]:.1e}. Its layers do something that the parts leave out."
        )


def _distance(model: HookedTransformer) -> float:
    """The largest difference between the parts and the library's own pass, relative to its size."""
    width = min(5, model.cfg.n_ctx)
    ids = torch.linspace(0, model.cfg.d_vocab - 1, width, device=models.device(model)).long()[None]
    with gradients_off():
        resid, _ = models.embed(model, ids)
        whole = resid
        for number in range(model.cfg.n_layers):
            whole = models.run_block(model, number, whole)
            resid = Layer(model, number).run(resid).resid
        return float((resid - whole).abs().max() / whole.abs().max().clamp(min=1e-30))
