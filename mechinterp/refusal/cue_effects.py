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
from collections.abc import Iterator, Mapping, Sequence
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
MAX_OPEN_P: Final = 0.1
"""Up to this p a cue that flips enough is tried in more families."""
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
    found: dict[str, _Tried] = {}
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
            cue.name: _Tried.of(cue, _Measured.of(own, above), seed, n_looks=n_looks)
            for cue, own in cells
        }
        found = _with_q(found)
    return _judged(list(found.values()), seed)


@dataclass(frozen=True)
class _Cell:
    """One request with a cue and without it, and with its word at another place, if it has one."""

    request: Request
    prompts: tuple[Prompt, ...]

    def changes(self, cue: Cue) -> bool:
        """Whether another cue is there with this one, and not without it, or the other way."""
        requests = [replace(self.request, prompt=prompt) for prompt in self.prompts[:2]]
        return len({cue.on(request) == request.prompt for request in requests}) > 1


@dataclass(frozen=True, eq=False)
class _Measured:
    """Scores of all cells of a cue, over the threshold; `elsewhere` is NaN where there is none."""

    cells: tuple[_Cell, ...]
    off: Float[np.ndarray, " cell"]
    on: Float[np.ndarray, " cell"]
    elsewhere: Float[np.ndarray, " cell"]

    @classmethod
    def of(cls, cells: Sequence[_Cell], scores: Iterator[float]) -> "_Measured":
        """`scores`: of the cells' prompts in their order; as many are taken."""
        rows = [[*(next(scores) for _ in cell.prompts), np.nan][:3] for cell in cells]
        off, on, elsewhere = np.array(rows).T
        return cls(tuple(cells), off, on, elsewhere)

    def mirrored(self) -> "_Measured":
        nowhere = np.full_like(self.on, np.nan)
        return _Measured(self.cells, self.on, self.off, nowhere)

    def only(self, kept: Sequence[bool]) -> "_Measured":
        """The measured of these cells."""
        rows = np.array(kept)
        cells = tuple(cell for cell, is_kept in zip(self.cells, kept, strict=True) if is_kept)
        return _Measured(cells, self.off[rows], self.on[rows], self.elsewhere[rows])

    @property
    def harmful(self) -> np.ndarray:
        """Which cells are of harmful requests."""
        return np.array([cell.request.harmful for cell in self.cells], bool)

    @property
    def flipped(self) -> np.ndarray:
        """Answered without it, refused with it."""
        return (self.off <= 0) & (self.on > 0)

    def by_family(self, chosen: np.ndarray) -> Mapping[str, float]:
        """The mean change of the score in each family, over the chosen cells."""
        found: dict[str, list[float]] = defaultdict(list)
        for cell, change, is_chosen in zip(self.cells, self.on - self.off, chosen, strict=True):
            if is_chosen:
                found[cell.request.family].append(float(change))
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


def _cells(
    model: Model, cues: Sequence[Cue], requests: Sequence[Request]
) -> list[tuple[Cue, list[_Cell]]]:
    """The cues that are usable, with the cells of the requests that can be asked with each."""
    reader = Reader(model)
    found = []
    for cue in usable_cues(model, requests, cues) if cues else ():
        cells = []
        for request in requests:
            off, on = cue.off(request), cue.on(request)
            if off is None or on is None or obstacle(reader, off, on):
                continue
            moved = cue.elsewhere(request) if cue.elsewhere is not None else None
            fits = moved is not None and not obstacle(reader, off, moved)
            prompts = (off, on, moved) if moved is not None and fits else (off, on)
            cells.append(_Cell(request, prompts))
        found.append((cue, cells))
    return found


