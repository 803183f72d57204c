"""A circuit in the terminal: what it says is the data, as wide as there is room for."""

import io
import re

import numpy as np
import pytest
import xarray as xr
from rich.cells import cell_len
from rich.console import Console

from mechinterp.circuits import Circuit, EdgeScores, Graph
from mechinterp.report import print_circuit
from mechinterp.report.render.numbers import MINUS

GRAPH = Graph(5, 3, 3, True, False, ("S2", "\x1b[31m[bold]", "elsewhere"))


@pytest.fixture
def scores():
    draw = np.random.default_rng(0).laplace(size=(*GRAPH.edges.shape, 6))
    return EdgeScores.from_array(GRAPH, draw, unit="logits", metric="logit_diff", seconds=0.5)


@pytest.fixture
def circuit():
    edges = ["input->a1.h2<v>@S2", "a1.h2->m1@elsewhere", "m1->logits@elsewhere"]
    return Circuit(GRAPH, Circuit.from_edges(GRAPH, edges).mask, 7)


@pytest.fixture
def curve():
    values = {"edges": [3, 100], "requested": [7, 100], "faithfulness": [0.25, 1.0]}
    return xr.Dataset(
        {name: ("circuit", value) for name, value in values.items()}, {"circuit": ["ours", "all"]}
    )


def printed(*shown, width=100, **options) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_circuit(*shown, console=console, **options)
    return console.file.getvalue()


def test_counts_layers_and_faithfulness(scores, circuit, curve):
    lines = printed(scores, circuit, curve).splitlines()
    assert lines[0].startswith(f"The circuit keeps 3 of {GRAPH.n_edges:,} edges")
    assert "7 edges were requested, 3 were kept." in lines
    assert [line for line in lines if line.startswith("layer")] == [
        "layers 2–4: none",
        "layer 1   h2 mlp",
        "layer 0: none",
    ]
    (row,) = (line.split() for line in lines if re.search(r"^ +7  ours", line))
    assert row[:5] == ["7", "ours", "3", f"{300 / GRAPH.n_edges:.3g}%", "0.25"]


def test_strongest_edges_are_the_data(scores, circuit):
    found = re.findall(
        r"^ *(\d+)  (\S+) +([+−][\d.]+)  .* (yes|no)", printed(scores, circuit), re.M
    )
    assert [int(rank) for rank, *_ in found] == list(range(1, 16))
    for (_, name, score, held), (known, value) in zip(found, scores.strongest(15), strict=True):
        assert name == known.replace("\x1b", r"\x1b")
        assert float(score.replace(MINUS, "-")) == pytest.approx(value, abs=0.0051)
        assert (held == "yes") == (known in circuit)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(scores, circuit, curve, width):
    text = printed(scores, circuit, curve, width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert "\x1b" not in text


def test_ascii_terminal_gets_ascii(scores, circuit, curve):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_circuit(scores, circuit, curve, console=Console(file=stream, width=100))
    stream.flush()
    assert "h2 mlp" in stream.buffer.getvalue().decode("ascii")


def test_wrong_input_is_refused(scores, circuit, refuses):
    refuses(lambda: print_circuit(scores, circuit, top=-1), "top is -1")
    other = Circuit.full(Graph(2, 1, 1, False, False))
    refuses(lambda: print_circuit(scores, other), "one Graph.from_model(model)")


def test_nothing_scored_and_nothing_kept_is_said(scores):
    nothing = EdgeScores.from_array(GRAPH, scores.per_pair.values * np.nan)
    text = printed(nothing, Circuit.empty(GRAPH))
    assert text.startswith("The circuit keeps 0 of")
    assert "layers 0–4: none" in text


@pytest.mark.parametrize("supports", ["positive", "negative"])
def test_bars_have_the_colour_of_their_side(scores, circuit, curve, supports):
    scores = EdgeScores(GRAPH, scores.per_pair.assign_attrs(supports=supports))
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")
    print_circuit(scores, circuit, curve, top=8, console=console)
    bars = re.findall(r"\x1b\[(\d+)m[█▒]", console.file.getvalue())
    red, blue = ("31", "34") if supports == "positive" else ("34", "31")
    assert bars == [red if score > 0 else blue for _, score in scores.strongest(8)]
    assert f"{supports.capitalize()}: the edge supports the metric." in console.file.getvalue()
