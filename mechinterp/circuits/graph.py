"""The graph of a model's residual stream: which part writes what another reads. A plain value.

Writers are the embedding, every head and every MLP. Readers are the query, key and value input of
every head, the input of every MLP, and the logits. An edge goes from a writer to a later reader. It
carries what the writer writes, as one term of the sum that the reader reads before its norm.

>>> from mechinterp import load_model
>>> from mechinterp.circuits import Graph
>>> graph = Graph.from_model(load_model("toy:induction-trained"))
>>> graph.n_edges, graph.writers, graph.readers[-1]
(12, ('input', 'a0.h0', 'a1.h0'), 'logits')

Names and order are those of EAP-IG's and MIB's files: `a3.h1` is head 1 of layer 3, `m3` the MLP of
layer 3, `a3.h1<q>` a query input; readers come layer by layer, all q, all k, all v, then the MLP.
Position embeddings and the output bias of attention belong to no writer, and so to no edge.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from jaxtyping import Bool, Int

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Pos
from mechinterp.models.facts import has_norm_after_heads
from mechinterp.models.model import Model

KINDS = ("q", "k", "v")
ELSEWHERE = "elsewhere"
"""The name of all positions that a graph with positions does not name."""


@dataclass(frozen=True)
class Node:
    """A writer: a head, an MLP (no head), or the embedding (no layer and no head)."""

    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Reader:
    """An input of a node: `kind` is "q", "k", "v", "mlp" or "logits"; `head` may be a key group."""

    kind: str
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Graph:
    """The graph of a model of these sizes; graphs compare by value.

    `n_key_readers`: how many key (and value) inputs a layer has: one for each head, or, with
    `by_kv_head`, one for each key-value head under grouped-query attention. `positions`: the names
    of positions, if edges are split by position; the last, "elsewhere", is all that have no name.
    Empty: an edge is at all positions.
    """

    n_layers: int
    n_heads: int
    n_key_readers: int
    has_mlps: bool
    is_parallel: bool
    positions: tuple[str, ...] = ()

    @classmethod
    @checks_arguments
    def from_model(
        cls, model: Model, *, by_kv_head: bool = False, positions: Sequence[Pos] | None = None
    ) -> "Graph":
        """The graph of a model.

        `positions`: numbers and names; an edge for each of them, and one for all others together.

        Raises:
            ValueError: if the outputs of all heads pass one norm, so that no head has an output of
                its own; or if a position is given twice.
        """
        cfg = model.cfg
        if has_norm_after_heads(model):
            raise ValueError(
                "this model puts a norm on the sum of what the heads of a layer write, so that no "
                "head has an output of its own: it has no graph of heads. Patch attn_out instead."
            )
        names = tuple(str(pos) for pos in positions or ())
        if len(set(names)) < len(names) or ELSEWHERE in names:
            raise ValueError(
                f"positions {list(names)}: give each once, and none called {ELSEWHERE!r}."
            )
        return cls(
            cfg.n_layers,
            cfg.n_heads,
            (cfg.n_key_value_heads if by_kv_head else None) or cfg.n_heads,
            not cfg.attn_only,
            bool(cfg.parallel_attn_mlp),
            (*names, ELSEWHERE) if names else (),
        )

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The writers, in the order in which they write."""
        nodes = [Node()]
        for layer in range(self.n_layers):
            nodes += [Node(layer, head) for head in range(self.n_heads)]
            nodes += [Node(layer)] * self.has_mlps
        return tuple(nodes)

    @cached_property
    def simultaneous_writers(self) -> tuple[slice, ...]:
        """The writers that write at once, as slices: the input; all heads of a layer; its MLP."""
        counts = [1]
        for _ in range(self.n_layers):
            counts += [self.n_heads] + [1] * self.has_mlps
        ends = list(accumulate(counts))
        return tuple(slice(end - n, end) for n, end in zip(counts, ends, strict=True))

    @cached_property
    def inputs(self) -> tuple[Reader, ...]:
        """The readers: layer by layer all q, all k, all v, then the MLP; the logits last."""
        readers = []
        for layer in range(self.n_layers):
            readers += [Reader("q", layer, head) for head in range(self.n_heads)]
            readers += [Reader(k, layer, head) for k in "kv" for head in range(self.n_key_readers)]
            readers += [Reader("mlp", layer)] * self.has_mlps
        return (*readers, Reader("logits"))

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """The names of the writers."""
        return tuple(_node_name(node.layer, node.head) for node in self.nodes)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """The names of the readers; key groups, where heads share keys, are `a3.g1<k>`."""
        return tuple(self._reader_name(reader) for reader in self.inputs)

    def readers_of(self, layer: int | None, kind: str) -> slice:
        """The slice of the readers of one kind in a layer, which follow one another."""
        found = [i for i, r in enumerate(self.inputs) if (r.layer, r.kind) == (layer, kind)]
        return slice(found[0], found[-1] + 1)

    def n_writers_before(self, reader: Reader) -> int:
        """How many writers a reader reads: the first so many."""
        before = self.n_writers_before_layer(reader.layer)
        return before + self.n_heads * (reader.kind == "mlp" and not self.is_parallel)

    def n_writers_before_layer(self, layer: int | None) -> int:
        """How many writers come before a layer; before None, the logits, all of them."""
        number = self.n_layers if layer is None else layer
        return 1 + number * (self.n_heads + self.has_mlps)

    @cached_property
    def edges(self) -> Bool[np.ndarray, "writer reader pos"]:
        """Where there is an edge; without positions the last axis has length 1."""
        n_before = np.array([self.n_writers_before(reader) for reader in self.inputs])
        is_edge = np.arange(len(self.nodes))[:, None] < n_before
        return np.repeat(is_edge[..., None], self.n_positions, axis=2)

    @property
    def n_positions(self) -> int:
        """The number of named positions and "elsewhere"; 1 where an edge is at all positions."""
        return max(1, len(self.positions))

    @property
    def n_edges(self) -> int:
        """The number of edges, from the sizes alone."""
        per_layer = self.n_heads + self.has_mlps
        before = self.n_layers + per_layer * self.n_layers * (self.n_layers - 1) // 2
        into_heads = (self.n_heads + 2 * self.n_key_readers) * before
        heads_of_layer = 0 if self.is_parallel else self.n_heads * self.n_layers
        into_mlps = self.has_mlps * (before + heads_of_layer)
        return (into_heads + into_mlps + 1 + per_layer * self.n_layers) * self.n_positions

    @property
    def n_cells(self) -> int:
        """The number of pairs of a writer and a reader, times positions: what an array holds."""
        n_writers = 1 + self.n_layers * (self.n_heads + self.has_mlps)
        n_inputs = self.n_heads + 2 * self.n_key_readers + self.has_mlps
        return n_writers * (1 + self.n_layers * n_inputs) * self.n_positions

    @cached_property
    def feeds(self) -> Bool[np.ndarray, "reader writer"]:
        """Which reader is an input of which writer; key groups feed several heads."""
        shared = self.n_heads // self.n_key_readers
        fed = np.zeros((len(self.inputs), len(self.nodes)), dtype=bool)
        for row, reader in enumerate(self.inputs[:-1]):
            heads = [reader.head]
            if reader.head is not None and reader.kind != "q":
                heads = list(range(reader.head * shared, (reader.head + 1) * shared))
            for head in heads:
                fed[row, self.writer_index[_node_name(reader.layer, head)]] = True
        return fed

    @cached_property
    def writer_index(self) -> dict[str, int]:
        """Name -> index of the writer."""
        return {name: index for index, name in enumerate(self.writers)}

    @cached_property
    def reader_index(self) -> dict[str, int]:
        """Name -> index of the reader."""
        return {name: index for index, name in enumerate(self.readers)}

    def writer(self, name: str) -> int:
        """The index of a writer, by name.

        Raises:
            ValueError: if the graph has no such writer.
        """
        if name not in self.writer_index:
            raise ValueError(
                f'{name!r} is not a writer of this graph; writers are called "a3.h1" or "m3".'
            )
        return self.writer_index[name]

    def edge(self, name: str) -> tuple[int, int, int]:
        """The indices of writer, reader and position of an edge such as `m0->a1.h0<k>@end`.

        Raises:
            ValueError: if there is no such edge, saying why.
        """
        text, _, pos = name.partition("@")
        writer, arrow, reader = text.partition("->")
        for part, known in ((writer, self.writer_index), (reader, self.reader_index)):
            if not arrow or part not in known:
                raise ValueError(
                    f"edge {name!r}: {part!r} is not one of {', '.join(list(known)[:5])} … "
                    f'{list(known)[-1]}. Write an edge as "a0.h1->a1.h0<k>" or "m0->logits".'
                )
        if bool(pos) != bool(self.positions) or (pos and pos not in self.positions):
            has = ", ".join(self.positions) or "none: an edge is at all positions"
            raise ValueError(f"edge {name!r}: the graph has the positions {has}.")
        found = self.writer_index[writer], self.reader_index[reader]
        if not self.edges[found][0]:
            raise ValueError(f"edge {name!r}: {writer} does not write before {reader} reads.")
        return (*found, self.positions.index(pos) if pos else 0)

    def edge_name(self, writer: int, reader: int, pos: int = 0) -> str:
        """The name of an edge."""
        name = f"{self.writers[writer]}->{self.readers[reader]}"
        return f"{name}@{self.positions[pos]}" if self.positions else name

    def position_of(self, prompts: Prompts) -> Int[np.ndarray, "prompt pos"]:
        """The index of each token's position in the graph; 0 where an edge is at all positions.

        Raises:
            ValueError: if the prompts lack a position, or two positions are the same token.
        """
        indices = np.full(tuple(prompts.tokens.shape), self.n_positions - 1)
        rows = np.arange(len(prompts))
        for index, name in enumerate(self.positions[:-1]):
            at = prompts.positions(int(name) if name.isdecimal() else name).cpu().numpy()
            taken = indices[rows, at] != self.n_positions - 1
            if taken.any():
                other = self.positions[indices[rows, at][taken][0]]
                raise ValueError(
                    f"positions {other!r} and {name!r} are the same token of prompt "
                    f"{int(taken.argmax())}: an edge there would count twice. Leave one out."
                )
            indices[rows, at] = index
        return indices

    def _reader_name(self, reader: Reader) -> str:
        if reader.kind == "logits":
            return "logits"
        if reader.kind == "mlp":
            return _node_name(reader.layer, None)
        grouped = reader.kind != "q" and self.n_key_readers < self.n_heads
        return f"a{reader.layer}.{'g' if grouped else 'h'}{reader.head}<{reader.kind}>"


def _node_name(layer: int | None, head: int | None) -> str:
    if layer is None:
        return "input"
    return f"m{layer}" if head is None else f"a{layer}.h{head}"


def parse_node(name: str) -> Node:
    """The node with a writer's name.

    Raises:
        ValueError: if it is not the name of a writer.
    """
    found = re.fullmatch(r"input|m(?P<mlp>\d+)|a(?P<layer>\d+)\.h(?P<head>\d+)", name)
    if found is None:
        raise ValueError(f'{name!r} is not a writer. Writers are "input", "a3.h1" and "m3".')
    if found["mlp"]:
        return Node(int(found["mlp"]))
    return Node(int(found["layer"]), int(found["head"])) if found["layer"] else Node()
