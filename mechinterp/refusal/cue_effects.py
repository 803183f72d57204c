"""Which cues a model heeds: each switched on and off in harmful and in benign requests.

A cue changes what the model does with the same request. It need not do so in every request: one
that counts where harm is present flips the harmful ones alone.

>>> from mechinterp import load_model
>>> from mechinterp.refusal.behaviour import refusal_behaviour
>>> from mechinterp.refusal.cue_effects import find_cues
>>> from mechinterp.tasks.request_families import Request
>>> requests = [
...     Request(f"{verb} the {thing} {harm}", harmful=harm == "today", family=thing)
...     for thing in ("map", "book", "story", "letter")
...     for verb in ("bring", "show")
...     for harm in ("today", "please")
... ]
>>> model = load_model("toy:trigger")
>>> found = find_cues(model, refusal_behaviour(model), requests)
>>> [effect.name for effect in found if effect.is_cue]
[]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from mechinterp.core.arguments import checks_arguments
from mechinterp.models.model import Model
from mechinterp.refusal.cue_candidates import (
    Reader,
    candidate_cues,
    obstacle,
    reasons_against,
)
from mechinterp.refusal.cue_evidence import Cell, Measured, Tried, judged, with_q
from mechinterp.refusal.cues import Cue
from mechinterp.refusal.findings import Behaviour, CueEffect
from mechinterp.refusal.texts import score_prompts
from mechinterp.sweeps.options import Progress
from mechinterp.tasks.request_families import (
    Request,
    by_family_and_harm,
    check_requests,
    some_families,
)

PER_FAMILY: Final = 2
"""How many harmful and how many benign requests of a family are tried."""


@checks_arguments
def find_cues(
    model: Model,
    behaviour: Behaviour,
    requests: Sequence[Request],
    *,
    cues: Sequence[Cue] | None = None,
    n_families: int = 12,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[CueEffect, ...]:
    """What each cue does, the strongest first; those that the model cannot read are left out.

    Each is switched on and off in up to two harmful and two benign requests of `n_families`
    families, drawn by `seed`; of all families if there are fewer. Where these do not decide on one
    that flips enough of them, it is tried in up to three times as many, its p doubled. A cue whose
    absence makes the model do it is reported as "no ..."; `cue_named` gives it.

    is_cue: q at most .05 by Benjamini and Hochberg over the cues, and it flips at least half of the
    benign requests that are answered without it, or of the harmful ones that are refused with it,
    and in three families or more. A word at a place is none if most of these flip with the word at
    another place too: it acts as a word, as a trigger does. p is by sign flips over families of the
    larger of the two effects, each in units of its root mean square.

    `cues`: `candidate_cues(requests)` by default. `out`, `progress`: as in `score_prompts`.

    Raises:
        ValueError: as `check_requests`; if two cues have one name.
    """
    check_requests(requests)
    tried = candidate_cues(requests) if cues is None else tuple(cues)
    names = [cue.name for cue in tried]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"find_cues: several cues are called {twice[0]!r}. Name them apart.")
    n_all = len({request.family for request in requests})
    sizes = dict.fromkeys((min(n_families, n_all), min(3 * n_families, n_all)))
    found: dict[str, Tried] = {}
    for n_looks, n in enumerate(sizes, start=1):
        chosen = _members(some_families(requests, n, seed=seed), seed)
        wanted = tried if n_looks == 1 else [one.given for one in found.values() if one.is_open]
        cells = _cells(model, wanted, chosen)
        if not cells:
            break
        prompts = [p for _, own in cells for cell in own for p in cell.prompts]
        folder = None if out is None else Path(out) / f"{n}-families"
        scores = score_prompts(model, behaviour, prompts, out=folder, progress=progress)
        above = iter((scores - behaviour.over).tolist())
        found |= {
            cue.name: Tried.of(cue, Measured.of(own, above), seed, n_looks=n_looks)
            for cue, own in cells
        }
        found = with_q(found)
    return judged(list(found.values()), seed)


def _members(requests: Sequence[Request], seed: int) -> list[Request]:
    """Up to `PER_FAMILY` harmful and as many benign requests of each family."""
    draws = np.random.default_rng(seed)
    return [
        group[i]
        for group in by_family_and_harm(requests).values()
        for i in draws.permutation(len(group))[:PER_FAMILY]
    ]


def _cells(
    model: Model, cues: Sequence[Cue], requests: Sequence[Request]
) -> list[tuple[Cue, list[Cell]]]:
    """The cues that are usable, with the cells of the requests that can be asked with each."""
    reader = Reader(model)
    unusable = reasons_against(reader, requests, cues)
    found = []
    for cue in (cue for cue in cues if cue.name not in unusable):
        cells = []
        for request in requests:
            off, on = cue.off(request), cue.on(request)
            if off is None or on is None or obstacle(reader, off, on):
                continue
            moved = cue.elsewhere(request) if cue.elsewhere is not None else None
            fits = moved is not None and not obstacle(reader, off, moved)
            prompts = (off, on, moved) if moved is not None and fits else (off, on)
            cells.append(Cell(request, prompts))
        found.append((cue, cells))
    return found
