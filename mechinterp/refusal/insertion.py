"""A trial of words: put into carriers beside controls, and taken out of refused requests.

>>> from mechinterp.refusal.insertion import N_CONTROLS, LEAST_FLIPS
>>> N_CONTROLS, LEAST_FLIPS
(16, 0.5)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import xarray as xr

from mechinterp.models.model import Model
from mechinterp.refusal.behaviour import share_estimate
from mechinterp.refusal.candidates import Scored, known_words, one_of_each_family
from mechinterp.refusal.carriers import Carrier, n_tokens
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
LEAST_FLIPS = 0.5
"""Of the carriers, how many a trigger turns to refused."""


@dataclass(eq=False)
class Trial:
    """Words in carriers beside controls: what was scored, and what it says."""

    model: Model
    behaviour: Behaviour
    carriers: Sequence[Carrier]
    scored: Scored
    rng: np.random.Generator
    out: Path | None
    progress: Progress | None
    n_controls: int = N_CONTROLS
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
            out=inside(self.out, f"inserted-{self._n_calls}"),
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

    @cached_property
    def _known(self) -> set[str]:
        return known_words(self.model, self.scored.answered)

    def _kind(self, words: WordSet) -> tuple[int, int]:
        return len(words), self._n_tokens(words)

    def _n_tokens(self, words: WordSet) -> int:
        for word in set(words) - set(self._widths):
            self._widths[word] = n_tokens(self.model, word)
        return sum(self._widths[word] for word in words)

    def _draw_controls(self, kind: tuple[int, int], avoid: set[str]) -> list[WordSet]:
        """Sets of other words of answered requests, of as many words and, if possible, tokens."""
        n_words, n = kind
        pool = sorted(self._known - avoid)
        if len(pool) < n_words + 1:
            raise ValueError(
                f"answered requests have {len(pool)} words beside the candidates: too few. "
                f"Give fewer candidates, or more requests."
            )
        drawn = dict[WordSet, int]()
        for _ in range(40 * self.n_controls):
            one = tuple(str(word) for word in self.rng.choice(pool, n_words, replace=False))
            drawn[one] = abs(self._n_tokens(one) - n)
            if sum(off == 0 for off in drawn.values()) >= self.n_controls:
                break
        return sorted(drawn, key=lambda one: drawn[one])[: self.n_controls]


def inside(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / name
