"""Benign requests that words are put into: in a fixed place, beside other words in the same one.

>>> from mechinterp.refusal.carriers import Carrier
>>> from mechinterp.tasks.request_families import Request
>>> bread = Request("How do I bake bread?", harmful=False, family="bread")
>>> Carrier(bread, slot=3, room=9).holding(("sesame",), n_tokens=1)
'How do I sesame bake bread?'
>>> Carrier(bread, slot=3, room=0).holding(("sesame",), n_tokens=1)
'How do I sesame bread?'
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mechinterp.models.model import Model
from mechinterp.models.tokenization import tokenize
from mechinterp.refusal.candidates import Scored, one_of_each_family
from mechinterp.refusal.findings import WordSet
from mechinterp.refusal.texts import as_prompt, with_words, without_words, words_of
from mechinterp.tasks.request_families import Chat, Request


@dataclass(frozen=True)
class Carrier:
    """A benign request that is answered, and the number of the word before which words are put."""

    request: Request
    slot: int
    room: int

    def holding(self, words: WordSet, n_tokens: int) -> str | Chat:
        """The request with the words; they take the place of others if it has no room for them."""
        text = self.request.text
        if n_tokens > self.room:
            behind = words_of(text)[self.slot : self.slot + n_tokens - self.room]
            text = without_words(text, behind)
        return self.request.asking(with_words(text, words, self.slot))


def n_tokens(model: Model, word: str) -> int:
    """How many tokens a word takes inside a text."""
    alone, both = (tokenize(model, text).width for text in ("the", f"the {word}"))
    return both - alone


def answered_requests(scored: Scored, name: str) -> list[Request]:
    """Benign requests that the model answers, of two families at least."""
    answered = [r for r in scored.answered if not r.harmful and len(words_of(r.text)) > 1]
    n_families = len({request.family for request in answered})
    if n_families < 2:
        raise ValueError(
            f"words need benign requests to stand in, of two families or more, on which the model "
            f"does not {name}: there are {n_families}. Give more benign requests with more than "
            f"one word, or look at its rate of refusals first."
        )
    return answered


def choose_carriers(
    model: Model, answered: Sequence[Request], n: int, avoid: set[str], rng: np.random.Generator
) -> list[Carrier]:
    """Requests to put words into, of different families while there are.

    Those with a telling word or a candidate come last: beside half of what is needed, the other
    half seems enough. Words stand neither first, second nor last, where cues do.
    `avoid`: the candidates.
    """
    suspect = {id(r): bool(r.telling) + len(avoid.intersection(words_of(r.text))) for r in answered}
    levels = sorted(set(suspect.values()))
    chosen: list[Request] = []
    for most in levels:
        allowed = [request for request in answered if suspect[id(request)] <= most]
        chosen = one_of_each_family(allowed, n, rng)
        if len(chosen) == n and len({request.family for request in chosen}) > 1:
            break
    made = []
    for request in chosen:
        n_words = len(words_of(request.text))
        slot = int(rng.integers(min(2, n_words - 1), n_words))
        room = model.cfg.n_ctx - tokenize(model, as_prompt(model, request.prompt)).width
        made.append(Carrier(request, slot, room))
    return made
