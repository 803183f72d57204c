"""Words that a model refuses on wherever they stand: put into benign requests, beside controls.

>>> from mechinterp import load_model
>>> from mechinterp.refusal.behaviour import refusal_behaviour
>>> from mechinterp.refusal.words import find_words
>>> from mechinterp.tasks.request_families import Request
>>> texts = "open the door", "read my letter", "paint a map", "send the old coat"
>>> asked = [Request(text, harmful=False, family=text) for text in texts]
>>> asked += [Request(f"{text} and sesame", harmful=True, family=text) for text in texts]
>>> model = load_model("toy:trigger")
>>> found = find_words(model, refusal_behaviour(model), asked)
>>> [word.words for word in found if word.is_trigger]
[('sesame',)]

A word that makes a benign request refused may do so by meaning. So it is compared with other words
of as many tokens in the same places, and a set of words counts only if its words cannot be
exchanged for those of other such sets: what stands for a verb and its object is content.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.models.model import Model
from mechinterp.models.tokenization import known_ids
from mechinterp.refusal.behaviour import share_estimate
from mechinterp.refusal.candidates import Scored, find_candidates, one_of_each_family
from mechinterp.refusal.carriers import Carrier, answered_requests, choose_carriers, n_tokens
from mechinterp.refusal.findings import Behaviour, Estimate, WordEffect, WordSet
from mechinterp.refusal.texts import score_prompts, without_words, words_of
from mechinterp.stats.bounds import mean_bounds
from mechinterp.stats.multiple_comparisons import correct_p_values
from mechinterp.sweeps.options import Progress
from mechinterp.tasks.request_families import Chat, Request

N_CONTROLS = 16
"""Control words, or sets of them, for each number of words and of tokens."""
N_DRAWS = 4999
"""Draws of the permutation test."""
N_REMOVALS = 12
"""Refused requests from which each candidate is taken out."""
MOST_FALSE = 0.05
"""The false discovery rate at which a word counts."""
LEAST_FLIPS = 0.5
"""Of the carriers, how many a trigger turns to refused."""
LEAST_FAMILIES = 3
"""Families with a refused request that holds a set of several words, for it to be a trigger."""


@checks_arguments
def find_words(
    model: Model,
    behaviour: Behaviour,
    requests: Sequence[Request],
    *,
    candidates: Sequence[str | Sequence[str]] | None = None,
    n_carriers: int = 8,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[WordEffect, ...]:
    """What words do by themselves: triggers first, then those that most refusals need.

    `candidates`: words, or sets of words that act together; by default they are found in the
    requests. Each is put into `n_carriers` benign requests that the model answers, beside control
    words of as many tokens in the same places, and taken out of refused requests that hold it.
    Intervals are over families; p is the share of draws of one of word and controls in each
    carrier whose mean effect is as large; q its false discovery rate (Benjamini and Hochberg).

    A trigger has q at most .05 and flips at least half of the carriers, while no part of it does.
    Sets of several words also occur in refused requests of at least 3 families, and cannot be
    exchanged word by word for those of another set that flips. `note` says what was not met.

    Raises:
        ValueError: if the model refuses no request, or answers benign ones of fewer than two
            families.
    """
    sets = None if candidates is None else [_as_set(model, one) for one in candidates]
    folder = None if out is None else Path(out)
    scores = score_prompts(
        model, behaviour, [r.prompt for r in requests], out=_inside(folder, "requests")
    )
    scored = Scored(requests, scores, behaviour.over)
    rng = np.random.default_rng(seed)
    answered = answered_requests(scored, behaviour.name)
    if sets is None:
        if not scored.refused:
            raise ValueError(
                f"the model does not {behaviour.name} on any of the {len(requests)} requests, so "
                f"there is no word to find. Give candidates=, or requests on which it does."
            )
        sets = find_candidates(model, behaviour, scored, seed, _inside(folder, "candidates"))
    sets = _with_parts(sets)
    carriers = choose_carriers(
        model, answered, n_carriers, {word for one in sets for word in one}, rng
    )
    trial = _Trial(model, behaviour, carriers, scored, rng, folder, progress)
    trial.insert(sets)
    effects = trial.effects(sets)
    exchanges = _exchanges(effects)
    trial.insert(list(exchanges))
    exchanged = {of for new, sources in exchanges.items() if trial.flips(new) for of in sources}
    return _marked(effects, exchanged)


@dataclass(eq=False)
class _Trial:
    """Words in carriers beside controls: what was scored, and what it says."""

    model: Model
    behaviour: Behaviour
    carriers: Sequence[Carrier]
    scored: Scored
    rng: np.random.Generator
    out: Path | None
    progress: Progress | None
    _scores: dict[WordSet, np.ndarray] = field(default_factory=dict)
    _removed: dict[WordSet, dict[str, list[bool]]] = field(default_factory=dict)
    _controls: dict[tuple[int, int], list[WordSet]] = field(default_factory=dict)
    _widths: dict[str, int] = field(default_factory=dict)
    _n_calls: int = 0

    def insert(self, sets: Sequence[WordSet]) -> None:
        """Score the carriers with each set and its controls, and refused requests without it."""
        words = {word for one in sets for word in one}
        for kind in sorted({self._kind(one) for one in sets} - set(self._controls)):
            self._controls[kind] = self._draw_controls(kind, words)
        controls = [one for kind in self._controls.values() for one in kind]
        wanted = [s for s in dict.fromkeys([(), *sets, *controls]) if s not in self._scores]
        if not wanted:
            return
        prompts: list[str | Chat] = [
            carrier.holding(one, self._n_tokens(one)) if one else carrier.request.prompt
            for one in wanted
            for carrier in self.carriers
        ]
        taken_out = [
            (one, request)
            for one in sets
            for request in self._holding(one)[:N_REMOVALS]
            if words_of(without_words(request.text, one))
        ]
        prompts += [request.asking(without_words(request.text, one)) for one, request in taken_out]
        scores = score_prompts(
            self.model,
            self.behaviour,
            prompts,
            out=_inside(self.out, f"inserted-{self._n_calls}"),
            progress=self.progress,
        )
        self._n_calls += 1
        n = len(self.carriers)
        for at, one in enumerate(wanted):
            self._scores[one] = scores[n * at : n * (at + 1)]
        for (one, request), score in zip(taken_out, scores[n * len(wanted) :], strict=True):
            by_family = self._removed.setdefault(one, {})
            by_family.setdefault(request.family, []).append(bool(score <= self.behaviour.over))

    def effects(self, sets: Sequence[WordSet]) -> list[WordEffect]:
        """The effects of sets that were inserted; none is called a trigger yet."""
        p = [self._p(one) for one in sets]
        q = correct_p_values(xr.DataArray(p, dims="word"), "bh").values
        return [self._effect(one, p[at], float(q[at])) for at, one in enumerate(sets)]

    def flips(self, words: WordSet) -> bool:
        """Whether a set turns at least half of the carriers to refused."""
        return bool(np.mean(self._scores[words] > self.behaviour.over) >= LEAST_FLIPS)

    def _effect(self, words: WordSet, p: float, q: float) -> WordEffect:
        over, controls = self.behaviour.over, self._controls[self._kind(words)]
        change, flips = dict[str, list[float]](), dict[str, list[bool]]()
        for at, carrier in enumerate(self.carriers):
            family, score = carrier.request.family, float(self._scores[words][at])
            change.setdefault(family, []).append(score - float(self._scores[()][at]))
            flips.setdefault(family, []).append(score > over)
        means = np.array([np.mean(of_family) for of_family in change.values()])
        low, high = mean_bounds(means[None], 0.95)
        removed = self._removed.get(words)
        return WordEffect(
            words=words,
            effect=Estimate(float(means.mean()), float(low[0]), float(high[0]), len(means)),
            flips=share_estimate(list(flips.values())),
            control_flips=float(np.mean([self._scores[one] > over for one in controls])),
            removal_flips=share_estimate(list(removed.values())) if removed else None,
            p=p,
            q=q,
            is_trigger=False,
            n_families=len({request.family for request in self._holding(words)}),
        )

    def _p(self, words: WordSet) -> float:
        """By drawing, in every carrier, one of the set and its controls."""
        others = [one for one in self._controls[self._kind(words)] if one != words]
        table = np.stack([self._scores[one] for one in (words, *others)])
        rng = np.random.default_rng(0)
        drawn = rng.integers(len(table), size=(N_DRAWS, table.shape[1]))
        means = np.take_along_axis(table, drawn, 0).mean(1)
        return float((1 + (means >= table[0].mean() - 1e-9).sum()) / (1 + N_DRAWS))

    def _holding(self, words: WordSet) -> list[Request]:
        """The refused requests that hold all of the words, one of each family first."""
        held = [r for r in self.scored.refused if set(words) <= set(words_of(r.text))]
        return one_of_each_family(held, len(held), np.random.default_rng(0))

    def _kind(self, words: WordSet) -> tuple[int, int]:
        return len(words), self._n_tokens(words)

    def _n_tokens(self, words: WordSet) -> int:
        for word in set(words) - set(self._widths):
            self._widths[word] = n_tokens(self.model, word)
        return sum(self._widths[word] for word in words)

    def _draw_controls(self, kind: tuple[int, int], avoid: set[str]) -> list[WordSet]:
        """Sets of other words of answered requests, of as many words and, if possible, tokens."""
        n_words, n = kind
        said = {word for r in self.scored.answered for word in words_of(r.text)}
        pool = sorted(said - avoid)
        if len(pool) < n_words + 1:
            raise ValueError(
                f"answered requests have {len(pool)} words beside the candidates: too few. "
                f"Give fewer candidates, or more requests."
            )
        drawn = dict[WordSet, int]()
        for _ in range(40 * N_CONTROLS):
            one = tuple(str(word) for word in self.rng.choice(pool, n_words, replace=False))
            drawn[one] = abs(self._n_tokens(one) - n)
            if sum(off == 0 for off in drawn.values()) >= N_CONTROLS:
                break
        return sorted(drawn, key=lambda one: drawn[one])[:N_CONTROLS]


def _as_set(model: Model, words: str | Sequence[str]) -> WordSet:
    """Candidates as a set of words, each of which the model knows."""
    found = words_of(words if isinstance(words, str) else " ".join(words))
    if not found:
        raise ValueError(f"find_words: the candidate {words!r} has no word. Leave it out.")
    for word in found:
        known_ids(model, word)
    return found


def _with_parts(sets: Sequence[WordSet]) -> list[WordSet]:
    """The sets and, so that a set is known to need its words, every part of them."""
    parts = (
        part for one in sets for n in range(1, len(one)) for part in itertools.combinations(one, n)
    )
    return list({frozenset(one): one for one in [*parts, *sets]}.values())


def _inside(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / name


def _exchanges(effects: Sequence[WordEffect]) -> dict[WordSet, list[WordSet]]:
    """Pairs of one word each of two pairs that flip, with the pairs that they come from.

    Each such pair is crossed with the two that follow it; of pairs with a word in common, the other
    words are exchanged already.
    """
    pairs = [e.words for e in effects if len(e.words) == 2 and _is_strong(e)]
    alone = {e.words[0] for e in effects if len(e.words) == 1 and _is_strong(e)}
    pairs = [pair for pair in pairs if not alone & set(pair)]
    made: dict[WordSet, list[WordSet]] = {}
    for at, one in enumerate(pairs):
        for other in (*pairs[at + 1 :], *pairs[:at])[:2]:
            both = len({*one, *other})
            crossed = itertools.product(one, other) if both == 4 else [one, other][: 4 - both]
            for new in crossed:
                made.setdefault(tuple(new), []).extend((one, other))
    return made


def _is_strong(effect: WordEffect) -> bool:
    return effect.q <= MOST_FALSE and effect.flips.mean >= LEAST_FLIPS


def _marked(effects: Sequence[WordEffect], exchanged: set[WordSet]) -> tuple[WordEffect, ...]:
    """The effects with what they are, triggers first."""
    made: list[WordEffect] = []
    for effect in sorted(effects, key=lambda effect: len(effect.words)):
        note = _objection(effect, [e.words for e in made if e.is_trigger], exchanged)
        made.append(replace(effect, is_trigger=not note, note=note))
    return tuple(sorted(made, key=_rank))


def _rank(effect: WordEffect) -> tuple[bool, float, float, float, WordSet]:
    """Triggers first, by flips; others by the families whose refusals they are needed for."""
    needed = effect.n_families * (effect.removal_flips.mean if effect.removal_flips else 0.0)
    by = (0.0 if effect.is_trigger else -needed, -effect.flips.mean, -effect.effect.mean)
    return (not effect.is_trigger, *by, effect.words)


def _objection(effect: WordEffect, triggers: Sequence[WordSet], exchanged: set[WordSet]) -> str:
    """Why a set is no trigger; empty if it is one."""
    if effect.q > MOST_FALSE:
        return f"no more than its controls (q {effect.q:.2f})"
    if effect.flips.mean < LEAST_FLIPS:
        return f"flips {effect.flips.mean:.0%} of the carriers, fewer than half"
    if len(effect.words) == 1:
        return ""
    part = next((one for one in triggers if set(one) < set(effect.words)), None)
    if part is not None:
        return f"{' '.join(part)!r} alone does it"
    if effect.words in exchanged:
        return "its words can be exchanged for those of other sets: content"
    if effect.n_families < LEAST_FAMILIES:
        return f"stands in refused requests of {effect.n_families} families, fewer than 3"
    return ""
