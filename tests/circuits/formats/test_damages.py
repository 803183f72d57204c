"""F4: a file of ours that was damaged is never used; 18 of 300 damages were."""

import random

import numpy as np
import pytest

from mechinterp.circuits import (
    Circuit,
    EdgeScores,
    Graph,
    read_circuit,
    read_mib,
    read_neuronpedia,
    read_scores,
    write_circuit,
    write_mib,
    write_neuronpedia,
    write_scores,
)

GRAPH = Graph(2, 2, 2, has_mlps=True, is_parallel=False)
PROMPT = {"slug": "a", "prompt": "a b", "tokens": ["a", "b"], "scan": "toy"}


def written(kind, file):
    """A file of each kind, and how it is read."""
    draws = np.random.default_rng(0).normal(size=(*GRAPH.edges.shape, 2))
    scores = EdgeScores.from_array(GRAPH, np.where(GRAPH.edges[..., None], draws, np.nan))
    circuit = Circuit.from_edges(GRAPH, ["input->a0.h1<v>", "a0.h1->logits"])
    match kind:
        case "circuit":
            return write_circuit(circuit, file), read_circuit
        case "scores":
            return write_scores(scores, file), read_scores
        case "MIB":
            return write_mib(circuit, file, d_model=16, scores=scores), read_mib
    write_neuronpedia(scores, circuit, file, **PROMPT)
    return file, lambda path: read_neuronpedia(path, GRAPH)


@pytest.mark.parametrize("kind", ["circuit", "scores", "MIB", "Neuronpedia"])
def test_no_damage_is_used(kind, tmp_path):
    file, reads = written(kind, tmp_path / "file")
    whole, chance = file.read_bytes(), random.Random(0)
    digits = [at for at, byte in enumerate(whole) if 48 <= byte <= 57]
    reads(file)
    for number in range(60):
        made = bytearray(whole)
        if number % 3 == 0:
            made[chance.randrange(len(made))] ^= 1 << chance.randrange(8)
        elif number % 3 == 1:
            at = chance.choice(digits)
            made[at] = 48 + (made[at] - 48 + chance.randrange(1, 10)) % 10
        else:
            del made[chance.randrange(len(made)) :]
        file.write_bytes(made)
        with pytest.raises(ValueError, match=r"file"):
            reads(file)
