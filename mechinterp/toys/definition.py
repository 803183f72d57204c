"""What a toy is: a small model as data, with the mechanism that it is known to have.

A toy is not a model: it holds the keyword arguments of a `HookedTransformerConfig`, a state dict
and the words of the vocabulary, and `load_model` makes a model of them. Nothing here imports the
library that runs it.

    planted = toy("trigger")
    planted.truth.heads["trigger"]      # ((1, 0),): layer 1, head 0
    planted.vocabulary.index("sesame")  # the id of the trigger word
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, order=True)
class Edge:
    """What one part writes and another reads, both by name.

    Writers: "embed", "pos_embed", a head "L0H1", an MLP "L0.mlp".
    Readers: an input of a head "L1H2.q" (or .k, .v), an MLP "L0.mlp", or "logits".
    """

    writer: str
    reader: str


@dataclass(frozen=True)
class Truth:
    """The mechanism of a toy, for its weights as they are stored, nothing folded or centred.

    claim: what the model does, and how, in words.
    edges: all edges that carry it. In a compiled toy any other edge can be cut and no logit
        changes; in a trained one, any other edge can carry another prompt and over .98 stays right.
        Empty where the mechanism is not known, only the behaviour: the claim says so.
    heads: role -> (layer, head) pairs. Heads under "unused" and "decoy" have no effect on a logit;
        one under "spare" can, alone, carry another prompt and over .998 of the answers stay right.
    neurons: role -> (layer, neuron) pairs.
    triggers: the words that decide the answer; whether one is enough or all are needed, the claim
        says.
    answers: the two words that the model chooses between, first the one that the triggers bring.
    figures: what the model reaches. A name that ends in "at_least" is a bound that holds for every
        prompt that the claim covers.
    constant: those of the edges that carry the same in all prompts of one length, as positions do:
        cutting them changes logits, giving them what they carry in such another prompt does not.
    redundant: groups of edges of which one is enough. In a prompt with the first of the answers,
        where one edge of a group carries what it does in a prompt with the other, the answer stays;
        where all of them do, it changes.
    """

    claim: str
    edges: tuple[Edge, ...]
    heads: Mapping[str, tuple[tuple[int, int], ...]]
    neurons: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    triggers: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    constant: tuple[Edge, ...] = ()
    redundant: tuple[tuple[Edge, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Toy:
    """A small model as data. Toys compare by identity, as tensors have no single truth value.

    config: keyword arguments of `HookedTransformerConfig`.
    weights: a `HookedTransformer` state dict in float32, less the buffers (mask, IGNORE, rotary_*).
    vocabulary: the text of each token, by id. In a prompt, words stand apart by white space.
    bos: the word at position 0 of every prompt, or None.
    places: for each position after it, the words that may stand there; the claim covers every such
        prompt. Empty where no such prompts show what the model does.
    """

    name: str
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    vocabulary: tuple[str, ...]
    bos: str | None
    truth: Truth
    places: tuple[tuple[str, ...], ...] = ()


def example_inputs(toy: Toy, n: int, seed: int = 0) -> list[list[str]]:
    """`n` different prompts of one length, random words at every place; <bos> is left out.

    Two of them are a clean and a corrupt prompt. What is right is what the model of the toy
    predicts: it makes no error.

    Raises:
        ValueError: if the toy states no such prompts, or fewer than `n`.
    """
    n_prompts = math.prod(len(words) for words in toy.places)
    if not toy.places or n > n_prompts:
        has = f"{n_prompts} prompts" if toy.places else "no prompts of random words"
        raise ValueError(f'toy "{toy.name}" has {has}: {n} were asked for.')
    rng = random.Random(seed)
    drawn: dict[tuple[str, ...], None] = {}  # a set that keeps the order
    while len(drawn) < n:
        drawn[tuple(rng.choice(words) for words in toy.places)] = None
    return [list(words) for words in drawn]
