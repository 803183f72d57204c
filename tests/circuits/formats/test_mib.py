"""EAP-IG's and MIB's files, as typed by hand from their descriptions, and back."""

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.circuits import Circuit, EdgeScores, Graph, read_mib, write_mib

GRAPH = Graph(2, 2, 2, has_mlps=True, is_parallel=False)
INSIDE = {"input->a0.h1<v>": 0.5, "a0.h1->a1.h0<k>": -0.25, "a1.h0->logits": 2.0}
EDGES = """
input->a0.h0<q> input->a0.h0<k> input->a0.h0<v> input->a0.h1<q> input->a0.h1<k> input->a0.h1<v>
input->m0 a0.h0->m0 a0.h1->m0
input->a1.h0<q> input->a1.h0<k> input->a1.h0<v> input->a1.h1<q> input->a1.h1<k> input->a1.h1<v>
a0.h0->a1.h0<q> a0.h0->a1.h0<k> a0.h0->a1.h0<v> a0.h0->a1.h1<q> a0.h0->a1.h1<k> a0.h0->a1.h1<v>
a0.h1->a1.h0<q> a0.h1->a1.h0<k> a0.h1->a1.h0<v> a0.h1->a1.h1<q> a0.h1->a1.h1<k> a0.h1->a1.h1<v>
m0->a1.h0<q> m0->a1.h0<k> m0->a1.h0<v> m0->a1.h1<q> m0->a1.h1<k> m0->a1.h1<v>
input->m1 a0.h0->m1 a0.h1->m1 m0->m1 a1.h0->m1 a1.h1->m1
input->logits a0.h0->logits a0.h1->logits m0->logits a1.h0->logits a1.h1->logits m1->logits
"""
NODES = ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1", "logits"]
USED = {"input", "a0.h1", "a1.h0", "logits"}


def current():
    """As EAP-IG has written since 2025, and as MIB takes it."""
    return {
        "cfg": {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 16},
        "nodes": {name: {"in_graph": name in USED} for name in NODES},
        "edges": {
            name: {"score": INSIDE.get(name, 0.0), "in_graph": name in INSIDE}
            for name in EDGES.split()
        },
    }


def of_2024():
    """Nodes are true or false, no d_model, a score may be null; the first also has n_pos."""
    found = current()
    del found["cfg"]["d_model"]
    found["nodes"] = {name: value["in_graph"] for name, value in found["nodes"].items()}
    found["edges"]["m0->m1"]["score"] = None
    return {**found, "n_pos": None}


def put(tmp_path, content):
    file = tmp_path / "ioi.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


@pytest.mark.parametrize("version", [current, of_2024])
def test_files_typed_by_hand(tmp_path, version):
    scores, circuit = read_mib(put(tmp_path, version()), graph=GRAPH)
    assert circuit == Circuit.from_edges(GRAPH, list(INSIDE))
    assert {name: scores[name] for name in INSIDE} == INSIDE
    assert scores["input->m0"] == 0
    assert np.isnan(scores["m0->m1"]) == (version is of_2024)
    assert scores.per_pair.sizes["pair"] == 1
    assert scores.per_pair.attrs == {"file": "ioi.json"}


def test_written_as_the_current_version(tmp_path):
    values = np.zeros((*GRAPH.edges.shape, 1))
    for name, score in INSIDE.items():
        values[GRAPH.edge(name)] = score
    scores = EdgeScores.from_array(GRAPH, values)
    file = write_mib(
        Circuit.from_edges(GRAPH, list(INSIDE)), tmp_path / "a.json", d_model=16, scores=scores
    )
    found = json.loads(file.read_text())
    assert set(found.pop("mechinterp")) == {"version", "seal"}
    assert found == current()


def test_sizes_of_a_parallel_model(tmp_path):
    content = current()
    content["cfg"]["parallel_attn_mlp"] = True
    for name in ("a0.h0->m0", "a0.h1->m0", "a1.h0->m1", "a1.h1->m1"):
        del content["edges"][name]
    scores, _ = read_mib(put(tmp_path, content))
    assert scores.graph == Graph(2, 2, 2, has_mlps=True, is_parallel=True)


def test_scores_of_nodes_and_circuits_without_scores(tmp_path):
    content = current()
    content["nodes"]["m0"]["score"] = 0.75
    scores, _ = read_mib(put(tmp_path, content))
    assert scores.per_pair.attrs["node_scores"] == {"m0": 0.75}
    for edge in content["edges"].values():
        del edge["score"]
    scores, circuit = read_mib(put(tmp_path, content))
    assert circuit == Circuit.from_edges(GRAPH, list(INSIDE))
    assert np.isnan(scores.mean).all()


