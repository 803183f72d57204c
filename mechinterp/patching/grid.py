"""A grid of patches and the first-order estimate of each: shared by all of attribution patching.

Patches of one activation at one position are estimated together, as a band of heads or neurons.
A cell of the grid picks its column of the band, so thousands of cells cost about as much as a few.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.activations import Activations
from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.core.signs import sign_of_change
from mechinterp.core.sites import HookError, Site, narrow_index
from mechinterp.engine.gradients import (
    GradientPass,
    ValuesAndGradients,
    Variant,
    check_differentiable,
    plan_gradient_passes,
    run_gradient_pass,
)
from mechinterp.models.hook_points import axis_size
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.patching.qk_fix import QKFix
from mechinterp.sweeps.options import Progress
from mechinterp.sweeps.points import coordinate

Over = Mapping[str, Iterable[Any]]
"""Axis of the grid -> its values, which a user's function maps to sites."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimates in the metric's unit, and the passes that they took."""

    estimates: Float[np.ndarray, "variant cell prompt"]
    chunks: Sequence[GradientPass]
    seconds: float


Columns = Float[np.ndarray, "row _"]


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """The patches to estimate.

    `bands`: the fewest sites that contain all patched ones. `cells`: for each point its band, and
    which head or neuron of the band; None is all of it.
    """

    model: Model
    prompts: Prompts
    source: Activations
    dims: Mapping[str, Sequence[object]]
    points: Sequence[Mapping[str, object]]
    bands: Sequence[Site]
    cells: Sequence[tuple[int, int | None]]

    @classmethod
    def from_sites(
        cls, model: Model, prompts: Text, source: Activations, over: Over, site: Callable[..., Site]
    ) -> "PatchGrid":
        """The grid, after all checks that need no pass.

        Raises:
            HookError: if the model or the source lacks a site, or the shapes differ.
            ValueError: if a point or its site does not fit.
        """
        given = tokenize(model, prompts)
        dims = {name: list(values) for name, values in over.items()}
        for name, values in dims.items():
            if name == "prompt":
                raise ValueError('over: the result already has a dimension "prompt". Rename it.')
            if not values:
                raise ValueError(f"over: {name!r} has no values. Give at least one.")
        points = [dict(zip(dims, p, strict=True)) for p in itertools.product(*dims.values())]
        bands: dict[Site, int] = {}
        cells = []
        for point in points:
            want = site(**point)
            if not isinstance(want, Site):
                raise ValueError(f"site(**{point!r}) returned {want!r}, not a Site.")
            check_differentiable(model, want)
            wide = Site(want.act, want.layer, pos=want.pos)
            band = wide if wide in source else want
            if band not in bands:
                _check_source(model, given, source, band)
            column = want.head if want.neuron is None else want.neuron
            cells.append((bands.setdefault(band, len(bands)), column if band == wide else None))
        return cls(model, given, source, dims, points, list(bands), cells)

    def first_order(self, part: ValuesAndGradients) -> Float[np.ndarray, "cell row"]:
        """(source - base) * gradient, summed over each cell's site."""
        return self._cells([self._changed(band, part) for band in self.bands])

    def with_qk_fix(
        self, fix: QKFix
    ) -> Callable[[ValuesAndGradients], Float[np.ndarray, "cell row"]]:
        """As `first_order`, but queries and keys by the change of the pattern."""

        def estimate(part: ValuesAndGradients) -> Float[np.ndarray, "cell row"]:
            return self._cells(
                [
                    fix.effects(band, part) if fix.applies(band) else self._changed(band, part)
                    for band in self.bands
                ]
            )

        return estimate

    def result(
        self,
        done: Estimates,
        estimates: Float[np.ndarray, "cell prompt"],
        metric: Metric,
        method: str,
        extra_passes: int = 0,
    ) -> xr.DataArray:
        """The estimates as a labelled array, with what they cost.

        Raises:
            HookError: if one is not finite.
        """
        if not np.isfinite(estimates).all():
            point = self.points[int(np.argwhere(~np.isfinite(estimates))[0, 0])]
            raise HookError(
                f"{method} of {metric.name} is not finite for {point}: the source, the base value "
                f'or the gradient is not. Instead of "attn_scores" patch "pattern".'
            )
        n_layers, size = self.model.cfg.n_layers, self.prompts.tokens.numel()
        whole_passes = len(done.estimates) + extra_passes
        attrs = {
            "unit": metric.unit,
            **sign_of_change(metric, "patch"),
            "method": method,
            "arms": len(self.points),
            "passes": len(done.chunks) + extra_passes,
            "backward_passes": len(done.chunks),
            "token_layers": size * n_layers * whole_passes,
            "token_layers_naive": size * n_layers * len(self.points),
            "peak_bytes_planned": max(chunk.planned_bytes for chunk in done.chunks),
            "model": models.name(self.model),
            "size": models.size(self.model),
            "weights": models.processing(self.model),
            "seconds": done.seconds,
        }
        return xr.DataArray(
            estimates.reshape(*map(len, self.dims.values()), len(self.prompts)),
            dims=(*self.dims, "prompt"),
            coords={"prompt": range(len(self.prompts))}
            | {name: (name, coordinate(values)) for name, values in self.dims.items()},
            attrs=attrs,
            name=metric.name,
        )

    def _changed(self, band: Site, part: ValuesAndGradients) -> Columns:
        whole = band.whole()
        positions = None if band.pos is None else part.prompts.positions(band.pos)
        index = narrow_index(whole, band, positions)
        old, slope = part.values[whole][index], part.gradients[whole][index]
        new = self.source[band][part.rows].to(old)
        # Both are -inf in a causal mask; their difference would be NaN, but nothing changes there.
        product = torch.where(new == old, 0.0, new - old) * slope
        axes = band.narrowed_axes or ()
        columns = [i for i, axis in enumerate(axes) if axis in ("head", "neuron")]
        n_columns = product.shape[columns[0]] if columns else 1
        product = product.movedim(columns[0], 1) if columns else product
        return _summed(product.reshape(len(product), n_columns, -1))

    def _cells(self, bands: Sequence[Columns]) -> Float[np.ndarray, "cell row"]:
        total = [band.sum(1) for band in bands]
        rows = [
            total[band] if column is None else bands[band][:, column] for band, column in self.cells
        ]
        return np.stack(rows)


