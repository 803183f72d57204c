"""Published circuits of GPT-2 small, as circuits of its graph: roles of heads, arrows between them.

>>> from mechinterp.circuits import Graph, published_circuit
>>> graph = Graph(12, 12, 12, has_mlps=True, is_parallel=False)
>>> published_circuit("ioi", graph)
Circuit(967, of 32491 edges)
>>> "a8.h6->a9.h9<q>" in published_circuit("ioi", graph)
True

`PUBLISHED` holds them as roles, and arrows between roles at positions, so that `circuit_of_roles`
can draw the same arrows between the heads of another model. In a graph with positions an edge
stands where the figure has it, or "elsewhere" if the graph does not name that position.

- "ioi": Wang et al. 2022, figure 2. The paper patched paths through MLPs but not through other
  heads. So the circuit has all MLPs, and every edge into and out of them but those of other heads.
- "greater-than": Hanna et al. 2023: seven heads and MLPs 8 to 11 at the end, and, from appendix B,
  what those heads read at YY: MLPs 0 to 3 and heads of layer 0. The paper keeps the queries whole;
  here they read MLPs alone, as in "ACDC", since the paper names no edges.
- "ioi, ACDC", "greater-than, ACDC": the edges by which scores are judged since Conmy et al. 2023,
  from their code, without the edges inside heads (q input to q and the like, 3 for each head; with
  them there are 1,041 and 262).

They differ. ACDC's version of indirect objects lacks the queries of induction heads, which read S2.
Its greater-than has head 6.1 in place of 5.1 and 8.8, and draws queries, keys and values where the
paper patched at YY, although the queries of these heads are not at YY. In the paper S-inhibition
heads read mostly through their values and a little through keys, and previous-token heads act
through the keys of induction heads; the figure and all sets here have both kinds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mechinterp.circuits.circuit import Circuit
from mechinterp.circuits.graph import Graph
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.sites import Site
from mechinterp.tasks.definition import Finding
from mechinterp.tasks.greater_than import FINDINGS as GREATER_THAN
from mechinterp.tasks.greater_than import SOURCE as HANNA
from mechinterp.tasks.ioi import FINDINGS as INDIRECT_OBJECTS
from mechinterp.tasks.ioi import SOURCE as WANG

Roles = Mapping[str, tuple[str, ...]]
"""The nodes of each role, by name: "a9.h9", "m8", "input", "logits"."""


@dataclass(frozen=True)
class Arrow:
    """Edges from the nodes of one role to those of another.

    `kinds`: the inputs of the reading heads, some of "qkv"; empty for MLPs and the logits, which
    have one input. `at`: the position where they read; None: at all positions.
    """

    writer: str
    reader: str
    kinds: str = ""
    at: str | None = None


@dataclass(frozen=True)
class Published:
    """A circuit from a paper: `roles` of nodes, and `arrows` between roles."""

    roles: Roles
    arrows: tuple[Arrow, ...]
    source: str


@checks_arguments
def published_circuit(name: str, graph: Graph) -> Circuit:
    """A published circuit of GPT-2 small, by its name in `PUBLISHED`, such as "ioi".

    Raises:
        ValueError: if the name is unknown, or the graph is not that of GPT-2 small.
    """
    if name not in PUBLISHED:
        raise ValueError(
            f"no published circuit is called {name!r}. Choose one of {list(PUBLISHED)}."
        )
    gpt2 = Graph(12, 12, 12, has_mlps=True, is_parallel=False, positions=graph.positions)
    if graph != gpt2:
        raise ValueError(
            f"{name!r} is a circuit of GPT-2 small, whose graph is {gpt2}; yours is {graph}. For "
            f"another model draw its arrows with circuit_of_roles(graph, roles, arrows)."
        )
    published = PUBLISHED[name]
    return circuit_of_roles(graph, published.roles, published.arrows)


@checks_arguments
def circuit_of_roles(graph: Graph, roles: Roles, arrows: tuple[Arrow, ...]) -> Circuit:
    """The circuit of all edges of the graph that these arrows give between nodes of these roles.

    An arrow from or to a role without nodes gives none.

    Raises:
        ValueError: if a node is not in the graph.
    """
    mask = np.zeros(graph.edges.shape, dtype=bool)
    for arrow in arrows:
        writers = [graph.writer(node) for node in _nodes(roles, arrow.writer)]
        readers = [row for node in _nodes(roles, arrow.reader) for row in _rows(graph, node, arrow)]
        mask[np.ix_(writers, readers, _positions(graph, arrow.at))] = True
    return Circuit(graph, mask & graph.edges)


def _nodes(roles: Roles, role: str) -> tuple[str, ...]:
    """The nodes of a role; "input" and "logits" are roles themselves."""
    return (role,) if role in ("input", "logits") else roles.get(role, ())


def _rows(graph: Graph, node: str, arrow: Arrow) -> list[int]:
    """The indices of the inputs of a node to which an arrow leads."""
    if node == "logits":
        return [graph.reader_index[node]]
    kinds = tuple(arrow.kinds) or ("mlp",)
    fed = np.flatnonzero(graph.feeds[:, graph.writer(node)]).tolist()
    return [row for row in fed if graph.inputs[row].kind in kinds]


def _positions(graph: Graph, at: str | None) -> list[int]:
    if at is None or not graph.positions:
        return list(range(graph.n_positions))
    named = at in graph.positions
    return [graph.positions.index(at) if named else graph.n_positions - 1]


def _nodes_of(findings: tuple[Finding, ...]) -> dict[str, tuple[str, ...]]:
    """The nodes of the roles that findings about GPT-2 name."""
    return {f.role: tuple(map(_node, f.sites)) for f in findings if f.model == "gpt2"}


def _node(site: Site) -> str:
    return f"m{site.layer}" if site.head is None else f"a{site.layer}.h{site.head}"


def _mlps(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"m{layer}" for layer in range(first, last + 1))


def _ioi(*, acdc: bool) -> Published:
    """Figure 2 of Wang et al., and all MLPs around its heads."""
    roles = _nodes_of(INDIRECT_OBJECTS) | {"MLP": _mlps(0, 11)}
    movers = ("name mover", "backup name mover", "negative name mover")
    arrows = [
        Arrow("input", "previous token", "q", "S1+1"),
        Arrow("input", "previous token", "kv", "S1"),
        Arrow("input", "duplicate token", "q", "S2"),
        Arrow("input", "duplicate token", "kv", "S1"),
        Arrow("previous token", "induction", "kv", "S1+1"),
        Arrow("induction", "S-inhibition", "kv", "S2"),
        Arrow("duplicate token", "S-inhibition", "kv", "S2"),
        Arrow("input", "S-inhibition", "q", "end"),
        *(Arrow("input", mover, "kv", "IO") for mover in movers),
        *(Arrow("S-inhibition", mover, "q", "end") for mover in movers),
        *(Arrow(mover, "logits", at="end") for mover in movers),
    ]
    if not acdc:
        arrows.append(Arrow("input", "induction", "q", "S2"))
    heads = [role for role in roles if role != "MLP"]
    through = [Arrow("input", "MLP"), Arrow("MLP", "MLP"), Arrow("MLP", "logits")]
    through += [Arrow("MLP", role, "qkv") for role in heads]
    through += [Arrow(role, "MLP") for role in heads]
    around = (*through, Arrow("input", "logits"))
    return Published(roles, (*arrows, *around), f"{WANG}, figure 2, appendices B to D")


def _greater_than(*, acdc: bool) -> Published:
    """The circuit of Hanna et al., or that of Conmy et al., who list partly other heads."""
    found = _nodes_of(GREATER_THAN)
    reference = found["ACDC's reference"]
    early = tuple(node for node in reference if node.startswith("a0."))
    roles = {
        "early head": early,
        "early head, into MLPs": ("a0.h1",),
        "early MLP": _mlps(0, 3),
        "start year": tuple(n for n in reference if n not in early)
        if acdc
        else found["start year"],
        "greater-than": found["greater-than"],
        "MLP, into queries": _mlps(0, 8),
    }
    read = "qkv" if acdc else "kv"
    arrows = (
        Arrow("input", "early head", "qkv", "YY"),
        Arrow("input", "early MLP", at="YY"),
        Arrow("early head, into MLPs", "early MLP", at="YY"),
        Arrow("early MLP", "early MLP", at="YY"),
        Arrow("early head", "start year", read, "YY"),
        Arrow("early MLP", "start year", read, "YY"),
        Arrow("MLP, into queries", "start year", "q", "end"),
        Arrow("MLP, into queries", "MLP, into queries", at="end"),
        Arrow("start year", "greater-than", at="end"),
        Arrow("start year", "logits", at="end"),
        Arrow("greater-than", "greater-than", at="end"),
        Arrow("greater-than", "logits", at="end"),
    )
    return Published(roles, arrows, f"{HANNA}, section 3 and appendix B")


PUBLISHED: dict[str, Published] = {
    "ioi": _ioi(acdc=False),
    "greater-than": _greater_than(acdc=False),
    "ioi, ACDC": _ioi(acdc=True),
    "greater-than, ACDC": _greater_than(acdc=True),
}
"""The published circuits, by name."""
