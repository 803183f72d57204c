"""SmolLM2's upper layers with low-rank factors on their matrices, run quickly for training.

What the layers below the first trained one give is computed once per prompt, and what every
prompt has before its request (the system message) once per batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

MATRICES = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")


@dataclass(frozen=True)
class Packed:
    """Texts in one row, without padding; each sees the prefix, if there is one, and itself.

    n_prefix: how many positions the prefix has. lengths: of the texts behind it.
    """

    x: Float[Tensor, "pos d_model"]
    n_prefix: int
    lengths: tuple[int, ...]

    @classmethod
    def of(
        cls, prefix: Float[Tensor, "src d_model"], texts: Sequence[Float[Tensor, "_ d_model"]]
    ) -> "Packed":
        """A prefix, which may have no position, and the texts behind it."""
        x = torch.cat([prefix, *texts])
        return cls(x, len(prefix), tuple(len(text) for text in texts))

    def texts(self) -> list[Float[Tensor, "_ d_model"]]:
        """What there is of each text."""
        return list(self.x[self.n_prefix :].split(list(self.lengths)))

    def positions(self) -> Int[Tensor, " pos"]:
        """The position of each token in its own text, the prefix counted with it."""
        n = self.n_prefix
        return torch.cat([torch.arange(n), *(torch.arange(n, n + m) for m in self.lengths)])


class Attention:
    """Who sees whom: the prefix itself, each text the prefix and itself. Padded only here."""

    def __init__(self, packed: Packed) -> None:
        n, lengths = packed.n_prefix, torch.tensor(packed.lengths, dtype=torch.long)
        width = int(lengths.max()) if len(lengths) else 0
        column = torch.arange(width)
        begins = n + lengths.cumsum(0) - lengths
        self.n_prefix = n
        self.is_text = column < lengths[:, None]
        self.at = torch.where(self.is_text, begins[:, None] + column, n)
        self.visible = torch.ones(width, n + width, dtype=torch.bool).tril(n)

    def __call__(
        self,
        q: Float[Tensor, "pos head d_head"],
        k: Float[Tensor, "pos head d_head"],
        v: Float[Tensor, "pos head d_head"],
    ) -> Float[Tensor, "pos head d_head"]:
        """What the heads give at each position."""
        n, n_texts = self.n_prefix, len(self.at)
        first = [y[:n].transpose(0, 1)[None] for y in (q, k, v)]
        found = []
        if n:
            z = nn.functional.scaled_dot_product_attention(*first, is_causal=True)
            found.append(z[0].transpose(0, 1))
        if n_texts:
            own = [y[self.at].transpose(1, 2) for y in (q, k, v)]
            keys, values = (
                torch.cat([before.expand(n_texts, -1, -1, -1), y], 2)
                for before, y in zip(first[1:], own[1:], strict=True)
            )
            z = nn.functional.scaled_dot_product_attention(
                own[0], keys, values, attn_mask=self.visible
            )
            found.append(z.transpose(1, 2)[self.is_text])
        return torch.cat(found)


class Factors(nn.Module):
    """down [layer, rank, in] and up [layer, out, rank] of each matrix; up begins with zeros."""

    def __init__(self, model: nn.Module, layers: Sequence[int], rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layers, self.seed, self.on = tuple(layers), seed, True
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

    def load(self, file: Path) -> None:
        """Begin with the factors of a file."""
        held = load_file(file)
        for kind, parameters in (("down", self.down), ("up", self.up)):
            for name, parameter in parameters.items():
                parameter.data = held[f"{name}.{kind}"].float()

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


def run_layers(model: nn.Module, factors: Factors, packed: Packed, layers: Sequence[int]) -> Packed:
    """The residual stream after these layers."""
    attend, x = Attention(packed), packed.x
    angles = model.model.rotary_emb(x[None], packed.positions()[None])
    for layer in layers:
        block = model.model.layers[layer]
        normed = block.input_layernorm(x)
        q = factors.apply_to(model, layer, "self_attn.q_proj", normed)
        v = factors.apply_to(model, layer, "self_attn.v_proj", normed)
        k = times(block.self_attn.k_proj, normed)
        heads = (-1, block.self_attn.head_dim)
        q, k, v = (y.unflatten(-1, heads).transpose(0, 1)[None] for y in (q, k, v))
        q, k = apply_rotary_pos_emb(q, k, *angles)
        k, v = (y.repeat_interleave(q.shape[1] // k.shape[1], 1) for y in (k, v))
        z = attend(*(y[0].transpose(0, 1) for y in (q, k, v))).flatten(1)
        x = x + factors.apply_to(model, layer, "self_attn.o_proj", z)
        normed = block.post_attention_layernorm(x)
        gate = block.mlp.act_fn(times(block.mlp.gate_proj, normed))
        inner = gate * times(block.mlp.up_proj, normed)
        x = x + factors.apply_to(model, layer, "mlp.down_proj", inner)
    return Packed(x, packed.n_prefix, packed.lengths)


def log_probabilities(
    model: nn.Module, x: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row vocab"]:
    """Log-probabilities of the next token, in nats."""
    return model.lm_head(model.model.norm(x)).log_softmax(-1)


def ids_of(tokenizer: object, text: str) -> Int[Tensor, " pos"]:
    """The token ids of a text."""
    return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[operator]
