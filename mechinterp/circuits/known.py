"""The known circuits of toys, as circuits of their graphs, to judge a search by.

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
from mechinterp.core.arguments import checks_arguments
from mechinterp.toys import Truth


@checks_arguments
def known_circuit(graph: Graph, truth: Truth) -> Circuit:
    """The edges that a toy is known to have, without those that are equal in every prompt.

    No pair of prompts of one length can show the effect of what position embeddings write, nor of
    the other edges in `truth.constant`. In a graph with positions an edge stands at all of them.

    Raises:
        ValueError: if the graph does not belong to the toy.
    """
    edges = [edge for edge in truth.edges if edge not in truth.constant]
    names = [
        f"{_graph_name(edge.writer)}->{_graph_name(edge.reader)}"
        for edge in edges
        if edge.writer != "pos_embed"
    ]
    places = [f"@{pos}" for pos in graph.positions] or [""]
    return Circuit.from_edges(graph, [name + place for name in names for place in places])


def _graph_name(name: str) -> str:
    """The graph's name of a writer or reader, from the toy's."""
    if name == "embed":
        return "input"
    found = re.fullmatch(r"L(\d+)(?:H(\d+)(?:\.(\w))?|\.mlp)", name)
    if found is None:
        return name
    layer, head, kind = found.groups()
    return f"m{layer}" if head is None else f"a{layer}.h{head}" + (f"<{kind}>" if kind else "")
