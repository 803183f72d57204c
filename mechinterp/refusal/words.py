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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mechinterp.core.arguments import checks_arguments
from mechinterp.models.model import Model
from mechinterp.models.tokenization import known_ids
from mechinterp.refusal.candidates import MOST_WORDS, Scored, find_candidates
from mechinterp.refusal.carriers import answered_requests, choose_carriers
from mechinterp.refusal.findings import Behaviour, WordEffect, WordSet
from mechinterp.refusal.insertion import LEAST_FLIPS, N_CONTROLS, Trial, inside
from mechinterp.refusal.texts import score_prompts, words_of
from mechinterp.sweeps.options import Progress
from mechinterp.tasks.request_families import Request

MOST_FALSE = 0.05
"""The false discovery rate at which a word counts."""
LEAST_FAMILIES = 3
"""Families with a refused request that holds a set of several words, for it to be a trigger."""


@dataclass(frozen=True)
class Effort:
    """How many words are tried: found in requests, put into carriers, beside control words each."""

    n_words: int = MOST_WORDS
    n_carriers: int = 8
    n_controls: int = N_CONTROLS


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
    sets = None if candidates is None else [as_set(model, one) for one in candidates]
    folder = None if out is None else Path(out)
    prompts = [request.prompt for request in requests]
    scores = score_prompts(model, behaviour, prompts, out=inside(folder, "requests"))
    scored = Scored(requests, scores, behaviour.over)
    return try_words(
        model,
        behaviour,
        scored,
        sets,
        effort=Effort(n_carriers=n_carriers),
        seed=seed,
        out=folder,
        progress=progress,
    )


def try_words(
    model: Model,
    behaviour: Behaviour,
    scored: Scored,
    sets: Sequence[WordSet] | None = None,
    *,
    effort: Effort | None = None,
    seed: int = 0,
    out: Path | None = None,
    progress: Progress | None = None,
) -> tuple[WordEffect, ...]:
    """As `find_words`, for requests that are scored already."""
    effort = effort or Effort()
    rng = np.random.default_rng(seed)
    answered = answered_requests(scored, behaviour.name)
    if sets is None:
        if not scored.refused:
            raise ValueError(
                f"the model does not {behaviour.name} on any of the {len(scored.requests)} "
                f"requests, so "
                f"there is no word to find. Give candidates=, or requests on which it does."
            )
        sets = find_candidates(
            model, behaviour, scored, effort.n_words, seed, inside(out, "candidates")
        )
    sets = _with_parts(sets)
    carriers = choose_carriers(
        model, answered, effort.n_carriers, {word for one in sets for word in one}, rng
    )
    n = effort.n_controls
    trial = Trial(model, behaviour, carriers, scored, rng, out, progress, n_controls=n)
    trial.insert(sets)
    effects = trial.effects(sets)
    exchanges = _exchanges(effects)
    trial.insert(list(exchanges))
    exchanged = {of for new, sources in exchanges.items() if trial.flips(new) for of in sources}
    return marked(effects, exchanged)


def as_set(model: Model, words: str | Sequence[str]) -> WordSet:
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


def _exchanges(effects: Sequence[WordEffect]) -> dict[WordSet, list[WordSet]]:
    """Pairs of one word each of two pairs that flip, with the pairs that they come from.

    Each such pair is crossed with the two that follow it; of pairs with a word in common, the other
    words are exchanged already.
    """
    pairs = [e.words for e in effects if len(e.words) == 2 and is_strong(e)]
    alone = {e.words[0] for e in effects if len(e.words) == 1 and is_strong(e)}
    pairs = [pair for pair in pairs if not alone & set(pair)]
    made: dict[WordSet, list[WordSet]] = {}
    for at, one in enumerate(pairs):
        for other in (*pairs[at + 1 :], *pairs[:at])[:2]:
            both = len({*one, *other})
            crossed = itertools.product(one, other) if both == 4 else [one, other][: 4 - both]
            for new in crossed:
                made.setdefault(tuple(new), []).extend((one, other))
    return made


def is_strong(effect: WordEffect) -> bool:
    """Whether words turn benign requests to refused, beyond what their controls do."""
    return effect.q <= MOST_FALSE and effect.flips.mean >= LEAST_FLIPS


def marked(effects: Sequence[WordEffect], exchanged: set[WordSet]) -> tuple[WordEffect, ...]:
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
