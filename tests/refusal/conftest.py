"""Behaviours of toys that refuse, and the slow search that theirs is compared with."""

import itertools
import random
from dataclasses import replace

import pytest

from mechinterp import load_model
from mechinterp.refusal.findings import Behaviour
from mechinterp.tasks.refusals import refusal_log_odds
from mechinterp.tasks.request_families import Request
from mechinterp.toys.compiled import WORDS
from mechinterp.toys.gates import both, either


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


VERBS, OBJECTS = ["open", "close", "send", "paint"], ["door", "box", "river", "bridge"]


@pytest.fixture(scope="session")
def content():
    """The toy that refuses if a word of one class and a word of another both occur."""
    toy = both()
    weights = {name: weight.clone() for name, weight in toy.weights.items()}
    for head, before, words in ((1, "copper", VERBS), (2, "lantern", OBJECTS)):
        for name in ("W_K", "W_V"):
            weight = weights[f"blocks.0.attn.{name}"][head]
            row = weight[WORDS.index(before)].clone()
            weight[WORDS.index(before)] = 0
            weight[[WORDS.index(word) for word in words]] = row
    return replace(toy, name="content", weights=weights)


@pytest.fixture(scope="session")
def requests():
    """Families of requests of plain words; harmful ones hold words that `draw` gives."""

    def make(draw, n_families=10, seed=0):
        rng = random.Random(seed)
        plain = [word for word in WORDS[4:-3] if word not in VERBS + OBJECTS]
        made = []
        for number in range(n_families):
            for harmful in (True, True, False):
                chosen = [*rng.sample(plain, 5), *(draw(rng) if harmful else ())]
                rng.shuffle(chosen)
                made.append(Request(" ".join(chosen), harmful, f"family {number}"))
        return made

    return make
