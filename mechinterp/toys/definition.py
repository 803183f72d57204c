"""A toy: a small model as data, with its known mechanism.

It holds the keyword arguments of a `HookedTransformerConfig`, a state dict and the words of the
vocabulary; `load_model` makes a model of them. Nothing here imports the library that runs it.

    planted = toy("trigger")
    planted.truth.heads["trigger"]      # ((1, 0),): layer 1, head 0
    planted.vocabulary.index("sesame")  # the id of the trigger word
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from mechinterp.core.arguments import checks_arguments
from mechinterp.toys.blank import Config


@dataclass(frozen=True, order=True)
class Edge:
    """A connection from a part that writes to a part that reads, both by name.

    Writers: "embed", "pos_embed", a head "L0H1", an MLP "L0.mlp".
    Readers: an input of a head "L1H2.q" (or .k, .v), an MLP "L0.mlp", or "logits".
    """

    writer: str
    reader: str


@dataclass(frozen=True)
class Truth:
    """The mechanism of a toy, for its weights as stored: nothing folded or centred.

    claim: what the model does and how, in words.
    edges: the complete circuit. In a compiled toy, cutting any other edge changes no logit; in a
        trained one, if any other edge carries what it would on another prompt, over .98 of the
        answers stay right. Empty where only the behaviour is known: the claim says so.
    heads: role -> (layer, head) pairs. Heads under "unused" and "decoy" have no effect on a logit.
        If one head under "spare" is patched from another prompt, over .998 of the answers stay
        right.
    neurons: role -> (layer, neuron) pairs.
    triggers: the words that decide the answer. The claim says whether one is enough or all are
        needed.
    answers: the two words that the model chooses between; first the one that the triggers bring.
    figures: what the model reaches. A name that ends in "at_least" is a bound for every prompt that
        the claim covers.
    constant: the edges that carry the same in all prompts of one length, as positions do. Cutting
        them changes logits; patching them from another such prompt does not.
    redundant: groups of edges of which one is enough. On a prompt with the first answer, patching
        one edge of a group from a prompt with the second keeps the answer; patching all of them
        changes it.
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
    """A small model as data. Toys compare by identity, because tensors have no single truth value.

    config: keyword arguments of `HookedTransformerConfig`.
    weights: a `HookedTransformer` state dict in float32, without buffers (mask, IGNORE, rotary_*).
    vocabulary: the text of each token, by id. White space separates the words of a prompt.
    bos: the word at position 0 of every prompt, or None.
    places: for each later position, the words that may stand there; the claim covers every such
        prompt. Empty where such prompts do not show the behaviour.
    """

    name: str
    config: Config
    weights: Mapping[str, Tensor]
    vocabulary: tuple[str, ...]
    bos: str | None
    truth: Truth
    places: tuple[tuple[str, ...], ...] = ()


@checks_arguments
def example_inputs(toy: Toy, n: int, seed: int = 0) -> list[list[str]]:
    """`n` different prompts of one length with random words at every place, without <bos>.

    Any two are a clean and a corrupt prompt. The right answer is what the toy's model predicts: it
    makes no errors.

    Raises:
        ValueError: if the toy has no such prompts, or fewer than `n`.
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
