"""What is written comes back the same, and what is damaged is told by the name of its file."""

import json
import time

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.circuits import (
    Circuit,
    Contrast,
    EdgeScores,
    Graph,
    eap,
    eap_ig,
    read_circuit,
    read_scores,
    write_circuit,
    write_scores,
)

GRAPH = Graph(2, 2, 2, has_mlps=True, is_parallel=False)

graphs = st.builds(
    lambda n_groups, shared, positions, **sizes: Graph(
        n_heads=n_groups * shared,
        n_key_readers=n_groups,
        positions=(*positions, "elsewhere") if positions else (),
        **sizes,
    ),
    n_groups=st.integers(1, 2),
    shared=st.integers(1, 2),
    n_layers=st.integers(1, 3),
    has_mlps=st.booleans(),
    is_parallel=st.booleans(),
    positions=st.lists(st.text(min_size=1, max_size=4), max_size=2, unique=True).filter(
        lambda labels: "elsewhere" not in labels
    ),
)
attributes = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=4,
    ),
    max_size=3,
)


def some_edges(graph, seed, requested=None):
    draw = np.random.default_rng(seed)
    return Circuit(graph, graph.edges & (draw.random(graph.edges.shape) < 0.4), requested)


def some_scores(graph, seed, n_pairs=2, dtype=np.float64, **attrs):
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(*graph.edges.shape, n_pairs)).astype(dtype)
    values[draw.random(values.shape) < 0.2] = np.nan
    return EdgeScores.from_array(graph, values, **attrs)


@given(graphs, st.integers(0, 1000), st.none() | st.integers(0, 99))
def test_circuits_come_back(tmp_path_factory, graph, seed, requested):
    file = tmp_path_factory.mktemp("circuits") / "found.json"
    written = some_edges(graph, seed, requested)
    found = read_circuit(write_circuit(written, file))
    assert (found, found.requested) == (written, requested)
    assert [each.name for each in file.parent.iterdir()] == ["found.json"]


@given(graphs, st.integers(0, 1000), st.sampled_from([np.float32, np.float64]), attributes)
def test_scores_come_back(tmp_path_factory, graph, seed, dtype, attrs):
    file = tmp_path_factory.mktemp("scores") / "found.safetensors"
    made = some_scores(graph, seed, dtype=dtype)
    written = EdgeScores(graph, made.per_pair.assign_attrs(attrs))
    found = read_scores(write_scores(written, file))
    assert found.graph == graph
    xr.testing.assert_identical(found.per_pair, written.per_pair)
    assert found.per_pair.dtype == dtype
    assert found.per_pair.values.tobytes() == written.per_pair.values.tobytes()


def test_labels_of_pairs_come_back(tmp_path):
    per_pair = some_scores(GRAPH, 0, n_pairs=3).per_pair.assign_coords(
        pair=["ioi-7", "ioi-9", "ioi-12"], template=("pair", [0, 0, 1])
    )
    found = read_scores(write_scores(EdgeScores(GRAPH, per_pair), tmp_path / "scores"))
    xr.testing.assert_identical(found.per_pair, per_pair)


def test_what_is_computed_comes_back(tmp_path, model, pair, metric):
    graph = Graph.from_model(model, positions=("S2", 6))
    contrast = Contrast.from_pair(model, pair, metric, graph)
    for scores in (eap(contrast), eap_ig(contrast, steps=2)):
        found = read_scores(write_scores(scores, tmp_path / "scores"))
        xr.testing.assert_identical(found.per_pair, scores.per_pair)


def test_attributes_that_json_changes_are_refused(tmp_path, refuses):
    scores = some_scores(GRAPH, 0, sizes=(1, 2))
    refuses(
        lambda: write_scores(scores, tmp_path / "a"),
        "a: (1, 2) in the attributes",
        "a tuple",
        "a list",
    )
    assert not (tmp_path / "a").exists()


def test_no_folder(tmp_path, refuses):
    refuses(
        lambda: write_circuit(Circuit.full(GRAPH), tmp_path / "b" / "c"),
        "does not exist",
        "Create it",
    )


