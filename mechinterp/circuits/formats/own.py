"""Our own files, without loss: a circuit as JSON, scores as one safetensors file.

Reading gives back what was written: positions, the values of each pair, NaN, attributes. A file is
written whole or not at all, with a seal, a hash of itself: a damaged one is refused. Formats of
other programs are in `mib`, `dot` and `neuronpedia`.

>>> import tempfile
>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, exact_edges, top_n
>>> from mechinterp.circuits import read_circuit, read_scores, write_circuit, write_scores
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> scores = exact_edges(Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE"))))
>>> with tempfile.TemporaryDirectory() as folder:
...     circuit_again = read_circuit(write_circuit(top_n(scores, 3), f"{folder}/circuit.json"))
...     again = read_scores(write_scores(scores, f"{folder}/scores.safetensors"))
>>> circuit_again == top_n(scores, 3), again.per_pair.identical(scores.per_pair)
(True, True)
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
import xarray as xr

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.graph import Graph
from mechinterp.core.arguments import checks_arguments
from mechinterp.storage.jsonl import located
from mechinterp.storage.seals import NOT_SEALED, check_seal, metadata_of, seal, sealed_tensors
from mechinterp.storage.whole_files import (
    JSON_BYTES_PER_BYTE,
    check_memory,
    read_whole,
    write_whole,
)

VERSION = 2
"""From 2 on a file has a seal; files of version 1, which 0.1 and 0.2 wrote, are read too."""

_MOST_CELLS = 1 << 30
_DTYPE = re.compile(r"bool|object|u?int\d+|float\d+|<U\d{1,5}")


@checks_arguments
def write_circuit(circuit: Circuit, file: str | Path) -> Path:
    """Write a circuit as JSON: sizes of its graph, names of its edges, the number requested."""
    content = {
        "kind": "circuit",
        "version": VERSION,
        "graph": dataclasses.asdict(circuit.graph),
        "requested": circuit.requested,
        "edges": list(circuit.names),
        "seal": NOT_SEALED,
    }
    return write_json(content, file)


@checks_arguments
def read_circuit(file: str | Path) -> Circuit:
    """Read the circuit that `write_circuit` wrote.

    Raises:
        ValueError: if the file holds something else, or is damaged.
    """
    content = read_whole(Path(file), JSON_BYTES_PER_BYTE)
    found = parse_json(content, file)
    if found.get("kind") != "circuit" or found.get("version") not in (1, VERSION):
        raise ValueError(
            f"{file} was not written by write_circuit of this version. For a file of EAP-IG or "
            f"MIB use read_mib, for one of Neuronpedia read_neuronpedia."
        )
    check_seal(content, file, is_new=found["version"] == VERSION)
    names, requested = found.get("edges"), found.get("requested")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'{file}: "edges" is not a list of names such as "m0->logits".')
    if requested is not None and type(requested) is not int:
        raise ValueError(f'{file}: "requested" is {requested!r}, neither a number nor null.')
    made = circuit_of(graph_of(found.get("graph"), file), names, file)
    return dataclasses.replace(made, requested=requested)


@checks_arguments
def write_scores(scores: EdgeScores, file: str | Path) -> Path:
    """Write scores as safetensors: tensor "score", [edge, pair], edges in the order of the graph.

    The header holds the graph, the labels and the attributes, as JSON.

    Raises:
        ValueError: if an attribute or a coordinate is not text, a number, a list or a dict.
    """
    table = scores.per_pair
    header = {
        "kind": "edge scores",
        "version": VERSION,
        "graph": dataclasses.asdict(scores.graph),
        "name": table.name,
        "attrs": plain(table.attrs, file),
        "labels": {
            str(name): [list(coord.dims), str(coord.dtype), plain(coord.values.tolist(), file)]
            for name, coord in table.coords.items()
        },
    }
    values = torch.from_numpy(np.ascontiguousarray(table.values[scores.graph.edges]))
    content = sealed_tensors({"score": values}, {"edge scores": json.dumps(header)})
    return write_file(content, file)


@checks_arguments
def read_scores(file: str | Path) -> EdgeScores:
    """Read the scores that `write_scores` wrote.

    Raises:
        ValueError: if the file holds something else, or is damaged.
    """
    content = read_whole(Path(file), 2)
    try:
        header = json.loads(metadata_of(content)["edge scores"])
        graph = graph_of(header["graph"], file)
        check_seal(content, file, is_new=header["version"] != 1)
        values = safetensors.numpy.load(content)["score"]
        if values.ndim != 2 or len(values) != graph.n_edges or values.dtype.kind != "f":
            raise ValueError(f"a score of {list(values.shape)} is not one for each edge and pair")
        check_memory(graph.n_cells * values.shape[1] * values.itemsize, f"{file}, as an array,")
        full = np.full((*graph.edges.shape, values.shape[1]), np.nan, values.dtype)
        full[graph.edges] = values
        labels = {
            name: (dims, _label(label, kind))
            for name, (dims, kind, label) in header["labels"].items()
        }
        dims = ("writer", "reader", "pos", "pair")
        table = xr.DataArray(full, labels, dims, header["name"], header["attrs"])
    except (
        safetensors.SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise ValueError(
            f"{file} was not written by write_scores, or is damaged: {error}. Write it again; for "
            f"files of EAP-IG and MIB use read_mib."
        ) from error
    return EdgeScores(graph, table)


def _label(values: object, kind: str) -> np.ndarray:
    if not _DTYPE.fullmatch(kind):
        raise ValueError(f"{kind!r} is no dtype of a label")
    return np.array(values, np.dtype(kind))


def graph_of(found: object, file: str | Path) -> Graph:
    """The graph with these fields, which were read from a file."""
    kinds = {field.name: field.type for field in dataclasses.fields(Graph)}
    if not isinstance(found, dict) or set(found) != set(kinds):
        raise ValueError(f"{file}: a graph needs {', '.join(kinds)}; the file has {found!r}.")
    for name, value in found.items():
        right = type(value) is kinds[name] and (kinds[name] is bool or value > 0)
        if name == "positions":
            right = type(value) is list and all(type(label) is str for label in value)
        if not right:
            raise ValueError(f"{file}: {name} of the graph is {value!r}.")
    graph = Graph(**{**found, "positions": tuple(found["positions"])})
    check_graph(graph, file)
    return graph


def check_graph(graph: Graph, file: str | Path) -> None:
    """Check the sizes of a graph that a file names, before arrays of them are made.

    Raises:
        ValueError: if no model has them, or they are too large.
    """
    if graph.n_heads % graph.n_key_readers:
        raise ValueError(
            f"{file}: {graph.n_key_readers} key inputs do not divide {graph.n_heads} heads."
        )
    if graph.n_cells > _MOST_CELLS:
        raise ValueError(
            f"{file}: a graph of {graph.n_layers} layers with {graph.n_heads} heads has "
            f"{graph.n_cells:,} pairs of a writer and a reader; at most {_MOST_CELLS:,} are read."
        )
    check_memory(3 * graph.n_cells, f"{file}, a graph of {graph.n_edges:,} edges,")


def circuit_of(graph: Graph, names: list[str], file: str | Path) -> Circuit:
    """The circuit of these edges; the error for a wrong one names the file."""
    try:
        return Circuit.from_edges(graph, names)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def plain(value: object, file: str | Path) -> object:
    """The value, after a check that JSON gives it back unchanged."""
    if isinstance(value, Mapping):
        if all(type(key) is str for key in value):
            return {key: plain(inner, file) for key, inner in value.items()}
    elif type(value) is list:
        return [plain(inner, file) for inner in value]
    elif value is None or type(value) in (str, int, float, bool):
        return value
    raise ValueError(
        f"{file}: {value!r} in the attributes or coordinates of the scores is a "
        f"{type(value).__name__}, which JSON does not keep. Make it text, a number, or a list or "
        f"dict of these."
    )


def parse_json(content: bytes, file: str | Path) -> dict[str, Any]:
    """The one object that a JSON file holds, each key of which stands there once."""
    try:
        found = json.loads(content, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is not JSON, or is cut off: {error}. Write or download it again."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds a JSON {type(found).__name__}; an object is needed.")
    return found


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def write_json(content: Mapping[str, object], file: str | Path) -> Path:
    """Write an object as standard JSON, which has no NaN, with a seal where it has `NOT_SEALED`."""
    try:
        text = json.dumps(content, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{file}: JSON has no NaN and no infinity: {error}.") from error
    with located(str(file)):
        return write_file(seal(text.encode()), file)


def write_file(content: bytes, file: str | Path) -> Path:
    """Write a whole file into an existing folder."""
    path = Path(file)
    if not path.parent.is_dir():
        raise ValueError(f"{file}: the folder {path.parent} does not exist. Create it first.")
    write_whole(path, content)
    return path
