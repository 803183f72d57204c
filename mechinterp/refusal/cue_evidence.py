"""What the scores of requests with a cue and without it say of the cue.

p is by sign flips over families; a cue has to flip enough requests in enough families, not as a
word does at any place, and not through a stronger cue.

>>> from mechinterp.refusal.cue_evidence import p_by_sign_flips
>>> p_by_sign_flips({"tea": 1.0, "map": 2.0}, {}, seed=0)
0.5
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechinterp.refusal.cue_candidates import Prompt
from mechinterp.refusal.cues import Cue
from mechinterp.refusal.findings import CueEffect, Estimate
from mechinterp.stats.intervals import interval
from mechinterp.stats.multiple_comparisons import correct_p_values
from mechinterp.tasks.request_families import Request

MAX_Q: Final = 0.05
MIN_FLIPS: Final = 0.5
"""The share of benign or of harmful requests that a cue has to flip."""
MIN_FAMILIES: Final = 3
"""In how many families it has to flip one."""
MAX_OPEN_P: Final = 0.1
"""Up to this p a cue that flips enough is tried in more families."""
_MAX_EXACT = 12
_N_RESAMPLES = 9999


@dataclass(frozen=True)
class Cell:
    """One request with a cue and without it, and with its word at another place, if it has one."""

    request: Request
    prompts: tuple[Prompt, ...]

    def changes(self, cue: Cue) -> bool:
        """Whether another cue is there with this one, and not without it, or the other way."""
        requests = [replace(self.request, prompt=prompt) for prompt in self.prompts[:2]]
        return len({cue.on(request) == request.prompt for request in requests}) > 1


@dataclass(frozen=True, eq=False)
class Measured:
    """Scores of all cells of a cue, over the threshold; `elsewhere` is NaN where there is none."""

    cells: tuple[Cell, ...]
    off: Float[np.ndarray, " cell"]
    on: Float[np.ndarray, " cell"]
    elsewhere: Float[np.ndarray, " cell"]

    @classmethod
    def of(cls, cells: Sequence[Cell], scores: Iterator[float]) -> "Measured":
        """`scores`: of the cells' prompts in their order; as many are taken."""
        rows = [[*(next(scores) for _ in cell.prompts), np.nan][:3] for cell in cells]
        off, on, elsewhere = np.array(rows).T
        return cls(tuple(cells), off, on, elsewhere)

    def mirrored(self) -> "Measured":
        nowhere = np.full_like(self.on, np.nan)
        return Measured(self.cells, self.on, self.off, nowhere)

    def only(self, kept: Sequence[bool]) -> "Measured":
        """The measured of these cells."""
        rows = np.array(kept)
        cells = tuple(cell for cell, is_kept in zip(self.cells, kept, strict=True) if is_kept)
        return Measured(cells, self.off[rows], self.on[rows], self.elsewhere[rows])

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


@dataclass(frozen=True, eq=False)
class Tried:
    """A cue as it was given, it or its absence, what was measured and what follows from it."""

    given: Cue
    cue: Cue
    measured: Measured
    effect: CueEffect
    flips_enough: bool

    @classmethod
    def of(cls, cue: Cue, measured: Measured, seed: int, *, n_looks: int) -> "Tried":
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


def with_q(found: Mapping[str, Tried]) -> dict[str, Tried]:
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


def _effect(cue: Cue, measured: Measured, seed: int) -> CueEffect:
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
        p=p_by_sign_flips(benign_families, harmful_families, seed),
        q=1.0,
        is_cue=max(flips_benign, flips_harmful) >= MIN_FLIPS
        and len(families) >= MIN_FAMILIES
        and (elsewhere is None or elsewhere < MIN_FLIPS),
        flips_elsewhere=elsewhere,
    )


def judged(tried: Sequence[Tried], seed: int) -> tuple[CueEffect, ...]:
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


def p_by_sign_flips(benign: Mapping[str, float], harmful: Mapping[str, float], seed: int) -> float:
    """Share of the sign flips, family by family, in which the larger effect is at least as large.

    Of each kind the statistic is the sum over families by its root sum of squares, which no sign
    flip changes. All flips are tried for up to 12 families, 9999 random ones for more.
    """
    families = list(dict.fromkeys([*benign, *harmful]))
    changes = np.array([[side.get(f, 0.0) for f in families] for side in (benign, harmful)])
    # First by the largest, so that no square is 0 or infinite.
    changes = _in_units_of(changes, np.abs(changes).max(1, initial=0.0, keepdims=True))
    changes = _in_units_of(changes, np.sqrt((changes**2).sum(1, keepdims=True)))
    n = len(families)
    if n <= _MAX_EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        extra = 0
    else:
        signs = np.random.default_rng(seed).choice([-1, 1], size=(_N_RESAMPLES, n))
        extra = 1
    observed = np.abs(changes.sum(1)).max()
    drawn = np.abs(signs @ changes.T).max(1)
    hits = int((drawn >= observed - 1e-9).sum())  # in units of the root sum of squares
    return (hits + extra) / (len(signs) + extra)


def _in_units_of(changes: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(changes, size, out=np.zeros_like(changes), where=size > 0))
