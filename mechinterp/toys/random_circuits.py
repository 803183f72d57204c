"""Random models in which only a random circuit, known edge by edge, reaches the logits.

Each part of the circuit reads, by random weights, what a few earlier parts wrote, and writes to its
own block of the residual stream. All other parts are decoys that read every block and write where
nothing reads. At the end a random rotation turns the residual stream: then no weight or activation
is zero, and an edge outside the circuit carries nothing only because its terms cancel.

    random_circuit(seed=3).truth.edges
"""

import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from mechinterp.core.arguments import checks_arguments
from mechinterp.toys.blank import Config, attention_only, with_mlps, zeros
from mechinterp.toys.compiled import BOS
from mechinterp.toys.decoys import add_decoys
from mechinterp.toys.definition import Edge, Toy, Truth

WORDS: Final[tuple[str, ...]] = tuple("abcdefghijklm")
N_WORDS: Final = 8
# The number of random prompts on which the weights are scaled.
N_PROMPTS: Final = 64
# Sizes of the circuit: directions per block and dimensions per head; neurons per MLP.
WIDTH: Final = 4
N_NEURONS: Final = 12
# Sizes of the model: dimensions per head, neurons per MLP; and directions for the decoys.
D_HEAD: Final = 10
D_MLP: Final = 18
N_UNREAD: Final = 6
# Standard deviations of scores over keys, and of logits: attention is then neither even, nor so
# sharp that a key or query has no effect.
SPREAD: Final = 1.5
LOGITS: Final = 3.0


@checks_arguments
def random_circuit(
    seed: int,
    *,
    n_layers: int = 3,
    n_heads: int = 4,
    n_circuit_heads: int = 5,
    n_circuit_mlps: int = 2,
) -> Toy:
    """A model with a random circuit of this many heads and MLPs; if 0 MLPs, the model has none.

    Raises:
        ValueError: if the model has fewer heads or MLPs, or the circuit would have no head.
    """
    if not (0 < n_circuit_heads <= n_layers * n_heads and 0 <= n_circuit_mlps <= n_layers):
        raise ValueError(
            f"{n_layers} layers of {n_heads} heads hold no circuit of {n_circuit_heads} heads and "
            f"{n_circuit_mlps} MLPs: a circuit has at least one head, and at most one MLP a layer."
        )
    rng = random.Random(seed)
    parts = _draw_parts(rng, (n_layers, n_heads), (n_circuit_heads, n_circuit_mlps))
    reads = _draw_reads(rng, parts)
    writers = ["embed", "pos_embed", *(part.name for part in parts)]
    blocks = {name: slice(WIDTH * at, WIDTH * (at + 1)) for at, name in enumerate(writers)}
    sizes = {"n_layers": n_layers, "n_heads": n_heads, "d_head": D_HEAD, "n_ctx": 1 + N_WORDS}
    sizes |= {"d_vocab": 1 + len(WORDS), "d_model": WIDTH * len(writers) + N_UNREAD}
    config = with_mlps(**sizes, d_mlp=D_MLP) if n_circuit_mlps else attention_only(**sizes)
    weights = _fit_weights(config, parts, reads, blocks, seed)
    heads = tuple((part.layer, part.head) for part in parts if part.head is not None)
    neurons = tuple((p.layer, at) for p in parts if p.head is None for at in range(N_NEURONS))
    decoy_heads, decoy_neurons = add_decoys(
        weights,
        config,
        slice(config["d_model"] - N_UNREAD, config["d_model"]),
        heads=dict.fromkeys(heads, (WIDTH, WIDTH)),
        n_neurons=Counter(layer for layer, _ in neurons),
        seed=seed,
    )
    edges = sorted(Edge(writer, reader) for reader in reads for writer in reads[reader])
    truth = Truth(
        claim=(
            f"{len(parts)} random parts joined by {len(edges)} edges among decoys, drawn by seed "
            f"{seed}: it computes nothing that has a name. Exact: every edge changes logits, and "
            "no edge but these does."
        ),
        edges=tuple(edges),
        heads={"circuit": heads, "decoy": decoy_heads},
        neurons={"circuit": neurons, "decoy": decoy_neurons},
        constant=tuple(edge for edge in edges if edge.writer == "pos_embed"),
    )
    turned, places = _rotate(weights, seed), (WORDS,) * N_WORDS
    return Toy(f"random-{seed}", config, turned, (BOS, *WORDS), BOS, truth, places)


@dataclass(frozen=True)
class _Part:
    """A head, or the MLP of a layer."""

    layer: int
    head: int | None

    @property
    def name(self) -> str:
        return f"L{self.layer}.mlp" if self.head is None else f"L{self.layer}H{self.head}"

    @property
    def stage(self) -> int:
        """The order of computation: a part reads what parts of lower stages write."""
        return 2 * self.layer + (self.head is None)


def _draw_parts(
    rng: random.Random, sizes: tuple[int, int], numbers: tuple[int, int]
) -> list[_Part]:
    """Random heads and MLPs, `numbers` of each, of a model of `sizes` (layers, heads); in order."""
    (n_layers, n_heads), (n_circuit_heads, n_circuit_mlps) = sizes, numbers
    places = itertools.product(range(n_layers), range(n_heads))
    heads = [_Part(layer, head) for layer, head in rng.sample(list(places), n_circuit_heads)]
    mlps = [_Part(layer, None) for layer in rng.sample(range(n_layers), n_circuit_mlps)]
    return sorted([*heads, *mlps], key=lambda part: part.stage)


