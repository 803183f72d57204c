"""The circuits of toys, as circuits of their graphs: what a search is judged by.

>>> from mechinterp import load_model
>>> from mechinterp.circuits import Graph, known_circuit
>>> from mechinterp.toys import toy
>>> planted = toy("trigger")
>>> known_circuit(Graph.from_model(load_model(planted)), planted.truth).names
('input->a1.h0<k>', 'input->a1.h0<v>', 'a1.h0->logits')
"""

import re

from mechinterp.circuits.circuit import Circuit
from mechinterp.circuits.graph import Graph
from mechinterp.toys import Truth


def known_circuit(graph: Graph, truth: Truth) -> Circuit:
    """The edges that a toy is known to have, less those that are the same in every prompt.

    What position embeddings write, and the other edges of `truth.constant`, no pair of prompts of
    one length can tell from nothing. In a graph with positions each edge is at all of them.

    Raises:
        ValueError: if the graph is not of the toy.
    """
    edges = [edge for edge in truth.edges if edge not in truth.constant]
    names = [
        f"{_named(edge.writer)}->{_named(edge.reader)}"
        for edge in edges
        if edge.writer != "pos_embed"
    ]
    labels = [f"@{label}" for label in graph.positions] or [""]
    return Circuit.from_edges(graph, [name + label for name in names for label in labels])


def _named(name: str) -> str:
    """A toy's name for a writer or a reader, as a graph has it."""
    if name == "embed":
        return "input"
    found = re.fullmatch(r"L(\d+)(?:H(\d+)(?:\.(\w))?|\.mlp)", name)
    if found is None:
        return name
    layer, head, kind = found.groups()
    return f"m{layer}" if head is None else f"a{layer}.h{head}" + (f"<{kind}>" if kind else "")
