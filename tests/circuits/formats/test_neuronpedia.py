"""Attribution graphs: the rules of the published schema, and what comes back."""

import json
from numbers import Real

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.circuits import (
    Circuit,
    EdgeScores,
    Graph,
    read_mib,
    read_neuronpedia,
    write_mib,
    write_neuronpedia,
)

GRAPH = Graph(2, 2, 2, has_mlps=True, is_parallel=False)
AT = Graph(2, 2, 2, has_mlps=True, is_parallel=False, positions=("S2", "3", "elsewhere"))
TOKENS = ["When", " Mary", " and", " John", " went"]
PROMPT = {"slug": "ioi", "scan": "gpt2-small", "prompt": "".join(TOKENS), "tokens": TOKENS}

# The types and required keys of Neuronpedia's schema 1.0.0, and those that circuit-tracer's models
# (schema version 1) ask for besides; a key that stands here may not be of another type.
METADATA = {
    "slug": str,
    "scan": str,
    "transcoder_list": list,
    "prompt_tokens": list,
    "prompt": str,
    "schema_version": int,
    "info": dict,
    "generation_settings": dict,
}
Q_PARAMS = {"pinnedIds": list, "supernodes": list, "linkType": str, "clickedId": str, "sg_pos": str}
NODE = {
    "node_id": str,
    "feature": int,
    "layer": str,
    "ctx_idx": int,
    "feature_type": str,
    "token_prob": float,
    "is_target_logit": bool,
    "run_idx": int,
    "reverse_ctx_idx": int,
    "jsNodeId": str,
    "clerp": str,
    "influence": (Real, type(None)),
    "activation": (Real, type(None)),
}
LINK = {"source": str, "target": str, "weight": float}


def keeps(found, rules):
    assert set(rules) <= set(found)
    for key, kind in rules.items():
        assert isinstance(found[key], kind), (key, found[key])


def checked(file):
    """The file, by the rules of those who read it."""
    found = json.loads(file.read_text(), parse_constant=lambda word: pytest.fail(word))
    assert set(found) == {"metadata", "qParams", "nodes", "links"}
    keeps(found["metadata"], METADATA)
    assert all(isinstance(token, str) for token in found["metadata"]["prompt_tokens"])
    assert isinstance(found["metadata"]["info"]["description"], str)
    keeps(found["qParams"], Q_PARAMS)
    for node in found["nodes"]:
        keeps(node, NODE)
        assert 0 <= node["ctx_idx"] < len(found["metadata"]["prompt_tokens"])
        # Neuronpedia's page splits the label of a logit at "(p=" unless it is empty
        assert node["feature_type"] != "logit" or node["clerp"] == ""
    ids = [node["node_id"] for node in found["nodes"]]
    assert len(set(ids)) == len(ids) == len({node["jsNodeId"] for node in found["nodes"]})
    for link in found["links"]:
        keeps(link, LINK)
        assert {link["source"], link["target"]} <= set(ids)
    ends = [(link["source"], link["target"]) for link in found["links"]]
    assert len(set(ends)) == len(ends)
    return found


def scored(graph, seed, share=0.3):
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(*graph.edges.shape, 2))
    values[draw.random(graph.edges.shape) < 0.1] = np.nan
    mask = graph.edges & (draw.random(graph.edges.shape) < share)
    return EdgeScores.from_array(graph, values, unit="logits", steps=5), Circuit(
        graph, mask, requested=9
    )


@given(st.sampled_from([GRAPH, AT, Graph(3, 4, 2, False, True)]), st.integers(0, 999))
def test_what_is_written_keeps_the_schema_and_comes_back(tmp_path_factory, graph, seed):
    file = tmp_path_factory.mktemp("neuronpedia") / "ioi.json"
    scores, circuit = scored(graph, seed)
    where = {"S2": 1} if graph.positions else {}
    write_neuronpedia(scores, circuit, file, positions=where, **PROMPT)
    checked(file)
    found, again = read_neuronpedia(file, graph)
    assert (again, again.requested) == (circuit, 9)
    np.testing.assert_array_equal(found.mean, np.where(circuit.mask, scores.mean, np.nan))
    assert found.per_pair.attrs == scores.per_pair.attrs


def of(graph, **edges):
    values = np.full((*graph.edges.shape, 1), np.nan)
    for name, score in edges.items():
        values[graph.edge(name)] = score
    return EdgeScores.from_array(graph, values), Circuit.from_edges(graph, list(edges))


def test_without_positions_all_is_at_the_last_token(tmp_path):
    edges = {"input->a0.h1<q>": 1.0, "input->a0.h1<k>": -0.25, "a0.h1->m1": 2.0, "m1->logits": 3.0}
    file = tmp_path / "a.json"
    found = checked(write_neuronpedia(*of(GRAPH, **edges), file, **PROMPT))
    nodes = {node["node_id"]: node for node in found["nodes"]}
    assert {key: (node["clerp"], node["feature_type"]) for key, node in nodes.items()} == {
        "E_0_4": ("input", "embedding"),
        "0_1_4": ("a0.h1", "attention head"),
        "1_2_4": ("m1", "mlp"),
        "3_0_4": ("", "logit"),
    }
    assert nodes["1_2_4"]["feature"] == (1 + 2) * (1 + 2 + 1) // 2 + 2
    assert {node["ctx_idx"] for node in nodes.values()} == {4}
    assert "drawn at the last token" in found["metadata"]["info"]["description"]
    assert found["links"][0] == {
        "source": "E_0_4",
        "target": "0_1_4",
        "weight": 0.75,
        "edges": {"input->a0.h1<q>": 1.0, "input->a0.h1<k>": -0.25},
    }


