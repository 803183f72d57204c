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

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechinterp.core.arguments import checks_arguments
from mechinterp.models.model import Model
from mechinterp.refusal.cue_candidates import (
    Prompt,
    Reader,
    candidate_cues,
    obstacle,
    usable_cues,
)
from mechinterp.refusal.cues import Cue
from mechinterp.refusal.findings import Behaviour, CueEffect, Estimate
from mechinterp.refusal.texts import score_prompts
from mechinterp.stats.intervals import interval
from mechinterp.stats.multiple_comparisons import correct_p_values
from mechinterp.sweeps.options import Progress
from mechinterp.tasks.request_families import Request, check_requests, some_families

MAX_Q: Final = 0.05
MIN_FLIPS: Final = 0.5
"""The share of benign or of harmful requests that a cue has to flip."""
MIN_FAMILIES: Final = 3
"""In how many families it has to flip one."""
PER_FAMILY: Final = 2
"""How many harmful and how many benign requests of a family are tried."""
_MAX_EXACT = 12
_N_RESAMPLES = 9999


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
    families, drawn by `seed`; of all families if there are fewer. A cue whose absence makes the
    model do it is reported as "no ..."; `cue_named` gives it.

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
    n = min(n_families, len({request.family for request in requests}))
    chosen = _members(some_families(requests, n, seed=seed), seed)
    usable = usable_cues(model, chosen, tried)
    reader = Reader(model)
    cells = {cue.name: _cells(reader, cue, chosen) for cue in usable}
    prompts = [p for those in cells.values() for cell in those for p in cell.prompts]
    if not prompts:
        return ()
    scores = score_prompts(model, behaviour, prompts, out=out, progress=progress)
    at, effects = 0, []
    for cue in usable:
        own = cells[cue.name]
        size = sum(len(cell.prompts) for cell in own)
        measured = _Measured.of(own, scores[at : at + size] - behaviour.over)
        at += size
        effects.append(_effect(cue, measured, seed))
    q = correct_p_values(xr.DataArray([effect.p for effect in effects], dims="cue"), "bh").values
    return _judged(effects, q.tolist())


@dataclass(frozen=True)
class _Cell:
    """One request with a cue and without it, and with its word at another place, if it has one."""

    family: str
    harmful: bool
    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, eq=False)
class _Measured:
    """Scores of all cells of a cue, over the threshold; `elsewhere` is NaN where there is none."""

    family: tuple[str, ...]
    harmful: np.ndarray
    off: Float[np.ndarray, " cell"]
    on: Float[np.ndarray, " cell"]
    elsewhere: Float[np.ndarray, " cell"]

    @classmethod
    def of(cls, cells: Sequence[_Cell], scores: Float[np.ndarray, " prompt"]) -> "_Measured":
        rows, at = [], 0
        for cell in cells:
            size = len(cell.prompts)
            rows.append([*scores[at : at + size], np.nan][:3])
            at += size
        off, on, elsewhere = np.array(rows).T
        harmful = np.array([cell.harmful for cell in cells])
        return cls(tuple(cell.family for cell in cells), harmful, off, on, elsewhere)

    def mirrored(self) -> "_Measured":
        nowhere = np.full_like(self.on, np.nan)
        return _Measured(self.family, self.harmful, self.on, self.off, nowhere)

    @property
    def flipped(self) -> np.ndarray:
        """Answered without it, refused with it."""
        return (self.off <= 0) & (self.on > 0)

    def by_family(self, chosen: np.ndarray) -> Mapping[str, float]:
        """The mean change of the score in each family, over the chosen cells."""
        found: dict[str, list[float]] = defaultdict(list)
        for family, change, is_chosen in zip(self.family, self.on - self.off, chosen, strict=True):
            if is_chosen:
                found[family].append(float(change))
        return {family: float(np.mean(changes)) for family, changes in found.items()}


def _members(requests: Sequence[Request], seed: int) -> list[Request]:
    """Up to `PER_FAMILY` harmful and as many benign requests of each family."""
    draws = np.random.default_rng(seed)
    groups: dict[tuple[str, bool], list[Request]] = defaultdict(list)
    for request in requests:
        groups[request.family, request.harmful].append(request)
    return [
        group[i] for group in groups.values() for i in draws.permutation(len(group))[:PER_FAMILY]
    ]


