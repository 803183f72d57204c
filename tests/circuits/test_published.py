"""Circuits of papers: their counts worked out by hand, and edges that the papers name."""

import numpy as np
import pytest

from mechinterp.circuits import PUBLISHED, Graph, circuit_of_roles, published_circuit
from mechinterp.circuits.published import Arrow

GPT2 = Graph(12, 12, 12, has_mlps=True, is_parallel=False)
PLACES = ("IO", "S1", "S1+1", "S2", "end", "elsewhere")


def placed(*positions):
    return Graph(12, 12, 12, True, False, positions)


def counted(heads, n_mlps=12):
    """Edges between these heads and all MLPs, both ways: of a head of layer l, 3 l and 12 - l."""
    return sum(3 * layer + n_mlps - layer for layer, _ in heads)


def test_indirect_objects():
    found = published_circuit("ioi", GPT2)
    heads = found.heads
    assert len(heads) == 26
    by_role = {role: len(nodes) for role, nodes in PUBLISHED["ioi"].roles.items()}
    movers, inhibition, induction, duplicate, previous = 3 + 8 + 2, 4, 4, 3, 2
    assert by_role["name mover"] + by_role["backup name mover"] == 11
    between_heads = (
        (previous + duplicate) * 3  # queries, keys and values read the names
        + (inhibition + induction)  # queries read their own position
        + movers * 2  # keys and values read IO
        + previous * induction * 2
        + (induction + duplicate) * inhibition * 2
        + inhibition * movers
        + movers  # the logits
    )
    among_mlps = 12 + 12 * 11 // 2 + 12  # from the input, of one another, to the logits
    assert found.n_edges == between_heads + among_mlps + 1 + counted(heads) == 967
    acdc = published_circuit("ioi, ACDC", GPT2)
    assert (found - acdc).names == tuple(
        f"input->a{layer}.h{head}<q>" for layer, head in ((5, 5), (5, 8), (5, 9), (6, 9))
    )
    assert acdc.n_edges + 3 * len(heads) == 1041  # with those inside of heads


def test_greater_than():
    found = published_circuit("greater-than", GPT2)
    start_year = [(5, 1), (5, 5), (6, 9), (7, 10), (8, 8), (8, 11), (9, 1)]
    assert set(found.heads) == {(0, 1), (0, 3), (0, 5), *start_year}
    read_at_yy = 3 * 3 + 4 + 4 + 3 * 7 * 2 + 4 * 7 * 2
    queries = sum(layer for layer, _ in start_year) + 9 * 8 // 2  # those of MLPs 0 to 3 among them
    written = 6 * 4 + 3 + 7 + 4 * 3 // 2 + 4  # 9.1 comes after MLP 8
    assert found.n_edges == read_at_yy + queries + written == 243
    acdc = published_circuit("greater-than, ACDC", GPT2)
    assert {(6, 1)} == set(acdc.heads) - set(found.heads)
    assert {(5, 1), (8, 8)} == set(found.heads) - set(acdc.heads)
    assert acdc.n_edges + 3 * len(acdc.heads) == 262


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        (
            "ioi",
            [
                *("a3.h0->a8.h6<v>", "a5.h5->a7.h9<v>", "a4.h11->a6.h9<k>", "a8.h10->a10.h0<q>"),
                *("a7.h3->a11.h10<q>", "a9.h6->logits", "input->a3.h0<q>", "m0->a9.h9<v>"),
            ],
            [
                *("a3.h0->a8.h6<q>", "a8.h6->a9.h9<k>", "a8.h6->logits", "a9.h9->a10.h7<q>"),
                *("input->a9.h9<q>", "a0.h0->m0", "a5.h5->a9.h9<q>"),
            ],
        ),
        (
            "greater-than",
            ["a9.h1->m9", "a8.h8->m8", "m0->a9.h1<v>", "a0.h5->a5.h1<k>", "m9->m11", "m8->logits"],
            ["m7->logits", "a0.h3->m2", "input->a9.h1<v>", "a6.h1->m8"],
        ),
    ],
)
def test_edges_that_the_papers_name(name, inside, outside):
    found = published_circuit(name, GPT2)
    for edge in inside:
        assert edge in found
    for edge in outside:
        assert edge not in found
    assert not (found.mask & ~GPT2.edges).any()
    assert found.pruned() == found


def test_where_an_edge_stands():
    found = published_circuit("ioi", placed(*PLACES))
    for edge in (
        *("a8.h6->a9.h9<q>@end", "a3.h0->a8.h6<v>@S2", "a4.h11->a6.h9<k>@S1+1"),
        *("input->a4.h11<v>@S1", "input->a4.h11<q>@S1+1", "input->a9.h9<v>@IO"),
    ):
        assert edge in found
        assert sum(f"{edge.split('@')[0]}@{place}" in found for place in PLACES) == 1
    assert all(f"m3->m4@{place}" in found for place in PLACES)
    # Where a position has no name, it is elsewhere; and all together they are those without.
    assert "a3.h0->a8.h6<v>@elsewhere" in published_circuit("ioi", placed("end", "elsewhere"))
    for name in PUBLISHED:
        everywhere = published_circuit(name, placed("S2", "YY", "end", "elsewhere"))
        without = published_circuit(name, GPT2).mask[..., 0]
        np.testing.assert_array_equal(everywhere.mask.any(2), without)


def test_arrows_between_the_heads_of_another_model():
    grouped = Graph(3, 4, 2, has_mlps=True, is_parallel=False)
    arrows = (Arrow("first", "second", "qk"), Arrow("first", "MLP"), Arrow("second", "nobody"))
    roles = {"first": ("a0.h1", "a2.h0"), "second": ("a1.h3",), "MLP": ("m0", "m2")}
    found = circuit_of_roles(grouped, roles, arrows)
    assert set(found.names) == {
        *("a0.h1->a1.h3<q>", "a0.h1->a1.g1<k>", "a0.h1->m0", "a0.h1->m2", "a2.h0->m2"),
    }


def test_refusals(refuses):
    refuses(lambda: published_circuit("docstring", GPT2), "'docstring'", "greater-than")
    smollm2 = Graph(30, 9, 9, has_mlps=True, is_parallel=False)
    refuses(lambda: published_circuit("ioi", smollm2), "GPT-2 small", "circuit_of_roles")
    roles = {"first": ("a12.h0",)}
    refuses(lambda: circuit_of_roles(GPT2, roles, (Arrow("first", "logits"),)), "'a12.h0'")
