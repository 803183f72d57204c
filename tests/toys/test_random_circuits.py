"""Of a random circuit every edge matters, and no other edge does."""

import itertools
import re

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp.toys import example_inputs, random_circuit

SIZES = [
    {},
    {"n_circuit_mlps": 0},
    {"n_layers": 2, "n_heads": 5, "n_circuit_heads": 7, "n_circuit_mlps": 2},
]


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_an_edge_matters_iff_it_is_stated(seed: int, sizes: dict, reference: type) -> None:
    built = random_circuit(seed, **sizes)
    slow, truth = reference(built), built.truth
    tokens = slow.tokens(example_inputs(built, 24))
    changes = slow.changes(tokens[:12], tokens[12:], slow.edges())
    stated, constant = set(truth.edges), set(truth.constant)
    assert all(changes[edge] > 0.2 for edge in stated - constant)
    assert all(changes[edge] < 1e-5 for edge in changes.keys() - stated)
    assert all(changes[edge] < 1e-9 for edge in constant)  # positions are those of any prompt
    cut = slow.changes(tokens[:12], None, constant)
    assert all(change > 0.2 for change in cut.values())


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_every_edge_carries_something(sizes: dict, reference: type) -> None:
    slow = reference(random_circuit(3, **sizes))
    _, written = slow.run(slow.tokens(example_inputs(slow.toy, 24)))
    for edge in slow.edges():
        if edge.reader != "logits":
            assert slow.seen(edge, written[edge.writer]).std() > 0.002, edge


@pytest.mark.parametrize("seed", range(10))
def test_every_part_of_the_circuit_leads_to_the_logits(seed: int) -> None:
    built = random_circuit(seed, n_layers=4, n_circuit_heads=7, n_circuit_mlps=3)
    leading = {"logits"}
    for _ in range(20):
        leading |= {edge.writer for edge in built.truth.edges if edge.reader in leading}
        leading |= {f"{part}.{letter}" for part in leading if "." not in part for letter in "qkv"}
    heads, mlps = built.truth.heads["circuit"], built.truth.neurons["circuit"]
    parts = {f"L{layer}H{head}" for layer, head in heads} | {f"L{layer}.mlp" for layer, _ in mlps}
    assert (len(heads), len({layer for layer, _ in mlps})) == (7, 3)
    assert parts | {"embed"} <= leading
    decoys = {f"L{layer}H{head}" for layer, head in built.truth.heads["decoy"]}
    named = {x for edge in built.truth.edges for x in (edge.writer, edge.reader.partition(".")[0])}
    assert not decoys & named


def test_a_seed_is_a_circuit() -> None:
    first, again, other = (random_circuit(seed) for seed in (5, 5, 6))
    assert first.truth == again.truth != other.truth
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_it_is_a_toy_like_the_others(sizes: dict, reference: type) -> None:
    built = random_circuit(4, **sizes)
    model = HookedTransformer(HookedTransformerConfig(**built.config, device="cpu"))
    model.load_state_dict(built.weights, strict=False)
    assert set(built.weights) == set(dict(model.named_parameters()))
    slow = reference(built)
    tokens = slow.tokens(example_inputs(built, 24))
    logits, _ = slow.run(tokens)
    torch.testing.assert_close(model(tokens), logits.float(), atol=1e-4, rtol=1e-4)
    assert 1 < logits.std() < 10
    heads = sorted(itertools.chain(*built.truth.heads.values()))
    assert heads == sorted(itertools.product(range(model.cfg.n_layers), range(model.cfg.n_heads)))


@pytest.mark.parametrize(
    "sizes", [{"n_circuit_heads": 13}, {"n_circuit_heads": 0}, {"n_circuit_mlps": 4}]
)
def test_a_circuit_that_does_not_fit(sizes: dict) -> None:
    with pytest.raises(ValueError, match=re.escape("3 layers of 4 heads hold no circuit of")):
        random_circuit(0, **sizes)