def test_keys_reach_the_head_where_it_writes(tmp_path):
    edges = {
        "a0.h0->a1.h1<k>@S2": 1.0,
        "a0.h0->a1.h1<k>@elsewhere": 4.0,
        "a0.h0->a1.h1<q>@3": 2.0,
        "a1.h1->logits@3": 3.0,
    }
    file = tmp_path / "a.json"
    found = checked(write_neuronpedia(*of(AT, **edges), file, positions={"S2": 1}, **PROMPT))
    labels = {node["node_id"]: node["clerp"] for node in found["nodes"]}
    joined = {
        (labels[link["source"]], labels[link["target"]]): link["weight"] for link in found["links"]
    }
    assert joined == {
        ("a0.h0 @S2", "a1.h1 @3"): 1.0,
        ("a0.h0 @elsewhere", "a1.h1 @3"): 4.0,
        ("a0.h0 @3", "a1.h1 @3"): 2.0,
        ("a1.h1 @3", ""): 3.0,
    }
    places = {node["clerp"]: node["ctx_idx"] for node in found["nodes"]}
    assert places == {"a0.h0 @S2": 1, "a0.h0 @elsewhere": 4, "a0.h0 @3": 3, "a1.h1 @3": 3, "": 3}


def test_keys_do_not_reach_back(tmp_path):
    edges = {"a0.h0->a1.h1<k>@3": 1.0, "a1.h1->logits@S2": 3.0}
    file = tmp_path / "a.json"
    found = checked(write_neuronpedia(*of(AT, **edges), file, positions={"S2": 1}, **PROMPT))
    assert "a1.h1 @3" in {node["clerp"] for node in found["nodes"]}


def test_positions_need_tokens(tmp_path, refuses):
    file, whole = tmp_path / "a.json", (*scored(AT, 0), tmp_path / "a.json")
    for where, pieces in (
        ({}, ["'S2' is at token None", "positions="]),
        ({"S2": 5}, ["'S2' is at token 5", "0 to 4"]),
        ({"S2": 3}, ["'3' is at token 3", "a token of its own"]),
    ):
        refuses(
            lambda where=where: write_neuronpedia(*whole, positions=where, **PROMPT),
            "a.json",
            *pieces,
        )
    nothing = {**PROMPT, "tokens": []}
    refuses(lambda: write_neuronpedia(*scored(GRAPH, 0), file, **nothing), "tokens is empty")
    scores, circuit = scored(GRAPH, 0)[0], scored(AT, 0)[1]
    refuses(lambda: write_neuronpedia(scores, circuit, file, **PROMPT), "the scores belong to")
    values = np.full((*GRAPH.edges.shape, 1), np.inf)
    endless = EdgeScores.from_array(GRAPH, values), Circuit.full(GRAPH)
    refuses(lambda: write_neuronpedia(*endless, file, **PROMPT), "a.json", "no infinity")
    assert not file.exists()


def test_files_of_others(tmp_path, refuses):
    file = write_neuronpedia(*scored(GRAPH, 0), tmp_path / "a.json", **PROMPT)
    whole = json.loads(file.read_text())
    file.write_text(json.dumps(whole, indent=1))
    refuses(lambda: read_neuronpedia(file, GRAPH), "a.json is damaged, or was changed")
    for key in ("version", "seal"):  # as 0.2 wrote it
        del whole["metadata"]["generation_settings"][key]
    file.write_text(json.dumps(whole))
    refuses(lambda: read_neuronpedia(file, AT), "a.json", "give the graph of that model")
    for change, pieces in (
        (lambda link: link.pop("edges"), ["write_neuronpedia", "'edges'", "transcoders"]),
        (lambda link: link["edges"].update({"m0->m9": 1.0}), ["'m9' is not one of"]),
        (
            lambda link: link["edges"].update({"m0->m1": "1"}),
            ["m0->m1 is '1', not a finite number"],
        ),
    ):
        content = json.loads(json.dumps(whole))
        change(content["links"][-1])
        file.write_text(json.dumps(content))
        refuses(lambda: read_neuronpedia(file, GRAPH), "a.json", *pieces, kind=ValueError)
    file.write_text(json.dumps(whole)[:-20])
    refuses(lambda: read_neuronpedia(file, GRAPH), "a.json", "cut off")
    write_mib(Circuit.full(GRAPH), file, d_model=5)
    refuses(lambda: read_neuronpedia(file, GRAPH), "a.json", "not written by write_neuronpedia")
    assert read_mib(file)[1] == Circuit.full(GRAPH)