def _cells(reader: Reader, cue: Cue, requests: Sequence[Request]) -> list[_Cell]:
    cells = []
    for request in requests:
        off, on = cue.off(request), cue.on(request)
        if off is None or on is None or obstacle(reader, off, on):
            continue
        moved = cue.elsewhere(request) if cue.elsewhere is not None else None
        fits = moved is not None and not obstacle(reader, off, moved)
        prompts = (off, on, moved) if moved is not None and fits else (off, on)
        cells.append(_Cell(request.family, request.harmful, prompts))
    return cells


def _effect(cue: Cue, measured: _Measured, seed: int) -> CueEffect:
    """What a cue does, its q and whether it is one still open."""
    forward = int(measured.flipped.sum())
    if int(measured.mirrored().flipped.sum()) > forward:
        cue, measured = cue.mirrored(), measured.mirrored()
    harmful, flipped = measured.harmful, measured.flipped
    benign_families, harmful_families = (measured.by_family(side) for side in (~harmful, harmful))
    changes = [list(benign_families.values()), list(harmful_families.values())]
    p = _p_by_sign_flips(benign_families, harmful_families, seed)
    flips_benign = _share(flipped[~harmful & (measured.off <= 0)])
    flips_harmful = _share(flipped[harmful & (measured.on > 0)])
    moved = measured.elsewhere[flipped & ~np.isnan(measured.elsewhere)]
    elsewhere = _share(moved > 0) if len(moved) else None
    families = {f for f, yes in zip(measured.family, flipped, strict=True) if yes}
    matters = (
        max(flips_benign, flips_harmful) >= MIN_FLIPS
        and len(families) >= MIN_FAMILIES
        and (elsewhere is None or elsewhere < MIN_FLIPS)
    )
    return CueEffect(
        name=cue.name,
        what=cue.what,
        on_benign=_estimate(changes[0]),
        on_harmful=_estimate(changes[1]),
        flips_benign=flips_benign,
        flips_harmful=flips_harmful,
        p=p,
        q=1.0,
        is_cue=matters,
        flips_elsewhere=elsewhere,
    )


def _judged(effects: Sequence[CueEffect], q: Sequence[float]) -> tuple[CueEffect, ...]:
    """With the false discovery rates; the cues first, then by what they flip and change."""
    found = [
        replace(effect, q=rate, is_cue=effect.is_cue and rate <= MAX_Q)
        for effect, rate in zip(effects, q, strict=True)
    ]

    def rank(effect: CueEffect) -> tuple[bool, float, float]:
        size = max(abs(effect.on_benign.mean), abs(effect.on_harmful.mean))
        return effect.is_cue, max(effect.flips_benign, effect.flips_harmful), size

    return tuple(sorted(found, key=rank, reverse=True))


def _share(hits: np.ndarray) -> float:
    return float(hits.mean()) if len(hits) else 0.0


def _estimate(changes: Sequence[float]) -> Estimate:
    """Over families; without bounds if there are fewer than two."""
    mean = float(np.mean(changes)) if changes else float("nan")
    if len(changes) < 2:
        return Estimate(mean, float("nan"), float("nan"), len(changes))
    found = interval(xr.DataArray(list(changes), dims="family"), dim="family")
    return Estimate(mean, float(found["low"]), float(found["high"]), len(changes))


def _p_by_sign_flips(benign: Mapping[str, float], harmful: Mapping[str, float], seed: int) -> float:
    """Share of the sign flips, family by family, in which the larger effect is at least as large.

    Of each kind the statistic is the sum over families by its root sum of squares, which no sign
    flip changes. All flips are tried for up to 12 families, 9999 random ones for more.
    """
    families = list(dict.fromkeys([*benign, *harmful]))
    changes = np.array([[side.get(f, 0.0) for f in families] for side in (benign, harmful)])
    scale = np.sqrt((changes**2).sum(1, keepdims=True))
    changes = np.divide(changes, scale, out=np.zeros_like(changes), where=scale > 0)
    n = len(families)
    if n <= _MAX_EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        extra = 0
    else:
        signs = np.random.default_rng(seed).choice([-1, 1], size=(_N_RESAMPLES, n))
        extra = 1
    observed = np.abs(changes.sum(1)).max()
    drawn = np.abs(signs @ changes.T).max(1)
    hits = int((drawn >= observed * (1 - 1e-9)).sum())
    return (hits + extra) / (len(signs) + extra)
