"""A circuit as an attribution graph for circuit-tracer and Neuronpedia.

>>> import tempfile
>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, exact_edges, top_n
>>> from mechinterp.circuits import read_neuronpedia, write_neuronpedia
>>> model = load_model("toy:trigger")
>>> prompt = "please bring the sesame"
>>> pair = Pair(tokenize(model, prompt), tokenize(model, "please bring the letter"))
>>> scores = exact_edges(Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE"))))
>>> circuit, names = top_n(scores, 3), {"slug": "sesame", "scan": "trigger", "prompt": prompt}
>>> with tempfile.TemporaryDirectory() as folder:
...     file = f"{folder}/sesame.json"
...     file = write_neuronpedia(scores, circuit, file, tokens=prompt.split(), **names)
...     read_neuronpedia(file, scores.graph)[1] == circuit
True

In the format a node is a feature at a token, and a link has one weight. Here a node is a part of
the model at a position, and a link joins all edges from one node to another: its weight is the sum
of their mean scores, and `edges`, a key that we add, has the score of each by name. The description
in the file says so too.

Source: `graph_models.py` of github.com/safety-research/circuit-tracer, schema version 1, and
`graph-schema.json` of github.com/hijohnnylin/neuronpedia, version 1.0.0.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.formats.own import (
    VERSION,
    circuit_of,
    graph_of,
    parse_json,
    plain,
    write_json,
)
from mechinterp.circuits.graph import ELSEWHERE, KINDS, Graph, parse_node
from mechinterp.core.arguments import checks_arguments
from mechinterp.storage.run_folder import package_version
from mechinterp.storage.seals import NOT_SEALED, check_seal
from mechinterp.storage.whole_files import JSON_BYTES_PER_BYTE, read_whole

DESCRIPTION = (
    "Edges between attention heads and MLPs, by mechinterp: a node is what a part of the model "
    "writes, and the weight of a link the summed mean score of the edges it joins (query, key and "
    "value inputs), each of which is in the link's `edges`. "
)
WITHOUT_POSITIONS = "The edges are at all positions: everything is drawn at the last token."
WITH_POSITIONS = (
    "What is at no named position ('elsewhere') is drawn at the last token. A key or value input "
    "is drawn into its head wherever the head writes, from there on."
)


@checks_arguments
def write_neuronpedia(
    scores: EdgeScores,
    circuit: Circuit,
    file: str | Path,
    *,
    slug: str,
    prompt: str,
    tokens: Sequence[str],
    scan: str,
    positions: Mapping[str, int] | None = None,
) -> Path:
    """Write the circuit with its mean scores, drawn over the tokens of one prompt.

    `slug` names the graph and `scan` the model, as in Neuronpedia. `positions`: the token index of
    each named position of the graph, such as `{"S2": 10}`.

    Raises:
        ValueError: if scores and circuit have different graphs, or a position has no token of its
            own.
    """
    graph = circuit.graph
    if scores.graph != graph:
        raise ValueError(f"{file}: the scores belong to {scores.graph}, the circuit to {graph}.")
    ctx_idx = _ctx_idx(graph, len(tokens), positions or {}, file)
    nodes, links = _nodes_and_links(circuit, scores, ctx_idx)
    content = {
        "metadata": {
            "slug": slug,
            "scan": scan,
            "transcoder_list": [],
            "prompt_tokens": list(tokens),
            "prompt": prompt,
            "schema_version": 1,
            "info": {
                "description": DESCRIPTION
                + (WITH_POSITIONS if graph.positions else WITHOUT_POSITIONS),
                "generator": {"name": "mechinterp", "version": package_version("mechinterp")},
            },
            "generation_settings": {
                "graph": dataclasses.asdict(graph),
                "requested": circuit.requested,
                "scores": plain(scores.per_pair.attrs, file),
                "version": VERSION,
                "seal": NOT_SEALED,
            },
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": nodes,
        "links": links,
    }
    return write_json(content, file)


@checks_arguments
def read_neuronpedia(file: str | Path, graph: Graph) -> tuple[EdgeScores, Circuit]:
    """Read what `write_neuronpedia` wrote: mean scores, as of one pair, NaN outside the circuit.

    Raises:
        ValueError: if another program wrote the file, its graph is another, or it is damaged.
    """
    content = read_whole(Path(file), JSON_BYTES_PER_BYTE)
    found = parse_json(content, file)
    try:
        settings, edges = found["metadata"]["generation_settings"], _edges(found["links"], file)
        own, attrs = graph_of(settings["graph"], file), dict(settings["scores"])
        requested = settings["requested"]
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} was not written by write_neuronpedia: it has no {error}. Links between "
            f"features of transcoders are not edges between parts of the model."
        ) from error
    check_seal(content, file, is_new="version" in settings)
    if requested is not None and type(requested) is not int:
        raise ValueError(f'{file}: "requested" is {requested!r}, neither a number nor null.')
    if own != graph:
        raise ValueError(f"{file} is of {own}, not of {graph}: give the graph of that model.")
    circuit = dataclasses.replace(circuit_of(graph, list(edges), file), requested=requested)
    values = np.full((*graph.edges.shape, 1), np.nan)
    for name, score in edges.items():
        values[graph.edge(name)] = np.nan if score is None else score
    table = EdgeScores.from_array(graph, values).per_pair.assign_attrs(attrs)
    return EdgeScores(graph, table), circuit


def _edges(links: Sequence[Mapping[str, Any]], file: str | Path) -> dict[str, float | None]:
    """The score of each edge, which is the same in every link that has it."""
    found: dict[str, float | None] = {}
    for link in links:
        for name, score in link["edges"].items():
            if type(score) not in (float, int, type(None)) or math.isinf(score or 0):
                raise ValueError(f"{file}: the score of {name} is {score!r}, not a finite number.")
            if found.setdefault(name, score) != score:
                raise ValueError(f"{file}: {name} has two scores, {found[name]} and {score}.")
    return found


def _ctx_idx(graph: Graph, n_tokens: int, named: Mapping[str, int], file: str | Path) -> list[int]:
    """For each position of the graph the index of the token at which it is drawn."""
    if n_tokens == 0:
        raise ValueError(f"{file}: tokens is empty; give those of the prompt.")
    found = []
    for label in graph.positions[:-1]:
        index = named.get(label, int(label) if label.isdecimal() else None)
        if index is None or not 0 <= index < n_tokens or index in found:
            raise ValueError(
                f"{file}: position {label!r} is at token {index}; it needs a token of its own, 0 "
                f"to {n_tokens - 1}. Give positions={{{label!r}: the index of its token}}."
            )
        found.append(index)
    return [*found, n_tokens - 1]


class _Link(TypedDict):
    source: str
    target: str
    weight: float
    edges: dict[str, float | None]


def _nodes_and_links(
    circuit: Circuit, scores: EdgeScores, ctx_idx: list[int]
) -> tuple[list[dict[str, object]], list[_Link]]:
    """The nodes and links of the file, in the order of the edges."""
    graph = circuit.graph
    nodes: dict[tuple[str, int], dict[str, object]] = {}
    links: dict[tuple[str, str], _Link] = {}
    for writer, reader, pos in np.argwhere(circuit.mask).tolist():
        score = float(scores.mean[writer, reader, pos])
        for end in _ends(circuit, reader, pos, ctx_idx):
            here, there = (
                str(nodes.setdefault((name, at), _node(graph, name, at, ctx_idx))["node_id"])
                for name, at in ((graph.writers[writer], pos), end)
            )
            link = links.setdefault(
                (here, there), {"source": here, "target": there, "weight": 0.0, "edges": {}}
            )
            link["weight"] += 0.0 if np.isnan(score) else score
            link["edges"][graph.edge_name(writer, reader, pos)] = None if np.isnan(score) else score
    return list(nodes.values()), list(links.values())


def _ends(circuit: Circuit, reader: int, pos: int, ctx_idx: list[int]) -> list[tuple[str, int]]:
    """The nodes into which an edge is drawn: keys and values act on a head at later positions."""
    graph, ends = circuit.graph, []
    fixed = graph.inputs[reader].kind not in KINDS[1:]
    elsewhere = bool(graph.positions) and graph.positions[pos] == ELSEWHERE
    for writer in np.flatnonzero(graph.feeds[reader]).tolist():
        written = np.flatnonzero(circuit.mask[writer].any(0)).tolist()
        later = [at for at in written if elsewhere or ctx_idx[at] >= ctx_idx[pos]]
        places = [pos] if fixed else later or [pos]
        ends += [(graph.writers[writer], at) for at in places]
    return ends or [("logits", pos)]


def _node(graph: Graph, name: str, pos: int, ctx_idx: list[int]) -> dict[str, object]:
    """A node of the format, whose feature is the index of the head; the MLP comes after all heads.

    The label of a logit stays empty, because Neuronpedia looks for a probability in it.
    """
    label = graph.positions[pos] if graph.positions else ""
    # "elsewhere" may share its token with a named position, but is a node of its own.
    index = (graph.n_heads + 1) * (label == ELSEWHERE)
    ctx, layer, front = ctx_idx[pos], str(graph.n_layers + 1), "L"
    feature, kind = index, "logit"
    part = None if name == "logits" else parse_node(name)
    if part is not None and part.layer is None:
        layer, front, feature, kind = "E", "E", ctx, "embedding"
    elif part is not None and part.layer is not None:
        index += graph.n_heads if part.head is None else part.head
        layer = front = str(part.layer)
        feature = _cantor(part.layer, index)
        kind = "mlp" if part.head is None else "attention head"
    return {
        "node_id": f"{layer}_{index}_{ctx}",
        "feature": feature,
        "layer": layer,
        "ctx_idx": ctx,
        "feature_type": kind,
        "token_prob": 0.0,
        "is_target_logit": kind == "logit",
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{front}_{index}-{ctx}",
        "clerp": "" if kind == "logit" else f"{name} @{label}" if label else name,
        "influence": None,
        "activation": None,
    }


def _cantor(layer: int, index: int) -> int:
    """One number from which readers of the format recover layer and index."""
    return (layer + index) * (layer + index + 1) // 2 + index
