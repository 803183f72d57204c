"""Words that may be triggers, found in requests and not given.

Three sources, since each is blind to some: words that stand more often in refused requests than in
answered ones; words whose removal turns refused ones into answered ones; and sets of words that are
enough, from the smallest flips of some refused ones: a set that meets every flip is one.

>>> from mechinterp.refusal.candidates import enough
>>> enough([("copper", "lantern")])    # the refusal goes only without both: each is enough
[('copper',), ('lantern',)]
>>> enough([("copper",), ("lantern",)])  # it goes without either: both are needed
[('copper', 'lantern')]
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mechinterp.models.model import Model
from mechinterp.models.tokenization import known_ids
from mechinterp.refusal.findings import Behaviour, WordSet
from mechinterp.refusal.flips import minimal_flips
from mechinterp.refusal.texts import score_prompts, without_words, words_of
from mechinterp.tasks.request_families import Request

N_REMOVED = 32
"""Refused requests from which each word is removed."""
N_FLIPS = 6
"""Refused requests of which the smallest flips are searched for."""
MOST_WORDS = 24


@dataclass(frozen=True, eq=False)
class Scored:
    """Requests with their scores, and which of them the model refuses."""

    requests: Sequence[Request]
    scores: np.ndarray
    over: float

    @property
    def refused(self) -> list[Request]:
        """Those that the model refuses."""
        return self._where(self.scores > self.over)

    @property
    def answered(self) -> list[Request]:
        """Those that it answers."""
        return self._where(~(self.scores > self.over))

    def _where(self, mask: np.ndarray) -> list[Request]:
        return [request for request, kept in zip(self.requests, mask, strict=True) if kept]


def one_of_each_family(
    requests: Sequence[Request], n: int, rng: np.random.Generator
) -> list[Request]:
    """Up to `n` requests in a random order, those of families that had none yet first."""
    mixed = [requests[at] for at in rng.permutation(len(requests))]
    seen, rank = Counter[str](), []
    for request in mixed:
        rank.append(seen[request.family])
        seen[request.family] += 1
    order = sorted(range(len(mixed)), key=lambda at: rank[at])
    return [mixed[at] for at in order[:n]]


def enough(flips: Iterable[WordSet], size: int = 3) -> list[WordSet]:
    """The smallest sets of up to `size` words that share a word with each of the flips.

    If removing any flip ends a refusal and nothing else does, these are the sets that are enough
    for it. The words are in the order in which they come.
    """
    flips = list(flips)
    words = list(dict.fromkeys(word for flip in flips for word in flip))
    found: list[WordSet] = []
    for n in range(1, size + 1) if flips else ():
        for chosen in itertools.combinations(words, n):
            smaller = any(set(one) <= set(chosen) for one in found)
            if not smaller and all(set(chosen) & set(flip) for flip in flips):
                found.append(chosen)
    return found


def find_candidates(
    model: Model, behaviour: Behaviour, scored: Scored, most: int, seed: int, out: Path | None
) -> list[WordSet]:
    """Up to `most` words and half as many sets that may be enough for a refusal, likeliest first.

    Flips are searched for in a quarter as many requests, at most `N_FLIPS`.
    """
    rng = np.random.default_rng(seed)
    refused = scored.refused
    sample = one_of_each_family(refused, N_REMOVED, rng)
    known = known_words(model, scored.requests)
    folder = None if out is None else out / "removed"
    votes = _removal_votes(model, behaviour, sample, known, folder)
    odds = _log_odds(refused, scored.answered, known)
    sets, orders = Counter[frozenset[str]](), dict[frozenset[str], WordSet]()
    for number, request in enumerate(sample[: min(N_FLIPS, most // 4)]):
        folder = None if out is None else out / f"flips-{number}"
        flips = minimal_flips(model, behaviour, request.prompt, max_sets=600, out=folder)
        plain = [tuple(map(_plain, flip.words)) for flip in flips.sets]
        for words in enough(flip for flip in plain if known.issuperset(flip)):
            sets[frozenset(words)] += 1
            orders.setdefault(frozenset(words), words)
    # A cause of most refusals is in most sets; a word of one request is not.
    likely: dict[str, float] = defaultdict(float)
    for word, vote in votes.items():
        likely[word] += vote
    for one, count in sets.items():
        if len(one) == 1:
            likely[orders[one][0]] += count
    ranked = sorted(likely, key=lambda word: (-likely[word], -odds.get(word, 0.0), word))
    ranked = [word for word in ranked if likely[word]]
    by_odds = [
        word for word in sorted(odds, key=lambda word: (-odds[word], word)) if odds[word] > 0
    ]
    mixed = itertools.chain.from_iterable(itertools.zip_longest(ranked, by_odds))
    singles = [word for word in dict.fromkeys(mixed) if word is not None]
    said = {word for request in scored.answered for word in words_of(request.text)}
    singles = singles[: min(most, max(4, len(said) // 2))]  # the others are controls
    larger = [orders[one] for one, _ in sets.most_common() if len(one) == len(orders[one]) > 1]
    return [*((word,) for word in singles), *larger[: most // 2]]


def known_words(model: Model, requests: Sequence[Request]) -> set[str]:
    """The words of the requests that the model reads as they are; small models lack some."""
    known = set()
    for word in {word for request in requests for word in words_of(request.text)}:
        try:
            known_ids(model, word)
        except ValueError:
            continue
        known.add(word)
    return known


def _removal_votes(
    model: Model,
    behaviour: Behaviour,
    sample: Sequence[Request],
    known: set[str],
    out: Path | None,
) -> dict[str, float]:
    """For each word, of how many refused requests its removal makes answered ones."""
    tried = [
        (request, word, text)
        for request in sample
        for word in dict.fromkeys(words_of(request.text))
        if word in known and words_of(text := without_words(request.text, [word]))
    ]
    if not tried:
        return {}
    prompts = [request.asking(text) for request, _, text in tried]
    scores = score_prompts(model, behaviour, prompts, out=out)
    votes: dict[str, float] = defaultdict(float)
    for (_, word, _), score in zip(tried, scores, strict=True):
        votes[word] += float(score <= behaviour.over)
    return votes


def _log_odds(
    refused: Sequence[Request], answered: Sequence[Request], known: set[str]
) -> dict[str, float]:
    """For each word of refused requests, the log of its share of families there to that elsewhere.

    A half is added to every count.
    """
    counts = []
    for requests in (refused, answered):
        families = {
            (request.family, word) for request in requests for word in words_of(request.text)
        }
        counts.append((Counter(word for _, word in families), len({r.family for r in requests})))
    (here, n_here), (there, n_there) = counts
    return {
        word: math.log((here[word] + 0.5) / (n_here + 1) / ((there[word] + 0.5) / (n_there + 1)))
        for word in here
        if word in known
    }


def _plain(word: str) -> str:
    """A word as `words_of` has it; "" if it is a mark."""
    return next(iter(words_of(word)), "")