def estimate_grid(
    grid: PatchGrid,
    metric: Metric,
    variants: Sequence[Variant],
    also: Sequence[Site],
    estimate: Callable[[ValuesAndGradients], Float[np.ndarray, "cell row"]],
    *,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> Estimates:
    """The estimates of every variant of the run.

    `also`: sites beside the grid's at which `estimate` needs values and gradients.
    """
    began = time.perf_counter()
    needed = [*grid.bands, *also]
    chunks = plan_gradient_passes(
        grid.model,
        grid.prompts,
        needed,
        metric,
        len(variants),
        together=False,
        budget_bytes=budget_bytes,
    )
    made = np.zeros((len(variants), len(grid.points), len(grid.prompts)))
    each, done = grid.prompts.width * grid.model.cfg.n_layers, 0
    every = each * sum(chunk.n_rows for chunk in chunks)
    if progress is not None:
        progress(0, every)
    for chunk in chunks:
        for part in run_gradient_pass(grid.model, grid.prompts, chunk, needed, metric, variants):
            made[part.variant, :, part.rows] = estimate(part)
        done += each * chunk.n_rows
        if progress is not None:
            progress(done, every)
    return Estimates(made, chunks, time.perf_counter() - began)


def _summed(product: Float[Tensor, "row column each"]) -> Columns:
    """The sum over `each` in double: it may have thousands of numbers."""
    return product.sum(-1, dtype=torch.float64).cpu().numpy()


def _check_source(model: Model, prompts: Prompts, source: Activations, band: Site) -> None:
    """Check that the source has the value to patch in, of the right shape."""
    sizes = {"prompt": len(prompts), "pos": prompts.width, "src": prompts.width}
    axes = band.narrowed_axes or ()
    wanted = [sizes[a] if a in sizes else axis_size(model, band.act, a) for a in axes]
    try:
        if band.pos is not None:
            prompts.positions(band.pos)
        found = list(source[band].shape)
    except ValueError as error:
        raise HookError(f"patch {band}: {error}") from None
    if found != wanted:
        raise HookError(
            f"patch {band}: the source has shape {found}, the value {wanted}. Take the source from "
            f"the same number of prompts of the same length, or narrow the site."
        )
