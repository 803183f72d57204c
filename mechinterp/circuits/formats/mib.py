"""EAP-IG's graph JSON, which the MIB benchmark takes as a submission: scores and circuits.

>>> import tempfile
>>> from mechinterp.circuits import Circuit, Graph, read_mib, write_mib
>>> graph = Graph(2, 2, 2, has_mlps=True, is_parallel=False)
>>> found = Circuit.from_edges(graph, ["input->a0.h1<v>", "a0.h1->logits"])
>>> with tempfile.TemporaryDirectory() as folder:
...     scores, circuit = read_mib(write_mib(found, f"{folder}/ioi.json", d_model=16))
>>> circuit == found, scores["m0->m1"]
(True, 0.0)

The format: `cfg` (n_layers, n_heads, parallel_attn_mlp, d_model), `nodes` (name: in_graph, at times
score) and `edges` (name: score, in_graph). One value an edge, no positions, a key and a value input
for each query head. An edge's `in_graph` alone says what is in the circuit, as in EAP-IG. Versions
of 2024 give a node a bare true or false, a score that may be null, and no d_model: also read. Not
read: graphs by position (`n_pos`), by neuron, and `.pt` files, which are pickles.

Source: `Graph.to_json` and `from_json` of github.com/hannamw/EAP-IG (Hanna et al. 2024, arXiv
2403.17806); submissions: Mueller et al. 2025 (MIB), arXiv 2504.13151.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.formats.own import read_json, write_json
from mechinterp.circuits.graph import Graph


def write_mib(
    circuit: Circuit, file: str | Path, *, d_model: int, scores: EdgeScores | None = None
) -> Path:
    """Mean scores and circuit in the current version; without scores all are 0, as in EAP-IG.

    For a submission of scores alone the circuit is `Circuit.empty(graph)`. A model without MLPs
    has none in the file: EAP-IG, whose graphs have them always, takes them as out, with score 0.

    Raises:
        ValueError: if the graph is by position or by key-value head, an edge has no score, or the
            scores are of another graph.
    """
    graph = circuit.graph
    if graph.positions or graph.n_key_readers != graph.n_heads:
        what = "positions" if graph.positions else "inputs of key-value heads"
        raise ValueError(
            f"{file}: this format has no place for {what}. Score "
            f"Graph.from_model(model), by query heads and without positions."
        )
    if scores is not None and scores.graph != graph:
        raise ValueError(f"{file}: the scores are of {scores.graph}, the circuit of {graph}.")
    mean: Any = np.zeros(graph.edges.shape) if scores is None else scores.mean
    unscored = np.argwhere(graph.edges & ~np.isfinite(mean)).tolist()
    if unscored:
        raise ValueError(
            f"{file}: {graph.edge_name(*unscored[0])} and {len(unscored) - 1} more have no finite "
            f"score; EAP-IG would rank NaN first. Score all edges, or set 0 there."
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
    }
    return write_json(content, file)


def read_mib(file: str | Path, *, graph: Graph | None = None) -> tuple[EdgeScores, Circuit]:
    """The scores, as of one pair, and the circuit of a file; NaN where a score is null or absent.

    `graph`: of the model that it should be of, `Graph.from_model(model)`. Scores of nodes, where
    the file has them, are `attrs["node_scores"]`.

    Raises:
        ValueError: if the file is none of this format, is of another model, lacks edges or names
            unknown ones, or holds what this format cannot say here: pickles, positions, neurons.
    """
    _refuse_pickles(Path(file))
    found = read_json(file)
    for part in ("cfg", "nodes", "edges"):
        if not isinstance(found.get(part), dict):
            raise ValueError(f'{file} has no object "{part}": it is no graph of EAP-IG or MIB.')
    nodes = {n: v if isinstance(v, dict) else {"in_graph": v} for n, v in found["nodes"].items()}
    _refuse_what_has_no_place(found, nodes, file)
    made = _graph(found, file)
    if graph is not None and graph != made:
        raise ValueError(
            f"{file} is of {made}, not of {graph}. Take the file of this model, and "
            f"Graph.from_model(model) by query heads and without positions."
        )
    unknown = [name for name in nodes if name not in {*made.writers, "logits"}]
    if unknown:
        raise ValueError(f"{file}: node {unknown[0]!r} is none of a graph of the sizes in cfg.")
    attrs: dict[str, Any] = {"file": Path(file).name}
    if any("score" in value for value in nodes.values()):
        attrs["node_scores"] = {n: v["score"] for n, v in nodes.items() if "score" in v}
    values, mask = _edges(found["edges"], made, file)
    return EdgeScores.from_array(made, values[..., None], **attrs), Circuit(made, mask)


def _refuse_pickles(file: Path) -> None:
    with file.open("rb") as opened:
        start = opened.read(2)
    if file.suffix in (".pt", ".pth", ".pkl") or start == b"PK" or start[:1] == b"\x80":
        raise ValueError(
            f"{file} is a pickle, which can run any code when it is read. Where EAP-IG is "
            f"installed, Graph.from_pt(file).to_json(other) makes JSON of it: read that."
        )


def _refuse_what_has_no_place(found: dict[str, Any], nodes: dict[str, Any], file: Any) -> None:
    if found.get("n_pos") is not None:
        raise ValueError(
            f"{file} is by position (n_pos = {found['n_pos']}), with edges from one position to "
            f"another, which a Graph does not have. Export a graph of Graph.from_model."
        )
    parts = {*found, *(key for value in nodes.values() for key in value)}
    if any(key.startswith("neuron") for key in parts):
        raise ValueError(
            f"{file} is by neuron; a circuit here is a set of edges. Export it by edge."
        )


def _graph(found: dict[str, Any], file: str | Path) -> Graph:
    cfg = found["cfg"]
    n_layers, n_heads, parallel = map(cfg.get, ("n_layers", "n_heads", "parallel_attn_mlp"))
    whole = all(type(number) is int and number > 0 for number in (n_layers, n_heads))
    if not whole or type(parallel) is not bool:
        raise ValueError(
            f"{file}: cfg needs n_layers, n_heads and parallel_attn_mlp; it has {cfg!r}."
        )
    has_mlps = any(name.startswith("m") for name in (*found["nodes"], *found["edges"]))
    return Graph(n_layers, n_heads, n_heads, has_mlps, parallel)


def _edges(edges: dict[str, Any], graph: Graph, file: str | Path) -> tuple[Any, Any]:
    values: Any = np.full(graph.edges.shape, np.nan)
    mask: Any = np.zeros(graph.edges.shape, dtype=bool)
    seen = mask.copy()
    for name, edge in edges.items():
        try:
            at = graph.edge(name)
        except ValueError as error:
            raise ValueError(f"{file}, by cfg of {graph}: {error}") from error
        inside = edge.get("in_graph") if isinstance(edge, dict) else None
        score = edge.get("score") if isinstance(edge, dict) else None
        if type(inside) is not bool or type(score) not in (float, int, type(None)):
            raise ValueError(
                f'{file}: edge {name!r} is {edge!r}, not {{"score": number, "in_graph": true or '
                f"false}}."
            )
        values[at], mask[at], seen[at] = np.nan if score is None else score, inside, True
    missing = np.argwhere(graph.edges & ~seen).tolist()
    if missing:
        raise ValueError(
            f"{file} has {len(edges)} edges, a graph of its sizes {graph.n_edges}; the first that "
            f"is missing is {graph.edge_name(*missing[0])}. EAP-IG takes missing ones as score 0, "
            f"in_graph false: add them so, if that is meant."
        )
    return values, mask
