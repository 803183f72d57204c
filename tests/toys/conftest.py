"""A slow, obvious forward pass over a toy's weights, in which one edge can carry something else."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pytest
import torch
from torch import Tensor

from mechinterp.toys import Edge, Toy


class Reference:
    """A toy without norms, run writer by writer in double precision.

    What a reader reads is the sum over all earlier writers, and the biases, that no writer owns.
    """

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.n_layers, self.n_heads = toy.config["n_layers"], toy.config["n_heads"]
        self._weights = {name: weight.double() for name, weight in toy.weights.items()}

    def tokens(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        ids = {word: at for at, word in enumerate(self.toy.vocabulary)}
        return torch.tensor([[ids[word] for word in ("<bos>", *words)] for words in prompts])

    def edges(self) -> Iterator[Edge]:
        """Every writer with every reader after it."""
        writers = ["embed", "pos_embed"]
        for layer in range(self.n_layers):
            heads = [f"L{layer}H{head}" for head in range(self.n_heads)]
            readers = [f"{head}.{letter}" for head in heads for letter in "qkv"]
            yield from itertools.starmap(Edge, itertools.product(writers, readers))
            writers += heads
            if not self.toy.config["attn_only"]:
                yield from (Edge(writer, f"L{layer}.mlp") for writer in writers)
                writers.append(f"L{layer}.mlp")
        yield from (Edge(writer, "logits") for writer in writers)

    def run(
        self, tokens: Tensor, instead: Mapping[Edge, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and what each writer wrote; `instead`: what edges carry in place of that."""
        weights, instead = self._weights, instead or {}
        positions = weights["pos_embed.W_pos"][: tokens.shape[1]].expand(*tokens.shape, -1)
        written = {"embed": weights["embed.W_E"][tokens], "pos_embed": positions}
        biases = torch.zeros_like(positions)

        def read(reader: str) -> Tensor:
            parts = [instead.get(Edge(writer, reader), part) for writer, part in written.items()]
            return sum(parts, biases)

        for layer in range(self.n_layers):
            heads = {}
            for head in range(self.n_heads):
                name = f"L{layer}H{head}"
                heads[name] = self._head(layer, head, *(read(f"{name}.{x}") for x in "qkv"))
            written |= heads
            biases = biases + weights[f"blocks.{layer}.attn.b_O"]
            if not self.toy.config["attn_only"]:
                mlp = {x: weights[f"blocks.{layer}.mlp.{x}"] for x in ("W_in", "b_in", "W_out")}
                post = (read(f"L{layer}.mlp") @ mlp["W_in"] + mlp["b_in"]).relu()
                written[f"L{layer}.mlp"] = (
                    post @ mlp["W_out"] + weights[f"blocks.{layer}.mlp.b_out"]
                )
        return read("logits") @ weights["unembed.W_U"] + weights["unembed.b_U"], written

    def _head(self, layer: int, head: int, *read: Tensor) -> Tensor:
        attn = f"blocks.{layer}.attn"
        q, k, v = (
            x @ self._weights[f"{attn}.W_{name}"][head] + self._weights[f"{attn}.b_{name}"][head]
            for name, x in zip("QKV", read, strict=True)
        )
        scores = q @ k.transpose(1, 2)
        if self.toy.config.get("attention_dir", "causal") == "causal":
            future = torch.ones(scores.shape[1:]).triu(1).bool()
            scores = scores.masked_fill(future, -torch.inf)
        return scores.softmax(-1) @ v @ self._weights[f"{attn}.W_O"][head]

    def seen(self, edge: Edge, part: Tensor) -> Tensor:
        """What of a writer's output the weights of the reader let through."""
        reader, _, letter = edge.reader.partition(".")
        layer, _, head = reader[1:].partition("H")
        if edge.reader == "logits":
            return part @ self._weights["unembed.W_U"]
        if letter == "mlp":
            return part @ self._weights[f"blocks.{layer}.mlp.W_in"]
        return part @ self._weights[f"blocks.{layer}.attn.W_{letter.upper()}"][int(head)]

    def changes(
        self, clean: Tensor, corrupt: Tensor | None, edges: Iterable[Edge]
    ) -> dict[Edge, float]:
        """How much logits change where an edge carries what it does in the other prompt, or 0s."""
        logits, written = self.run(clean)
        if corrupt is None:
            other = {name: 0 * part for name, part in written.items()}
        else:
            _, other = self.run(corrupt)
        return {
            edge: (self.run(clean, {edge: other[edge.writer]})[0] - logits).abs().max().item()
            for edge in edges
        }


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference
