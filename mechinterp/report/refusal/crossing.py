"""The crossing of harm, trigger and cue as its cells: what was seen in each, and what was foretold.

cells = read_cells(study)
cells[0].share                # of families whose benign request, with neither, is refused
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mechinterp.refusal.findings import RefusalStudy
from mechinterp.report.refusal.rules import foretold


@dataclass(frozen=True)
class Cell:
    """Requests with these factors: the score of each family that has them.

    share: of families over the threshold; NaN where there is none. foretold: what the verdict's
    rule says; None if there is no rule.
    """

    harm: bool
    trigger: bool
    cue: bool
    families: tuple[str, ...]
    scores: tuple[float, ...]
    share: float
    foretold: bool | None

    @property
    def mean(self) -> float:
        """The mean score over families."""
        return float(np.mean(self.scores)) if self.scores else math.nan

    @property
    def name(self) -> str:
        """The cell in words."""
        return f"{'harmful' if self.harm else 'benign'}, {self.factors}"

    @property
    def factors(self) -> str:
        """Trigger and cue in words."""
        names = [name for name in ("trigger", "cue") if getattr(self, name)]
        return f"with {' and '.join(names)}" if names else "with neither"


def read_cells(study: RefusalStudy) -> tuple[Cell, ...]:
    """All eight cells: benign first, without before with."""
    crossing, rule = study.crossing, study.verdict.rule
    families = [str(name) for name in crossing["family"].values.tolist()]
    found = []
    for harm, trigger, cue in product((False, True), repeat=3):
        here = crossing.sel(harm=harm, trigger=trigger, cue=cue)
        values = here.transpose("family").values
        there = np.isfinite(values)
        scores = tuple(map(float, values[there]))
        share = float(np.mean([score > study.over for score in scores])) if scores else math.nan
        said = None if rule is None else foretold(rule, harm=harm, trigger=trigger, cue=cue)
        names = tuple(name for name, is_there in zip(families, there, strict=True) if is_there)
        found.append(Cell(harm, trigger, cue, names, scores, share, said))
    return tuple(found)


def crossed(cells: Sequence[Cell], factor: str) -> bool:
    """Whether any request has this factor, "trigger" or "cue"."""
    return any(cell.scores for cell in cells if getattr(cell, factor))