@given(st.integers(1, 3), st.integers(1, 3), st.booleans(), st.booleans(), st.integers(0, 999))
def test_round_trip(tmp_path_factory, n_layers, n_heads, has_mlps, parallel, seed):
    graph = Graph(n_layers, n_heads, n_heads, has_mlps, parallel)
    draw = np.random.default_rng(seed)
    scores = EdgeScores.from_array(graph, draw.normal(size=(*graph.edges.shape, 3)))
    written = Circuit(graph, graph.edges & (draw.random(graph.edges.shape) < 0.3))
    file = tmp_path_factory.mktemp("mib") / "a.json"
    found, circuit = read_mib(write_mib(written, file, d_model=5, scores=scores), graph=graph)
    assert circuit == written
    np.testing.assert_array_equal(found.mean, scores.mean)


def test_what_the_format_cannot_hold(tmp_path, refuses):
    file = tmp_path / "a.json"
    at_positions = Graph(2, 2, 2, True, False, positions=("end", "elsewhere"))
    grouped = Graph(2, 4, 2, has_mlps=True, is_parallel=False)
    for graph, what in ((at_positions, "positions"), (grouped, "key-value heads")):
        full = Circuit.full(graph)
        refuses(lambda full=full: write_mib(full, file, d_model=5), what, "Graph.from_model(model)")
    values = np.ones((*GRAPH.edges.shape, 1))
    values[GRAPH.edge("m0->m1")] = np.nan
    partial, full = EdgeScores.from_array(GRAPH, values), Circuit.full(GRAPH)
    refuses(lambda: write_mib(full, file, d_model=5, scores=partial), "m0->m1", "set these to 0")
    other = Circuit.full(Graph(3, 2, 2, has_mlps=True, is_parallel=False))
    refuses(lambda: write_mib(other, file, d_model=5, scores=partial), "n_layers=2", "n_layers=3")
    assert not file.exists()


def changed(**parts):
    return {**current(), **parts}


def with_edge(name, value):
    return changed(edges={**current()["edges"], name: value})


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        (json.dumps(current())[:-400], ["not JSON, or is cut off"]),
        ("[]", ["a JSON list"]),
        ({"kind": "circuit"}, ['no object "cfg"']),
        (changed(cfg={"n_layers": 2}), ["cfg needs n_layers, n_heads"]),
        (changed(cfg={**current()["cfg"], "n_layers": 3}), ["46 edges", "100", "input->a2.h0<q>"]),
        (changed(cfg={**current()["cfg"], "n_layers": 1}), ["no node 'a1.h0'"]),
        (with_edge("a0.h1->a1.h9<q>", {}), ["a0.h1->a1.h9<q>", "n_heads=2", "not one of"]),
        (with_edge("m0->m1", {"score": "1", "in_graph": True}), ["'m0->m1' is", "number"]),
        (with_edge("m0->m1", {"score": 1.0, "in_graph": 1}), ["'m0->m1' is", "true or"]),
        (with_edge("m0->m1", 0.5), ["'m0->m1' is 0.5"]),
        (changed(edges={"m0->m1": {"score": 1.0, "in_graph": True}}), ["1 edges", "46", "score 0"]),
        (changed(n_pos=7), ["by position", "without positions"]),
        (changed(neurons={"m0": [True]}), ["by neuron", "by edge"]),
        (
            changed(nodes={"m0": {"in_graph": True, "neurons_scores": [1.0]}}),
            ["by neuron", "by edge"],
        ),
    ],
)
def test_files_that_are_wrong(tmp_path, refuses, content, pieces):
    file = put(tmp_path, content)
    refuses(lambda: read_mib(file), "ioi.json", *pieces, kind=ValueError)


def test_another_models_file(tmp_path, refuses):
    file = put(tmp_path, current())
    for other in (Graph(3, 2, 2, True, False), Graph(2, 2, 1, True, False)):
        refuses(lambda other=other: read_mib(file, graph=other), "ioi.json", "of this model")


@pytest.mark.parametrize("name", ["ioi.pt", "ioi.json"])
def test_pickles_are_not_read(tmp_path, refuses, name):
    file = tmp_path / name
    file.write_bytes(b"PK\x03\x04")
    refuses(lambda: read_mib(file), name, "is a pickle", "to_json")


def test_neurons_that_are_null_are_none(tmp_path):
    """C3: a file with `"neurons": null` was refused."""
    content = current()
    content["neurons"] = None
    for node in content["nodes"].values():
        node["neurons"] = None
    assert read_mib(put(tmp_path, content))[1] == Circuit.from_edges(GRAPH, list(INSIDE))


def test_sizes_are_not_taken_on_trust(tmp_path, refuses):
    """G3: 2,000 layers in a small file took 6 GB."""
    content = current()
    for n_layers in (3, 2000, 10**9):
        content["cfg"]["n_layers"] = n_layers
        began = time.perf_counter()
        refuses(lambda: read_mib(put(tmp_path, content)), "edges; a graph of its sizes has")
        assert time.perf_counter() - began < 1


def test_a_score_that_is_infinite_is_refused(tmp_path, refuses):
    content = current()
    content["edges"]["m0->m1"]["score"] = float("inf")
    refuses(lambda: read_mib(put(tmp_path, content)), "m0->m1", "not finite")
