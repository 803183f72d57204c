"""The graph JSON of EAP-IG, which the MIB benchmark accepts: scores and circuits.

>>> import tempfile
>>> from mechinterp.circuits import Circuit, Graph, read_mib, write_mib
>>> graph = Graph(2, 2, 2, has_mlps=True, is_parallel=False)
>>> found = Circuit.from_edges(graph, ["input->a0.h1<v>", "a0.h1->logits"])
>>> with tempfile.TemporaryDirectory() as folder:
...     scores, circuit = read_mib(write_mib(found, f"{folder}/ioi.json", d_model=16))
>>> circuit == found, scores["m0->m1"]
(True, 0.0)

The format: `cfg` (n_layers, n_heads, parallel_attn_mlp, d_model), `nodes` (name: in_graph,
sometimes score) and `edges` (name: score, in_graph). It has one value for an edge, no positions,
and a key and a value input for each query head. As in EAP-IG, the `in_graph` of the edges alone
defines the circuit. What we write has a key more, `mechinterp`, with a seal, a hash of the file.
Files of 2024, where a node is a bare true or false, a score may be null and
d_model is missing, can be read too. Graphs by position (`n_pos`) or by neuron, and `.pt` files,
which are pickles, cannot.

Source: `Graph.to_json` and `from_json` of github.com/hannamw/EAP-IG (Hanna et al. 2024, arXiv
2403.17806); submissions: Mueller et al. 2025 (MIB), arXiv 2504.13151.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.formats.own import VERSION, check_graph, parse_json, write_json
from mechinterp.circuits.graph import Graph
from mechinterp.core.arguments import checks_arguments
from mechinterp.storage.seals import NOT_SEALED, is_sealed
from mechinterp.storage.whole_files import JSON_BYTES_PER_BYTE, read_whole

OURS = "mechinterp"
"""A key that we add, with the seal of the file; EAP-IG and MIB read past it."""

_MOST_MISSING = 1000


@checks_arguments
def write_mib(
    circuit: Circuit, file: str | Path, *, d_model: int, scores: EdgeScores | None = None
) -> Path:
    """Write a circuit with its mean scores; without scores all are 0, as in EAP-IG.

    To submit scores alone, give `Circuit.empty(graph)`. The file of a model without MLPs has none;
    EAP-IG, whose graphs always have them, reads them as outside the circuit, with score 0.

    Raises:
        ValueError: if the graph is by position or by key-value head, an edge has no score, or the
            scores belong to another graph.
    """
    graph = circuit.graph
    if graph.positions or graph.n_key_readers != graph.n_heads:
        what = "positions" if graph.positions else "inputs of key-value heads"
        raise ValueError(
            f"{file}: this format cannot store {what}. Score Graph.from_model(model), by query "
            f"heads and without positions."
        )
    if scores is not None and scores.graph != graph:
        raise ValueError(f"{file}: the scores belong to {scores.graph}, the circuit to {graph}.")
    mean = np.zeros(graph.edges.shape) if scores is None else scores.mean
    unscored = np.argwhere(graph.edges & ~np.isfinite(mean)).tolist()
    if unscored:
        raise ValueError(
            f"{file}: {graph.edge_name(*unscored[0])} and {len(unscored) - 1} more edges have no "
            f"finite score; EAP-IG would rank NaN first. Score all edges, or set these to 0."
        )
    inside = {*circuit.nodes, "logits"}
    edges = {
        graph.edge_name(*at): {"score": float(mean[*at]), "in_graph": bool(circuit.mask[*at])}
        for at in np.argwhere(graph.edges).tolist()
    }
    content = {
        "cfg": {
            "n_layers": graph.n_layers,
            "n_heads": graph.n_heads,
            "parallel_attn_mlp": graph.is_parallel,
            "d_model": d_model,
        },
        "nodes": {name: {"in_graph": name in inside} for name in (*graph.writers, "logits")},
        "edges": edges,
        OURS: {"version": VERSION, "seal": NOT_SEALED},
    }
    return write_json(content, file)


@checks_arguments
def read_mib(file: str | Path, *, graph: Graph | None = None) -> tuple[EdgeScores, Circuit]:
    """Read scores, as of one pair, and a circuit; NaN where a score is null or absent.

    `graph`: check that the file is of this graph, such as `Graph.from_model(model)`. Scores of
    nodes, where the file has them, are in `attrs["node_scores"]`.

    Raises:
        ValueError: if the file has another format, is of another model, lacks edges, names unknown
            ones, or is a pickle, by position or by neuron.
    """
    _check_no_pickle(Path(file))
    content = read_whole(Path(file), JSON_BYTES_PER_BYTE)
    found = parse_json(content, file)
    if is_sealed(content, file) != (OURS in found):
        raise ValueError(f"{file} is damaged: its seal is not whole. Write it again.")
    for part in ("cfg", "nodes", "edges"):
        if not isinstance(found.get(part), dict):
            raise ValueError(f'{file} has no object "{part}": it is not a graph of EAP-IG or MIB.')
    nodes = {n: v if isinstance(v, dict) else {"in_graph": v} for n, v in found["nodes"].items()}
    _check_supported(found, nodes, file)
    own = _graph(found["cfg"], found["nodes"], found["edges"], file)
    if graph is not None and graph != own:
        raise ValueError(
            f"{file} is of {own}, not of {graph}. Use the file of this model, and "
            f"Graph.from_model(model) by query heads and without positions."
        )
    unknown = [name for name in nodes if name not in {*own.writers, "logits"}]
    if unknown:
        raise ValueError(f"{file}: a graph of the sizes in cfg has no node {unknown[0]!r}.")
    attrs: dict[str, object] = {"file": Path(file).name}
    if any("score" in value for value in nodes.values()):
        attrs["node_scores"] = {n: v["score"] for n, v in nodes.items() if "score" in v}
    values, mask = _edges(found["edges"], own, file)
    return EdgeScores.from_array(own, values[..., None], **attrs), Circuit(own, mask)


def _check_no_pickle(file: Path) -> None:
    with file.open("rb") as opened:
        start = opened.read(2)
    if file.suffix in (".pt", ".pth", ".pkl") or start == b"PK" or start[:1] == b"\x80":
        raise ValueError(
            f"{file} is a pickle, which can run any code when it is read. Convert it with EAP-IG, "
            f"Graph.from_pt(file).to_json(other), and read the JSON."
        )


def _check_supported(
    found: Mapping[str, object], nodes: Mapping[str, Mapping[str, object]], file: str | Path
) -> None:
    if found.get("n_pos") is not None:
        raise ValueError(
            f"{file} is by position (n_pos = {found['n_pos']}), with edges from one position to "
            f"another, which a Graph does not have. Export it without positions."
        )
    every = [found, *nodes.values()]
    if any(k.startswith("neuron") and v is not None for one in every for k, v in one.items()):
        raise ValueError(
            f"{file} is by neuron; a circuit here is a set of edges. Export it by edge."
        )


def _graph(
    cfg: Mapping[str, object],
    nodes: Mapping[str, object],
    edges: Mapping[str, object],
    file: str | Path,
) -> Graph:
    """The graph of these sizes, after a check that the file has an edge for each of its own."""
    n_layers, n_heads, parallel = map(cfg.get, ("n_layers", "n_heads", "parallel_attn_mlp"))
    if (
        not (type(n_layers) is int and n_layers > 0)
        or not (type(n_heads) is int and n_heads > 0)
        or type(parallel) is not bool
    ):
        raise ValueError(
            f"{file}: cfg needs n_layers, n_heads and parallel_attn_mlp; it has {cfg!r}."
        )
    has_mlps = any(name.startswith("m") for name in [*nodes, *edges])
    graph = Graph(n_layers, n_heads, n_heads, has_mlps, parallel)
    if graph.n_edges > len(edges) + _MOST_MISSING:
        raise ValueError(
            f"{file} has {len(edges)} edges; a graph of its sizes has {graph.n_edges}. Use a file "
            f"that is whole."
        )
    check_graph(graph, file)
    return graph


def _edges(
    edges: Mapping[str, object], graph: Graph, file: str | Path
) -> tuple[
    Float[np.ndarray, "writer reader pos"],
    Bool[np.ndarray, "writer reader pos"],
]:
    values = np.full(graph.edges.shape, np.nan)
    mask = np.zeros(graph.edges.shape, dtype=bool)
    seen = mask.copy()
    for name, edge in edges.items():
        try:
            at = graph.edge(name)
        except ValueError as error:
            raise ValueError(f"{file}, whose cfg is that of {graph}: {error}") from error
        inside = edge.get("in_graph") if isinstance(edge, dict) else None
        score = edge.get("score") if isinstance(edge, dict) else None
        if type(inside) is not bool or type(score) not in (float, int, type(None)):
            raise ValueError(
                f'{file}: edge {name!r} is {edge!r}, not {{"score": number, "in_graph": true or '
                f"false}}."
            )
        if score is not None and math.isinf(score):
            raise ValueError(f"{file}: the score of edge {name!r} is not finite.")
        values[at], mask[at], seen[at] = np.nan if score is None else score, inside, True
    missing = np.argwhere(graph.edges & ~seen).tolist()
    if missing:
        raise ValueError(
            f"{file} has {len(edges)} edges; a graph of its sizes has {graph.n_edges}. The first "
            f"that is missing is {graph.edge_name(*missing[0])}. EAP-IG reads missing edges as "
            f"score 0, in_graph false: add them like this if that is meant."
        )
    return values, mask
