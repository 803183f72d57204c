"""Published findings beside a result: which of their sites are among the strongest.

>>> import xarray as xr
>>> from mechinterp.tasks.findings import compare_findings
>>> from mechinterp.tasks.definition import Finding, heads
>>> effect = xr.DataArray([[0.1, -0.9], [0.0, 0.2]], dims=("layer", "head"),
...                       coords={"layer": [0, 1], "head": [0, 1]})
>>> movers = Finding("copy the name", "a paper", "toy", heads((0, 1), (1, 0)), "name mover")
>>> compare_findings(effect, "z", [movers], strongest=2)[0].verdict
'1 of 2 among the strongest 2'

Cells are ranked by the size of their mean, whatever its sign. A finding can be right although a
sweep does not show it, because the paper measured something else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mechinterp.core.sites import Site
from mechinterp.tasks import Finding


@dataclass(frozen=True)
class FindingRanks:
    """A finding, a verdict, and each site's rank: None if not in the grid or not computed."""

    finding: Finding
    ranks: tuple[int | None, ...]
    verdict: str

    @property
    def is_inside(self) -> bool:
        """True if at least one of its sites is in the grid and was computed."""
        return any(rank is not None for rank in self.ranks)

    @property
    def places(self) -> str:
        """The sites with their ranks, as text."""
        named = zip(self.finding.sites, self.ranks, strict=True)
        return ", ".join(f"{site} #{rank}" if rank else str(site) for site, rank in named)

    @property
    def cells(self) -> dict[str, object]:
        """A row of a report's table: column -> cell."""
        return {
            "Role": self.finding.role,
            "Found": self.verdict,
            "Sites #rank": self.places,
            "Claim": self.finding.claim,
            "Source": self.finding.source,
        }


def compare_findings(
    effect: xr.DataArray, act: str, findings: Sequence[Finding], *, strongest: int
) -> list[FindingRanks]:
    """The rank of each finding's sites, and how many are among the `strongest` cells of an effect.

    `effect`: 0 means no effect. `act`: the activation of the grid's cells; sites of any other are
    not in the grid.
    """
    ranks = _ranks(effect)
    rows = []
    for finding in findings:
        inside = [_cells(ranks, act, site) for site in finding.sites]
        best = tuple(None if cells is None else _best(cells) for cells in inside)
        n_found = sum(rank is not None and rank <= strongest for rank in best)
        verdict = f"{n_found} of {len(best)} among the strongest {strongest}"
        if not finding.sites:
            verdict = "names no site"
        elif all(cells is None for cells in inside):
            verdict = "not in this grid"
        elif all(rank is None for rank in best):
            verdict = "not computed"
        rows.append(FindingRanks(finding, best, verdict))
    return rows


def _ranks(effect: xr.DataArray) -> xr.DataArray:
    """1 for the cell whose mean is largest in size; NaN where there is no value."""
    mean = effect.mean("prompt", skipna=False) if "prompt" in effect.dims else effect
    size = abs(mean.values.ravel().astype(float))
    ranks = np.full(size.shape, np.nan)
    order = np.argsort(-size, kind="stable")[: int(np.isfinite(size).sum())]
    ranks[order] = np.arange(1, len(order) + 1)
    return mean.copy(data=ranks.reshape(mean.shape))


def _cells(ranks: xr.DataArray, act: str, site: Site) -> xr.DataArray | None:
    """The cells that a site names; None if the grid has none of them."""
    if site.act != act:
        return None
    for axis in ("layer", "head", "pos", "neuron"):
        label = getattr(site, axis)
        if label is None:
            continue
        if axis not in ranks.dims or label not in ranks[axis].values.tolist():
            return None
        ranks = ranks.sel({axis: label})
    return ranks


def _best(ranks: xr.DataArray) -> int | None:
    known = ranks.values[np.isfinite(ranks.values)]
    return int(known.min()) if len(known) else None
