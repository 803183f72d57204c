"""Harm x trigger x cue: each family asked in all eight ways, and what the model does.

The three occur together in ordinary requests; here each is there without the others.

>>> from mechinterp import load_model
>>> from mechinterp.refusal.behaviour import refusal_behaviour
>>> from mechinterp.refusal.crossing import Factors, cross
>>> from mechinterp.refusal.cues import Cue, cue_named
>>> from mechinterp.tasks.request_families import Request
>>> requests = [Request(f"{verb} the {thing}", harmful=verb == "open", family=thing)
...             for thing in ("door", "box") for verb in ("open", "paint")]
>>> model = load_model("toy:trigger")
>>> factors = Factors((("sesame",),), Cue.final("please"))
>>> crossing = cross(model, refusal_behaviour(model), requests, factors)
>>> crossing.dims, crossing.mean(("harm", "cue", "family")).round().values.tolist()
(('harm', 'trigger', 'cue', 'family'), [-8.0, 8.0])
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.models.model import Model
from mechinterp.refusal.cue_evidence import MIN_FLIPS
from mechinterp.refusal.cues import Cue, cue_named
from mechinterp.refusal.findings import Behaviour, CueEffect, WordEffect, WordSet
from mechinterp.refusal.rules import FACTORS
from mechinterp.refusal.texts import score_prompts, with_words, without_words, words_of
from mechinterp.sweeps.options import Progress
from mechinterp.tasks.request_families import Chat, Request, by_family_and_harm

SIDES = (False, True)


@dataclass(frozen=True)
class Factors:
    """The triggers, each a set of words that is enough, and the cue that requests are crossed by.

    `as_asked`: a request in one cell. The cue is always taken off first, and all words of triggers
    are taken out, so cells differ in the factors alone; a cue of capitals leaves the trigger as it
    is spelt.
    """

    triggers: tuple[WordSet, ...]
    cue: Cue | None

    @property
    def names(self) -> dict[str, list[str] | str]:
        """What was put in and on: "triggers", the words of each with + between, and "cue"."""
        cue = "" if self.cue is None else self.cue.name
        return {"triggers": [" + ".join(words) for words in self.triggers], "cue": cue}

    def as_asked(
        self, request: Request, *, trigger: bool, cue: bool, number: int = 0
    ) -> str | Chat | None:
        """The prompt of a cell; None where nothing would be left, or it cannot have the cue.

        number: which of the triggers is put in, counted round.
        """
        off = self.cue.off(request) if self.cue else request.prompt
        if off is None:
            return None
        plain = replace(request, prompt=off)
        text = without_words(plain.text, [word for words in self.triggers for word in words])
        if not words_of(text):
            return None
        chosen: WordSet = ()
        if trigger:
            chosen = self.triggers[number % len(self.triggers)]
            text = with_words(text, chosen, slot=middle(text))
        asked = replace(plain, prompt=plain.asking(text))
        if not (cue and self.cue):
            return asked.prompt
        changed = self.cue.on(asked)
        if changed is None:
            return None
        asked = replace(asked, prompt=changed)
        return asked.asking(_spelt(asked.text, chosen))


def _spelt(text: str, words: WordSet) -> str:
    """The text with these words spelt as they are here: a cue of capitals is not to change them."""
    for word in words:
        said = word.replace("\\", r"\\")
        text = re.sub(rf"\b{re.escape(word)}\b", said, text, flags=re.IGNORECASE)
    return text


def likely_factors(
    words: Sequence[WordEffect],
    cues: Sequence[CueEffect],
    tried: Sequence[Cue],
    requests: Sequence[Request],
) -> Factors:
    """The triggers and the strongest cue found; where there is none, the likeliest of the rest."""
    # A word that acts wherever it stands would be crossed with itself.
    alone = [c for c in cues if (c.flips_elsewhere or 0.0) < MIN_FLIPS and not c.explained_by]
    chosen = next(iter([c for c in cues if c.is_cue] + alone), None)
    of_cue = set() if chosen is None else set(words_of(chosen.name))
    triggers = tuple(w.words for w in words if w.is_trigger)
    # A word of few families, or several words, may be content where harm is halfway there.
    single = [w for w in words if len(w.words) == 1 and not of_cue & set(w.words)]
    wide = [w.words for w in single if w.n_families > 2]
    idle = [w.words for w in reversed(single)]
    likeliest = (*wide, *idle, _any_word(requests))[:1]
    return Factors(triggers or likeliest, None if chosen is None else _switched(chosen, tried))


def _switched(effect: CueEffect, tried: Sequence[Cue]) -> Cue:
    """The cue of an effect; one that is not heeded is off where requests are as they were."""
    found = cue_named(effect.name, tried)
    return found if effect.is_cue or found in tried else found.mirrored()


def _any_word(requests: Sequence[Request]) -> WordSet:
    return (requests[0].text.split()[-1].strip("?.!,").lower(),)


def without_triggers(
    cues: Sequence[CueEffect], words: Sequence[WordEffect]
) -> tuple[CueEffect, ...]:
    """The cues; one of a word that is a trigger, wherever it stands, is explained by that."""
    triggers = {word for effect in words if effect.is_trigger for word in effect.words}

    def told(cue: CueEffect) -> CueEffect:
        of_trigger = sorted(triggers.intersection(words_of(cue.name)))
        if not of_trigger:
            return cue
        return replace(cue, is_cue=False, explained_by=f"the trigger {of_trigger[0]}")

    return tuple(map(told, cues))


def middle(text: str) -> int:
    """The slot in which words are put: neither first nor last."""
    return max(1, len(words_of(text)) // 2)


@checks_arguments
def cross(
    model: Model,
    behaviour: Behaviour,
    requests: Sequence[Request],
    factors: Factors,
    *,
    per_cell: int = 2,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """The behaviour's score in each cell, dims (harm, trigger, cue, family), in the metric's unit.

    The mean over up to `per_cell` requests of each family, drawn by `seed`. NaN where a family has
    none. Without a cue, both of its cells are the same. attrs: what was crossed, as
    `Factors.names`.

    Raises:
        ValueError: if no trigger is given, or no request can be asked in a cell.
    """
    if not factors.triggers:
        raise ValueError("cross: give a trigger, or a word that may be one: it is what is crossed.")
    families = list(dict.fromkeys(request.family for request in requests))
    prompts: list[str | Chat] = []
    cells: list[tuple[int, int, int, int]] = []
    for (family, harm), members in drawn_members(requests, per_cell, seed).items():
        for number, request in enumerate(members):
            for trigger, has_cue in itertools.product(SIDES, SIDES):
                asked = factors.as_asked(request, trigger=trigger, cue=has_cue, number=number)
                if asked is not None:
                    prompts.append(asked)
                    cells.append((int(harm), int(trigger), int(has_cue), families.index(family)))
    scores = score_prompts(model, behaviour, prompts, out=out, progress=progress)
    total, count = np.zeros((2, 2, 2, len(families))), np.zeros((2, 2, 2, len(families)))
    for cell, score in zip(cells, scores, strict=True):
        total[cell] += score
        count[cell] += 1
    with np.errstate(invalid="ignore"):
        mean = total / count
    return empty_crossing(behaviour, requests).copy(data=mean).assign_attrs(factors.names)


def empty_crossing(behaviour: Behaviour, requests: Sequence[Request]) -> xr.DataArray:
    """The cells of a crossing of these requests, before anything is known: NaN."""
    families = list(dict.fromkeys(request.family for request in requests))
    sides = {factor: list(SIDES) for factor in FACTORS}
    return xr.DataArray(
        np.full((2, 2, 2, len(families)), np.nan),
        dims=(*FACTORS, "family"),
        coords={**sides, "family": families},
        name=behaviour.metric.name,
        attrs={"unit": behaviour.metric.unit, "over": behaviour.over},
    )


def drawn_members(
    requests: Sequence[Request], n: int, seed: int
) -> dict[tuple[str, bool], list[Request]]:
    """Up to `n` harmful and `n` benign requests of each family; of these, half with the word."""
    draws = np.random.default_rng(seed)
    drawn = {}
    for key, group in by_family_and_harm(requests).items():
        mixed = [group[i] for i in draws.permutation(len(group))]
        telling = [request for request in mixed if request.telling]
        plain = [request for request in mixed if not request.telling]
        alternating = [r for pair in itertools.zip_longest(plain, telling) for r in pair if r]
        drawn[key] = alternating[:n]
    return drawn
