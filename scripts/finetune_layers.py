"""SmolLM2's upper layers with low-rank factors on their matrices, run quickly for training.

What the layers below the first trained one give is computed once per prompt, and what every
prompt has before its request (the system message) once per batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

MATRICES = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")


@dataclass(frozen=True)
class Batch:
    """Rows that follow one prefix: what the trained layers get, padded on the right."""

    prefix: Float[Tensor, "1 src d_model"] | None
    rows: Float[Tensor, "prompt pos d_model"]


class Factors(nn.Module):
    """down [layer, rank, in] and up [layer, out, rank] of each matrix; up begins with zeros."""

    def __init__(self, model: nn.Module, layers: Sequence[int], rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layers, self.on = tuple(layers), True
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name in MATRICES:
            n_out, n_in = matrix(model, layers[0], name).weight.shape
            drawn = torch.randn(len(layers), rank, n_in, generator=generator) / n_in**0.5
            self.down[short(name)] = nn.Parameter(drawn)
            self.up[short(name)] = nn.Parameter(torch.zeros(len(layers), n_out, rank))

    def apply_to(self, model: nn.Module, layer: int, name: str, x: Tensor) -> Tensor:
        """What the matrix gives with its factors added."""
        y = times(matrix(model, layer, name), x)
        if not self.on or layer not in self.layers or short(name) not in self.down:
            return y
        at = self.layers.index(layer)
        return y + (x @ self.down[short(name)][at].T) @ self.up[short(name)][at].T

    def stored(self) -> dict[str, Tensor]:
        """The factors in half precision, as they are shipped."""
        kinds = {"down": self.down, "up": self.up}
        halves = {
            f"{name}.{kind}": value.detach().half()
            for kind, held in kinds.items()
            for name, value in held.items()
        }
        return halves | {"layers": torch.tensor(self.layers)}

    def round_to_stored(self) -> None:
        """Replace each factor by what is stored of it."""
        for parameter in self.parameters():
            parameter.data = parameter.data.half().float()


def matrix(model: nn.Module, layer: int, name: str) -> nn.Linear:
    """A matrix of a layer of the Hugging Face model."""
    found = model.model.layers[layer].get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found


def times(matrix: nn.Linear, x: Float[Tensor, "... n_in"]) -> Float[Tensor, "... n_out"]:
    """The product, in the precision of the matrix; given back in that of x."""
    return nn.functional.linear(x.to(matrix.weight.dtype), matrix.weight).to(x.dtype)


def short(name: str) -> str:
    """ "self_attn.q_proj" is stored as "q_proj"."""
    return name.rpartition(".")[2]


def run_layers(model: nn.Module, factors: Factors, batch: Batch, layers: Sequence[int]) -> Batch:
    """The residual stream after these layers."""
    before = 0 if batch.prefix is None else batch.prefix.shape[1]
    n_pos = batch.rows.shape[1]
    angles = model.model.rotary_emb(batch.rows, torch.arange(before + n_pos)[None])
    visible = torch.ones(n_pos, before + n_pos, dtype=torch.bool).tril(before)
    prefix, rows = batch.prefix, batch.rows
    for layer in layers:
        earlier = None
        if prefix is not None:
            seen = torch.ones(before, before, dtype=torch.bool).tril()
            at = tuple(x[:, :before] for x in angles)
            prefix, earlier = _run_layer(model, factors, layer, prefix, at, seen, None)
        at = tuple(x[:, before:] for x in angles)
        rows, _ = _run_layer(model, factors, layer, rows, at, visible, earlier)
    return Batch(prefix, rows)


def _run_layer(model, factors, layer, x, angles, visible, earlier):  # noqa: PLR0913
    block = model.model.layers[layer]
    n_rows, n_pos, _ = x.shape
    normed = block.input_layernorm(x)
    q, v = (factors.apply_to(model, layer, f"self_attn.{name}_proj", normed) for name in ("q", "v"))
    k = times(block.self_attn.k_proj, normed)
    q, k, v = (
        y.view(n_rows, n_pos, -1, block.self_attn.head_dim).transpose(1, 2) for y in (q, k, v)
    )
    q, k = apply_rotary_pos_emb(q, k, *angles)
    own = (k, v)
    if earlier is not None:
        k, v = (
            torch.cat([old.expand(n_rows, -1, -1, -1), new], 2)
            for old, new in zip(earlier, own, strict=True)
        )
    groups = q.shape[1] // k.shape[1]
    k, v = (y.repeat_interleave(groups, 1) for y in (k, v))
    z = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    z = z.transpose(1, 2).reshape(n_rows, n_pos, -1)
    x = x + factors.apply_to(model, layer, "self_attn.o_proj", z)
    normed = block.post_attention_layernorm(x)
    gate = block.mlp.act_fn(times(block.mlp.gate_proj, normed))
    inner = gate * times(block.mlp.up_proj, normed)
    return x + factors.apply_to(model, layer, "mlp.down_proj", inner), own


def log_probabilities(
    model: nn.Module, x: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row vocab"]:
    """Log-probabilities of the next token, in nats."""
    return model.lm_head(model.model.norm(x)).log_softmax(-1)


def pad(rows: Sequence[Float[Tensor, "_ d_model"]]) -> Float[Tensor, "prompt pos d_model"]:
    """Rows of different lengths as one tensor, zeros behind."""
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def ids_of(tokenizer: object, text: str) -> Int[Tensor, " pos"]:
    """The token ids of a text."""
    return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[operator]