@pytest.mark.parametrize(
    ("change", "pieces"),
    [
        (lambda text: text[: len(text) // 2], ["is not JSON, or is cut off"]),
        (lambda text: "[1, 2]", ["holds a JSON list"]),
        (
            lambda text: text.replace('"circuit"', '"graph"', 1),
            ["not written by write_circuit", "read_mib"],
        ),
        (lambda text: text.replace('"version": 1', '"version": 9'), ["of this version"]),
        (lambda text: text.replace("a1.h1->logits", "a7.h1->logits"), ["'a7.h1' is not one of"]),
        (lambda text: text.replace("a1.h1->logits", "m1->a0.h0<q>"), ["does not write before"]),
        (lambda text: text.replace('"a1.h1->logits"', "7"), ["not a list of names"]),
        (lambda text: text.replace('"requested": 5', '"requested": "5"'), ["requested", "null"]),
        (lambda text: text.replace('"n_layers": 2', '"n_layers": "2"'), ["n_layers of the graph"]),
        (lambda text: text.replace('"n_heads": 2', '"n_heads": -2'), ["n_heads", "is -2"]),
        (lambda text: text.replace('"positions": []', '"positions": "S2"'), ["positions", "'S2'"]),
        (lambda text: text.replace('"has_mlps": true, ', ""), ["a graph needs", "has_mlps"]),
    ],
)
def test_damaged_circuits(tmp_path, refuses, change, pieces):
    file = write_circuit(Circuit(GRAPH, GRAPH.edges, requested=5), tmp_path / "found.json")
    text = file.read_text()
    file.write_text(text.replace("a1.h1->logits", "a0.h1->logits"))
    refuses(lambda: read_circuit(file), "found.json is damaged", kind=ValueError)
    found = json.loads(text) | {"version": 1}  # as 0.2 wrote it
    del found["seal"]
    text = json.dumps(found)
    assert change(text) != text
    file.write_text(change(text))
    refuses(lambda: read_circuit(file), "found.json", *pieces, kind=ValueError)


def test_damaged_scores(tmp_path, refuses):
    file = write_scores(some_scores(GRAPH, 0), tmp_path / "found.safetensors")
    whole = file.read_bytes()
    other = json.dumps({"cfg": {}, "nodes": {}, "edges": {}}).encode()
    longer = whole.replace(b'\\"n_layers\\": 2', b'\\"n_layers\\": 3')
    assert longer != whole
    for content in (b"", whole[:100], whole[:-8], other, longer):
        file.write_bytes(content)
        refuses(lambda: read_scores(file), "found.safetensors", "write_scores", kind=ValueError)


def test_sizes_are_not_taken_on_trust(tmp_path, refuses):
    """G3: 2,000 layers in a small file took 6 GB."""
    file = write_circuit(Circuit.full(GRAPH), tmp_path / "found.json")
    found = json.loads(file.read_text()) | {"version": 1}
    del found["seal"]
    for sizes in ({"n_layers": 2000, "n_heads": 12, "n_key_readers": 12}, {"n_layers": 10**9}):
        began = time.perf_counter()
        file.write_text(json.dumps({**found, "graph": found["graph"] | sizes}))
        refuses(lambda: read_circuit(file), "found.json", "pairs of a writer and a reader", "most")
        assert time.perf_counter() - began < 1
    file.write_text(json.dumps({**found, "graph": found["graph"] | {"n_key_readers": 3}}))
    refuses(lambda: read_circuit(file), "3 key inputs do not divide 2 heads")


def test_files_without_a_seal_are_read_and_said(tmp_path, caplog):
    """A file of 0.2 is read, with a word that a damaged number in it cannot be told."""
    circuit = Circuit(GRAPH, GRAPH.edges, requested=5)
    file = write_circuit(circuit, tmp_path / "found.json")
    found = json.loads(file.read_text())
    del found["seal"]
    file.write_text(json.dumps(found | {"version": 1}))
    assert read_circuit(file) == circuit
    assert "found.json has no seal" in caplog.text
    file.write_text(json.dumps(found))
    with pytest.raises(ValueError, match="has no seal"):
        read_circuit(file)
