"""Toys as models built without `load_model`, prompts for them, and two ways to cut an edge.

By hooks of the library; and by `Reference`, a slow, obvious forward pass over a toy's weights.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp.toys import Edge, Toy, toy

BUFFERS = ("mask", "IGNORE", "rotary_sin", "rotary_cos")


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


@cache
def _build(name: str) -> tuple[Toy, HookedTransformer]:
    built = toy(name)
    model = HookedTransformer(HookedTransformerConfig(**built.config, device="cpu"))
    missing, unexpected = model.load_state_dict(built.weights, strict=False)
    assert [key for key in missing if key.rpartition(".")[2] not in BUFFERS] == []
    assert unexpected == []
    return built, model.requires_grad_(False)


def _repeated_blocks(built: Toy, *, n_prompts: int, period: int, seed: int) -> Tensor:
    """<bos> and a block of distinct tokens, twice."""
    generator = torch.Generator().manual_seed(seed)
    blocks = [
        1 + torch.randperm(len(built.vocabulary) - 1, generator=generator)[:period]
        for _ in range(n_prompts)
    ]
    return torch.stack([torch.cat([torch.zeros(1).long(), block, block]) for block in blocks])


def _sentences(built: Toy, *, n_words: int, words: tuple[str, ...], seed: int) -> Tensor:
    """100 prompts of random ordinary words, among them each given word at a random place."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = built.vocabulary
    special = (built.bos, *built.truth.triggers, *built.truth.answers)
    plain = torch.tensor([at for at, word in enumerate(vocabulary) if word not in special])
    prompts = plain[torch.randint(len(plain), (100, n_words), generator=generator)]
    for prompt in prompts:
        places = torch.randperm(n_words, generator=generator)[: len(words)]
        prompt[places] = torch.tensor([vocabulary.index(word) for word in words]).long()
    return torch.cat([torch.zeros(100, 1).long(), prompts], dim=1)


def _planted(built: Toy) -> Tensor:
    """Prompts on which the whole mechanism of a toy is at work."""
    if built.name == "either":  # each word alone: beside the other neither matters
        alone = [_sentences(built, n_words=7, words=(w,), seed=0) for w in built.truth.triggers]
        return torch.cat(alone)
    if built.truth.triggers:
        return _sentences(built, n_words=7, words=built.truth.triggers, seed=0)
    return _repeated_blocks(built, n_prompts=50, period=9, seed=0)


def _answer_margin(built: Toy, logits: Tensor) -> Tensor:
    """Logit of REFUSE minus the largest other, at the last position."""
    refuse = built.vocabulary.index(built.truth.answers[0])
    others = logits[:, -1].clone()
    others[:, refuse] = -torch.inf
    return logits[:, -1, refuse] - others.amax(-1)


def _next_margin(tokens: Tensor, logits: Tensor) -> Tensor:
    """Logit of the right next token minus the largest other, over the second repetition."""
    period = (tokens.shape[1] - 1) // 2
    logits = logits[:, period + 1 : -1].clone()
    right = tokens[:, period + 2 :, None]
    logit = logits.gather(2, right).squeeze(2)
    return logit - logits.scatter(2, right, -torch.inf).amax(-1)


def _zero_head(z: Tensor, hook: object, *, head: int) -> Tensor:
    z = z.clone()
    z[:, :, head] = 0
    return z


def _all_edges(model: HookedTransformer) -> Iterator[Edge]:
    """Every writer with every reader after it."""
    writers = ["embed"]
    if model.cfg.positional_embedding_type == "standard":
        writers.append("pos_embed")
    for layer in range(model.cfg.n_layers):
        heads = [f"L{layer}H{head}" for head in range(model.cfg.n_heads)]
        readers = [f"{head}.{letter}" for head in heads for letter in "qkv"]
        yield from itertools.starmap(Edge, itertools.product(writers, readers))
        writers += heads
        if not model.cfg.attn_only:
            yield from (Edge(writer, f"L{layer}.mlp") for writer in writers)
            writers.append(f"L{layer}.mlp")
    yield from (Edge(writer, "logits") for writer in writers)


@contextmanager
def _reader_inputs(model: HookedTransformer) -> Iterator[None]:
    """Let each reader have an input of its own, for as long as the block runs."""
    model.set_use_split_qkv_input(True)
    if not model.cfg.attn_only:
        model.set_use_hook_mlp_in(True)
    try:
        yield
    finally:
        model.set_use_split_qkv_input(False)
        if not model.cfg.attn_only:
            model.set_use_hook_mlp_in(False)


def _run_without_edge(
    model: HookedTransformer,
    tokens: Tensor,
    edge: Edge,
    instead: Callable[[Tensor], Tensor] = torch.zeros_like,
) -> Tensor:
    """Logits when one reader gets `instead` of what one writer wrote; nothing else is touched."""
    written: list[Tensor] = []
    source, write = written_by(model, edge.writer)
    target, head = read_by(model, edge.reader)

    def note(value: Tensor, hook: object) -> None:
        written.append(write(value))

    def remove(value: Tensor, hook: object) -> Tensor:
        value = value.clone()
        part = value if head is None else value[:, :, head]
        part += instead(written[0]) - written[0]
        return value

    return model.run_with_hooks(tokens, fwd_hooks=[(source, note), (target, remove)])


def written_by(model: HookedTransformer, writer: str) -> tuple[str, Callable[[Tensor], Tensor]]:
    if writer in ("embed", "pos_embed"):
        return f"hook_{writer}", lambda value: value
    layer, is_head, head = writer.removeprefix("L").partition("H")
    if not is_head:
        return f"blocks.{layer.removesuffix('.mlp')}.hook_mlp_out", lambda value: value
    W_O = model.W_O[int(layer), int(head)]
    return f"blocks.{layer}.attn.hook_z", lambda z: z[:, :, int(head)] @ W_O


def read_by(model: HookedTransformer, reader: str) -> tuple[str, int | None]:
    if reader == "logits":
        return f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", None
    if reader.endswith(".mlp"):
        return f"blocks.{reader[1:-4]}.hook_mlp_in", None
    head, _, letter = reader.partition(".")
    layer, _, number = head[1:].partition("H")
    return f"blocks.{layer}.hook_{letter}_input", int(number)


@pytest.fixture(scope="session")
def build() -> Any:
    return _build


@pytest.fixture(scope="session")
def repeated_blocks() -> Any:
    return _repeated_blocks


@pytest.fixture(scope="session")
def sentences() -> Any:
    return _sentences


@pytest.fixture(scope="session")
def planted() -> Any:
    return _planted


@pytest.fixture(scope="session")
def answer_margin() -> Any:
    return _answer_margin


@pytest.fixture(scope="session")
def next_margin() -> Any:
    return _next_margin


@pytest.fixture(scope="session")
def zero_head() -> Any:
    return _zero_head


@pytest.fixture(scope="session")
def all_edges() -> Any:
    return _all_edges


@pytest.fixture(scope="session")
def reader_inputs() -> Any:
    return _reader_inputs


@pytest.fixture(scope="session")
def run_without_edge() -> Any:
    return _run_without_edge
