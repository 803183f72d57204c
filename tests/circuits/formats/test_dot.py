"""The text that Graphviz draws."""

import re

import numpy as np

from mechinterp.circuits import Circuit, EdgeScores, Graph, write_dot

GRAPH = Graph(2, 2, 2, has_mlps=True, is_parallel=False)
STRING = r'"(?:[^"\\]|\\.)*"'
EDGE = re.compile(rf"  ({STRING}) -> ({STRING}) \[((?:\w+=(?:{STRING}|[\d.]+)(?:, )?)+)\];")
ROW = re.compile(rf"  \{{ rank=same; ((?:{STRING}; ?)+)\}}")


def drawn(tmp_path, circuit, **scores):
    lines = write_dot(circuit, tmp_path / "a.dot", **scores).read_text().splitlines()
    assert (lines[0], lines[-1]) == ("digraph circuit {", "}")
    rows = [re.findall(STRING, found[1]) for found in map(ROW.fullmatch, lines) if found]
    edges = []
    for found in map(EDGE.fullmatch, lines):
        if found:
            style = dict(re.findall(rf"(\w+)=({STRING}|[\d.]+)", found[3]))
            edges.append((found[1], found[2], style))
    assert 3 + len(rows) + len(edges) + 1 == len(lines), lines
    return rows, edges


def test_rows_and_edges(tmp_path):
    names = ["input->a0.h0<v>", "input->a0.h1<q>", "a0.h0->m0", "m0->a1.h1<k>", "a1.h1->logits"]
    values = np.full((*GRAPH.edges.shape, 1), np.nan)
    for name, score in zip(names, [4.0, -2.0, 0.0, 1.0], strict=False):
        values[GRAPH.edge(name)] = score
    scores = EdgeScores.from_array(GRAPH, values, unit="logits")
    rows, edges = drawn(tmp_path, Circuit.from_edges(GRAPH, names), scores=scores)
    assert rows == [
        ['"input"'],
        ['"a0.h0"', '"a0.h1"'],
        ['"m0"'],
        ['"a1.h1"'],
        ['"logits"'],
    ]
    assert {(a, b): style["label"] for a, b, style in edges} == {
        ('"input"', '"a0.h0"'): '"v"',
        ('"input"', '"a0.h1"'): '"q"',
        ('"a0.h0"', '"m0"'): '""',
        ('"m0"', '"a1.h1"'): '"k"',
        ('"a1.h1"', '"logits"'): '""',
    }
    looks = {(a, b): (style["penwidth"], style["color"]) for a, b, style in edges}
    assert looks['"input"', '"a0.h0"'] == ("5.00", '"#b2182b"')
    assert looks['"input"', '"a0.h1"'] == ("2.75", '"#2166ac"')
    assert looks['"a1.h1"', '"logits"'] == ("0.50", '"#888888"')
    assert looks['"a0.h0"', '"m0"'] == ("0.50", '"#888888"')  # 0 is neither support nor against
    told = [style["tooltip"] for _, _, style in edges]
    assert '"input->a0.h1<q>: -2 logits"' in told
    assert '"a1.h1->logits"' in told


def test_a_parallel_layer_is_one_row(tmp_path):
    graph = Graph(2, 2, 2, has_mlps=True, is_parallel=True)
    rows, edges = drawn(tmp_path, Circuit.full(graph))
    assert rows[1] == ['"a0.h0"', '"a0.h1"', '"m0"']
    assert len(edges) == graph.n_edges


def test_shared_keys_go_into_each_head(tmp_path):
    graph = Graph(2, 4, 2, has_mlps=False, is_parallel=False)
    _, edges = drawn(tmp_path, Circuit.from_edges(graph, ["a0.h3->a1.g1<k>"]))
    assert [(a, b) for a, b, _ in edges] == [('"a0.h3"', '"a1.h2"'), ('"a0.h3"', '"a1.h3"')]


def test_labels_are_quoted(tmp_path):
    label = 'say "\\N" & go\n'
    graph = Graph(1, 1, 1, has_mlps=False, is_parallel=False, positions=(label, "elsewhere"))
    circuit = Circuit(graph, graph.edges)
    _, edges = drawn(tmp_path, circuit)
    quoted = r"@say \"\\N\" &amp; go\n"
    assert edges[0][2]["label"] == f'"q {quoted}"'
    assert edges[1][2]["label"] == '"q @elsewhere"'
    assert len(edges) == graph.n_edges == 10


def test_scores_of_another_graph(tmp_path, refuses):
    other = Graph(3, 2, 2, has_mlps=True, is_parallel=False)
    scores = EdgeScores.from_array(other, np.ones((*other.edges.shape, 1)))
    refuses(
        lambda: write_dot(Circuit.full(GRAPH), tmp_path / "a.dot", scores=scores),
        "a.dot",
        "n_layers=3",
    )
