"""Graphs, scores and curves drawn at random, and what a test asks of a drawing."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from playwright.sync_api import Locator, Page

from mechinterp.circuits import Circuit, EdgeScores, Graph
from mechinterp.report import circuit_page

PLAIN = Graph(3, 4, 4, True, False)
GRAPHS = {
    "plain": PLAIN,
    "positions": Graph(3, 4, 4, True, False, ("S2", "end", "elsewhere")),
    "shared keys": Graph(3, 6, 2, True, False, ("end", "elsewhere")),
    "parallel": Graph(2, 5, 5, True, True),
    "attention only": Graph(2, 1, 1, False, False),
    "many heads": Graph(2, 40, 40, True, False),
}
TOKENS = ["<s>", "Mary", "</script><script>window.pwned=1</script>", "\n", " gave"]


def random_scores(graph, n_pairs=5, seed=0) -> EdgeScores:
    draw = np.random.default_rng(seed).laplace(size=(*graph.edges.shape, n_pairs))
    return EdgeScores.from_array(graph, draw, unit="logits", metric="logit_diff", model="tiny")


def strongest_edges(scores, n) -> Circuit:
    return Circuit.from_edges(scores.graph, [name for name, _ in scores.strongest(n)])


def random_attention(graph, n_tokens) -> xr.DataArray:
    draw = np.tril(
        np.random.default_rng(1).random((graph.n_layers, graph.n_heads, *2 * [n_tokens]))
    )
    dims = ("layer", "head", "pos", "src")
    return xr.DataArray(draw / draw.sum(-1, keepdims=True), dims=dims)


def two_circuits(n_edges=200) -> xr.Dataset:
    values = {"edges": [2, n_edges], "requested": [3, n_edges], "faithfulness": [0.25, 1.0]}
    return xr.Dataset(
        {name: ("circuit", value) for name, value in values.items()}, {"circuit": ["ours", "all"]}
    )


def count_drawn(page, layer="edges") -> int:
    """How many edges there are in a layer of the drawing: each begins with a move."""
    return page.locator(f"#drawing .{layer} .edge").evaluate_all(
        "paths => paths.reduce((sum, p) => sum + p.getAttribute('d').split('M').length - 1, 0)"
    )


def slide_to(page, value: int) -> None:
    page.evaluate(
        """value => {
          const slider = document.getElementById("strength");
          slider.value = value;
          for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind));
          return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        }""",
        value,
    )


def node_named(page: Page, name: str):
    return page.locator("#drawing .node:not(.off)", has_text=re.compile(f"^{re.escape(name)}$"))


@pytest.fixture(scope="session")
def scored() -> Callable[..., EdgeScores]:
    """Makes scores: `scored(graph, n_pairs=5, seed=0)`."""
    return random_scores


@pytest.fixture(scope="session")
def strongest() -> Callable[..., Circuit]:
    """The circuit of the n strongest edges: `strongest(scores, n)`."""
    return strongest_edges


@pytest.fixture(scope="session")
def attention() -> Callable[..., xr.DataArray]:
    """Patterns of a prompt: `attention(graph, n_tokens)`."""
    return random_attention


@pytest.fixture(scope="session")
def curve() -> Callable[..., xr.Dataset]:
    """Faithfulness of two circuits: `curve(n_edges=200)`."""
    return two_circuits


@pytest.fixture(scope="session")
def n_drawn() -> Callable[..., int]:
    """How many edges a layer of the drawing has: `n_drawn(page, layer="edges")`."""
    return count_drawn


@pytest.fixture(scope="session")
def slide() -> Callable[..., None]:
    """Moves the slider of strongest edges: `slide(page, 0 to 1000)`."""
    return slide_to


@pytest.fixture(scope="session")
def node() -> Callable[..., Locator]:
    """A node of the drawing by its name: `node(page, "a0.h1")`."""
    return node_named


@pytest.fixture(scope="session")
def graphs() -> dict[str, Graph]:
    """Graphs of several kinds, by name."""
    return GRAPHS


@pytest.fixture
def found() -> tuple[EdgeScores, Circuit]:
    """The 20 strongest of the edges of 3 layers of 4 heads, and their scores."""
    scores = random_scores(PLAIN)
    return scores, strongest_edges(scores, 20)


@pytest.fixture
def html(found: tuple[EdgeScores, Circuit]) -> str:
    """Their page, with patterns and a curve."""
    return circuit_page(
        *found,
        title="A title",
        patterns=random_attention(PLAIN, 5),
        tokens=TOKENS,
        curves={"EAP": two_circuits()},
    )