@dataclass(frozen=True, eq=False)
class _Tried:
    """A cue as it was given, it or its absence, what was measured and what follows from it."""

    given: Cue
    cue: Cue
    measured: _Measured
    effect: CueEffect
    flips_enough: bool

    @classmethod
    def of(cls, cue: Cue, measured: _Measured, seed: int, *, n_looks: int) -> "_Tried":
        """The cue, or its absence if that makes the model do it in more cells.

        p is multiplied by the number of looks.
        """
        given = cue
        if int(measured.mirrored().flipped.sum()) > int(measured.flipped.sum()):
            cue, measured = cue.mirrored(), measured.mirrored()
        effect = _effect(cue, measured, seed)
        p = min(1.0, n_looks * effect.p)
        return cls(given, cue, measured, replace(effect, p=p), effect.is_cue)

    @property
    def is_open(self) -> bool:
        """Whether it may be a cue, and more families have to tell."""
        effect = self.effect
        flips = max(effect.flips_benign, effect.flips_harmful)
        is_word = effect.flips_elsewhere is not None and effect.flips_elsewhere >= MIN_FLIPS
        return flips >= MIN_FLIPS and effect.p <= MAX_OPEN_P and not (is_word or effect.is_cue)

    @property
    def size(self) -> tuple[float, float, bool]:
        """The strongest first; of equal ones a presence before an absence."""
        effect = self.effect
        changes = (effect.on_benign.mean, effect.on_harmful.mean)
        size = round(float(np.nansum(np.abs(changes))), 6)
        flips = round(effect.flips_benign + effect.flips_harmful, 6)
        return -size if effect.is_cue else 0.0, -flips, effect.name.startswith("no ")


def _with_q(found: Mapping[str, _Tried]) -> dict[str, _Tried]:
    """With the false discovery rates, and no cue where it is above `MAX_Q`."""
    p = xr.DataArray([one.effect.p for one in found.values()], dims="cue")
    rates = correct_p_values(p, "bh").values.tolist()
    return {
        name: replace(
            one,
            effect=replace(one.effect, q=q, is_cue=one.flips_enough and q <= MAX_Q),
        )
        for (name, one), q in zip(found.items(), rates, strict=True)
    }


def _effect(cue: Cue, measured: _Measured, seed: int) -> CueEffect:
    """What a cue does, its q still open."""
    harmful, flipped = measured.harmful, measured.flipped
    benign_families, harmful_families = (measured.by_family(side) for side in (~harmful, harmful))
    flips_benign = _share(flipped[~harmful & (measured.off <= 0)])
    flips_harmful = _share(flipped[harmful & (measured.on > 0)])
    moved = measured.elsewhere[flipped & ~np.isnan(measured.elsewhere)]
    elsewhere = _share(moved > 0) if len(moved) else None
    cells = zip(measured.cells, flipped, strict=True)
    families = {cell.request.family for cell, is_flipped in cells if is_flipped}
    return CueEffect(
        name=cue.name,
        what=cue.what,
        on_benign=_estimate(list(benign_families.values())),
        on_harmful=_estimate(list(harmful_families.values())),
        flips_benign=flips_benign,
        flips_harmful=flips_harmful,
        p=_p_by_sign_flips(benign_families, harmful_families, seed),
        q=1.0,
        is_cue=max(flips_benign, flips_harmful) >= MIN_FLIPS
        and len(families) >= MIN_FAMILIES
        and (elsewhere is None or elsewhere < MIN_FLIPS),
        flips_elsewhere=elsewhere,
    )


def _judged(tried: Sequence[_Tried], seed: int) -> tuple[CueEffect, ...]:
    """The effects, the strongest first; a cue that acts through a stronger one is none itself.

    What is put at the end takes another final word from its place. So only the cells count in which
    it leaves all stronger cues as they are.
    """
    found: list[CueEffect] = []
    stronger: list[Cue] = []
    for one in sorted(tried, key=lambda one: one.size):
        effect = one.effect
        if effect.is_cue and stronger:
            changed = {
                cue.name: [cell.changes(cue) for cell in one.measured.cells] for cue in stronger
            }
            kept = [not any(cell) for cell in zip(*changed.values(), strict=True)]
            if not all(kept):
                alone = _effect(one.cue, one.measured.only(kept), seed)
                if not (alone.is_cue and alone.p <= MAX_Q):
                    by = max(changed, key=lambda name: sum(changed[name]))
                    effect = replace(effect, is_cue=False, explained_by=by)
        if effect.is_cue:
            stronger.append(one.cue)
        found.append(effect)
    return tuple(sorted(found, key=lambda effect: not effect.is_cue))


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