def _draw_reads(rng: random.Random, parts: Sequence[_Part]) -> dict[str, tuple[str, ...]]:
    """One or two writers for each reader, the second perhaps positions; every part is read."""
    reads: dict[str, tuple[str, ...]] = {}

    def draw(reader: str, writers: Sequence[str]) -> None:
        first = rng.choice(writers)
        others = [name for name in (*writers, "pos_embed") if name != first]
        reads[reader] = (first, *rng.sample(others, rng.randrange(2)))

    for part in parts:
        before = ["embed", *(other.name for other in parts if other.stage < part.stage)]
        for reader in (part.name,) if part.head is None else (f"{part.name}.{x}" for x in "qkv"):
            draw(reader, before)
    unread = {part.name for part in parts}.difference(*reads.values())
    more = rng.choice(["embed", *(part.name for part in parts)])
    reads["logits"] = tuple(sorted({*unread, more}))
    return reads


def _fit_weights(
    config: Config,
    parts: Sequence[_Part],
    reads: Mapping[str, tuple[str, ...]],
    blocks: Mapping[str, slice],
    seed: int,
) -> dict[str, Tensor]:
    """The weights of the circuit, without decoys."""
    fitting = _Fitting(config, reads, blocks, seed)
    for part in parts:
        fitting.add(part)
    fitting.add_logits()
    return fitting.weights


class _Fitting:
    """Weights made part by part, each scaled on what random prompts give as its input."""

    def __init__(
        self,
        config: Config,
        reads: Mapping[str, tuple[str, ...]],
        blocks: Mapping[str, slice],
        seed: int,
    ) -> None:
        self.weights = zeros(config)
        self._reads, self._blocks = reads, blocks
        self._generator = torch.Generator().manual_seed(seed)
        for name, block in (
            ("embed.W_E", blocks["embed"]),
            ("pos_embed.W_pos", blocks["pos_embed"]),
        ):
            self._draw(self.weights[name][:, block])
        words = torch.randint(1, 1 + len(WORDS), (N_PROMPTS, N_WORDS), generator=self._generator)
        tokens = torch.nn.functional.pad(words, (1, 0))  # <bos> is 0
        self._resid = self.weights["embed.W_E"][tokens] + self.weights["pos_embed.W_pos"]

    def add(self, part: _Part) -> None:
        """Draw and scale the weights of a part, and add its output to the residual stream."""
        out = self._add_mlp(part) if part.head is None else self._add_head(part.layer, part.head)
        self._resid[:, :, self._blocks[part.name]] = out

    def add_logits(self) -> None:
        """Draw and scale the unembedding."""
        W_U = self._reading(self.weights["unembed.W_U"], "logits")
        W_U *= LOGITS / (self._resid @ W_U).std()

    def _add_head(self, layer: int, head: int) -> Tensor:
        name, work = f"L{layer}H{head}", slice(0, WIDTH)
        at = {letter: self.weights[f"blocks.{layer}.attn.W_{letter}"][head] for letter in "QKVO"}
        for letter in "QKV":
            self._reading(at[letter][:, work], f"{name}.{letter.lower()}")
        q, k, v = (self._resid @ at[letter][:, work] for letter in "QKV")
        scores = q @ k.transpose(1, 2)
        scale = SPREAD / scores[:, -1].std(-1).mean()
        at["Q"][:, work] *= scale
        future = torch.ones(scores.shape[1:]).triu(1).bool()
        z = (scale * scores).masked_fill(future, -torch.inf).softmax(-1) @ v
        return self._written(z, at["O"][work, self._blocks[name]])

    def _add_mlp(self, part: _Part) -> Tensor:
        work = slice(0, N_NEURONS)
        W_in, b_in, W_out = (
            self.weights[f"blocks.{part.layer}.mlp.{name}"] for name in ("W_in", "b_in", "W_out")
        )
        self._reading(W_in[:, work], part.name)
        self._draw(b_in[work])
        post = (self._resid @ W_in[:, work] + b_in[work]).relu()
        return self._written(post, W_out[work, self._blocks[part.name]])

    def _reading(self, weight: Tensor, reader: str) -> Tensor:
        """Draw the rows of a matrix that read this reader's blocks."""
        for writer in self._reads[reader]:
            self._draw(weight[self._blocks[writer]])
        return weight

    def _written(self, inside: Tensor, weight: Tensor) -> Tensor:
        """Draw the matrix that writes, so scaled that its output varies over prompts by about 1."""
        self._draw(weight)
        weight /= (inside @ weight).std(0).mean()
        return inside @ weight

    def _draw(self, weight: Tensor) -> None:
        weight.copy_(torch.randn(weight.shape, generator=self._generator))


def _rotate(weights: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The same model with its residual stream turned by a random rotation."""
    d_model = weights["unembed.W_U"].shape[0]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn((d_model, d_model), generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(drawn).Q
    turned = {}
    for name, weight in weights.items():
        double, kind = weight.double(), name.rpartition(".")[2]
        if kind in ("W_Q", "W_K", "W_V", "W_in", "W_U"):
            double = rotation.T @ double
        elif kind in ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out"):
            double = double @ rotation
        turned[name] = double.float()
    return turned
