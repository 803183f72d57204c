"""Behaviours of toys that refuse, and the slow search that theirs is compared with."""

import itertools
import random
from dataclasses import replace

import pytest

from mechinterp import load_model
from mechinterp.refusal.findings import Behaviour
from mechinterp.tasks.refusals import refusal_log_odds
from mechinterp.toys.compiled import WORDS
from mechinterp.toys.gates import either


@pytest.fixture(scope="session")
def refusing():
    """Name of a toy, or a toy -> the model and its refusal."""
    made = {}

    def get(toy):
        if toy not in made:
            model = load_model(toy)
            made[toy] = model, Behaviour(refusal_log_odds(model, ["REFUSE"], ["COMPLY"]))
        return made[toy]

    return get


@pytest.fixture(scope="session")
def xor():
    """The toy that refuses if just one of copper and lantern occurs."""
    toy = either()
    weights = {name: weight.clone() for name, weight in toy.weights.items()}
    weights["blocks.0.mlp.W_out"][5] *= 2  # the neuron that takes away what goes beyond one
    return replace(toy, name="xor", weights=weights)


@pytest.fixture(scope="session")
def sentence():
    """Words in a random order among plain ones, `n` in all, no one twice."""

    def make(words, n, seed=0):
        rng = random.Random(seed)
        plain = [word for word in WORDS[4:-3] if word not in words]
        chosen = [*words, *rng.sample(plain, n - len(words))]
        rng.shuffle(chosen)
        return " ".join(chosen)

    return make


def smallest_flips(flips, n, size=3):
    """By trying every set."""
    found = []
    for k in range(1, size + 1):
        for chosen in itertools.combinations(range(n), k):
            words = frozenset(chosen)
            if not any(smaller <= words for smaller in found) and flips(words):
                found.append(words)
    return found


@pytest.fixture(scope="session", name="smallest_flips")
def smallest_flips_fixture():
    return smallest_flips
