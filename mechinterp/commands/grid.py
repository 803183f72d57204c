"""What `mechinterp patch` and `ablate` do: a sweep of patches or ablations, and its views.

run_patch(model, PatchOptions(task="ioi", what="resid_pre", positions="S2,end"))
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Unpack

import xarray as xr

from mechinterp import ablation, models, patching
from mechinterp.commands.grid_request import GridRequest
from mechinterp.commands.options.grid import AblateOptions, PatchOptions
from mechinterp.commands.outcome import Outcome, View, finish
from mechinterp.commands.terminal import say
from mechinterp.core.sites import Site
from mechinterp.core.specs import read
from mechinterp.engine.replacements import Replacement, mean_of, resample_from
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.patching.attribution import qk_fixed_patching, top_k
from mechinterp.patching.effects import SUPPORTS_ON_SCALE, check_apart, uneven_prompts
from mechinterp.report import grid_page, print_grid
from mechinterp.report.render.cells import FEWEST_PROMPTS
from mechinterp.report.render.tables import Rows
from mechinterp.stats.intervals import ratio_interval
from mechinterp.storage.run_folder import begin_run, frame_parquet
from mechinterp.sweeps.options import SweepOptions
from mechinterp.sweeps.progress import progress_bar
from mechinterp.tasks.findings import FindingRanks, compare_findings

_SIGNS = {
    "noise": "0: the patch changes nothing. −1: the score falls to that of the corrupt prompts.",
    "denoise": "0: the patch changes nothing. 1: the score rises to that of the clean prompts.",
}
_RUNS = {
    "noise": "noise: the clean prompts run, with {act} of the corrupt ones put in{at}.",
    "denoise": "denoise: the corrupt prompts run, with {act} of the clean ones put in{at}.",
}
_STRONGEST = 20


def run_patch(model: Model, options: PatchOptions) -> None:
    """Run `mechinterp patch`.

    Raises:
        HookError: if the model lacks what is patched.
        ValueError: if an option does not fit the model or the prompts.
    """
    request = GridRequest.of(model, options)
    if options.plan:
        request.print_plan(request.prompts.pair.sides(options.direction)[0])
        if options.screen:
            say(f"--screen {options.screen}: so many of these arms run, after an estimate of all.")
        return
    metric, (clean, corrupt) = request.prompts.metric, request.scores()
    check_apart(clean.mean("prompt"), corrupt.mean("prompt"))  # before the sweep
    begin_run(options.out, options.kind, sys.argv)
    screen = _screened(request, options.direction) if options.screen else None
    only = top_k(screen, options.screen) if screen is not None and options.screen else None
    with progress_bar("patching") as tick:
        result = _patch(request, options, only=only, out=_parts(options.out), progress=tick)
    effect = _share(result)
    notes = [
        request.prompts.note,
        _RUNS[options.direction].format(act=request.act, at=request.together_note),
        f"Metric: {metric.name}, in {metric.unit}; mean of the clean prompts "
        f"{clean.mean():.4g}, of the corrupt ones {corrupt.mean():.4g}.",
        f"Values: the mean change, divided by the mean of clean − corrupt, "
        f"{clean.mean() - corrupt.mean():.4g}. {uneven_prompts(clean, corrupt)}".rstrip(),
    ]
    columns, tables = {"value": result}, {}
    if screen is not None:
        notes.append(f"{options.screen} cells were chosen by {screen.attrs['method']}.")
        columns["estimate"] = screen
        tables[f"Estimated and exact change, in {metric.unit}"] = _estimates(screen, result)
    title = f"Activation patching of {request.what}: {request.prompts.name} on {models.name(model)}"
    signs = {"sign": _SIGNS[options.direction], "supports": SUPPORTS_ON_SCALE[options.direction]}
    found = _Grid(request, effect.assign_attrs(signs), columns, tables)
    finish(model, _outcome(found, title, notes), options.out)


def run_ablate(model: Model, options: AblateOptions) -> None:
    """Run `mechinterp ablate`.

    Raises:
        HookError: if the model lacks what is ablated.
        ValueError: if an option does not fit the model or the prompts.
    """
    request = GridRequest.of(model, options)
    if options.plan:
        request.print_plan(request.prompts.pair.clean)
        return
    _, corrupt = request.scores()
    begin_run(options.out, options.kind, sys.argv)
    with progress_bar("ablating") as tick:
        result = _ablate(request, options, out=_parts(options.out), progress=tick)
    effect = ablation.effect(result)
    shown = effect.rename(base_score="clean_score").assign_coords(corrupt_score=corrupt)
    act = "what attention, the MLP or both write" if options.what == "layers" else request.act
    reference = "" if options.how == "zero" else " (the corrupt ones)"
    notes = [
        request.prompts.note,
        f"The clean prompts run; in place of {act}{request.together_note}: "
        f"{result.attrs['how']}{reference}.",
        f"Metric: {request.prompts.metric.name}, in {request.prompts.metric.unit}.",
    ]
    title = f"Ablation of {request.what}: {request.prompts.name} on {models.name(model)}"
    found = _Grid(request, shown, {"value": result, "effect": effect})
    finish(model, _outcome(found, title, notes), options.out)


@dataclass(frozen=True, eq=False)
class _Grid:
    """What came out: `effect` is shown, `columns` are kept for each cell and prompt."""

    request: GridRequest
    effect: xr.DataArray
    columns: Mapping[str, xr.DataArray]
    tables: Mapping[str, Rows] = field(default_factory=dict)

    def published(self) -> list[FindingRanks]:
        """The findings published about this model, compared with the effect."""
        model = models.name(self.request.model)
        mine = [f for f in self.request.prompts.findings if f.model == model]
        n_cells = self.effect.size // self.effect.sizes.get("prompt", 1)
        strongest = min(_STRONGEST, -(-n_cells // 10))  # what chance would find: a tenth or less
        return compare_findings(self.effect, self.request.act, mine, strongest=strongest)


def _outcome(found: _Grid, title: str, notes: list[str]) -> Outcome:
    options, effect, published = found.request.options, _readable(found.effect), found.published()
    views: list[View] = [partial(print_grid, effect)]
    views += [
        partial(say, f"published, {row.finding.role}: {row.verdict}: {row.places}")
        for row in published
        if row.is_inside
    ]
    files = {}
    if options.out is not None:
        tables: dict[str, Rows] = {}
        if published:
            name = models.name(found.request.model)
            tables[f"Published findings for {name}"] = [row.cells for row in published]
        page = grid_page(effect, title=title, notes=notes, tables={**tables, **found.tables})
        files = {"report.html": page.encode(), "values.parquet": _parquet(found.columns)}
    facts = {
        "prompts": found.request.prompts.name,
        "seed": options.seed,
        **{str(name): value for name, value in found.effect.attrs.items()},
    }
    return Outcome(options.kind, title, tuple(notes), tuple(views), files, facts)


def _parts(out: Path | None) -> Path | None:
    return None if out is None else out / "sweep"


def _readable(effect: xr.DataArray) -> xr.DataArray:
    """Without tokens, if positions have names and prompts have different tokens there."""
    are_names = "token" in effect.coords and all(isinstance(p, str) for p in effect["pos"].values)
    several = are_names and any("/" in str(token) for token in effect["token"].values)
    return effect.drop_vars("token") if several else effect


def _patch(
    request: GridRequest, options: PatchOptions, **sweep: Unpack[SweepOptions]
) -> xr.DataArray:
    pair, metric, act = request.prompts.pair, request.prompts.metric, request.act
    given = (request.model, pair, metric)
    direction, layers, positions = options.direction, request.layers, request.positions
    if options.what == "neurons":
        (layer,) = layers
        return patching.patch_neurons(
            *given, layer, direction=direction, positions=positions, **sweep
        )
    if options.what == "heads-by-position":
        return patching.patch_heads_by_position(
            *given, direction=direction, layers=layers, positions=positions, **sweep
        )
    by_act: Callable[..., xr.DataArray] = patching.patch_heads
    if options.what in patching.RESIDUALS:
        by_act = patching.patch_residual
    elif options.what in patching.OUTPUTS:
        by_act = patching.patch_outputs
    return by_act(*given, act, direction=direction, layers=layers, positions=positions, **sweep)


def _ablate(
    request: GridRequest, options: AblateOptions, **sweep: Unpack[SweepOptions]
) -> xr.DataArray:
    pair, metric = request.prompts.pair, request.prompts.metric
    how: Replacement | str = "zero"
    if options.how == "mean":
        how = mean_of(pair.corrupt, by_position=True)
    elif options.how == "resample":
        how = resample_from(pair.corrupt, seed=options.seed)
    given = (request.model, pair.clean, metric, how)
    layers, positions = request.layers, request.positions
    if options.what == "neurons":
        (layer,) = layers
        return ablation.ablate_neurons(*given, layer, positions=positions, **sweep)
    if options.what == "layers":
        return ablation.ablate_layers(*given, layers=layers, positions=positions, **sweep)
    if options.what == "positions":
        return ablation.ablate_positions(*given, layers=layers, positions=positions, **sweep)
    return ablation.ablate_heads(*given, request.act, layers=layers, positions=positions, **sweep)


def _screened(request: GridRequest, direction: str) -> xr.DataArray:
    """The estimate of each cell; of several positions together, the sum of theirs."""
    base, other = request.prompts.pair.sides(direction)
    whole = [Site(request.act, layer) for layer in request.layers]
    source = run(request.model, other, read(*whole)).acts
    over = {**request.over, **({"pos": request.together} if request.together else {})}
    given = (request.model, base, source, over, request.site, request.prompts.metric)
    with progress_bar("screening") as tick:
        found = qk_fixed_patching(*given, progress=tick)
    return found.sum("pos", keep_attrs=True) if request.together else found


def _share(result: xr.DataArray) -> xr.DataArray:
    """The mean change by each patch as a share of the mean of clean - corrupt."""
    change, whole = patching.effect(result), result["clean_score"] - result["corrupt_score"]
    change, whole = (x.drop_vars(["clean_score", "corrupt_score"]) for x in (change, whole))
    n = result.sizes["prompt"]
    attrs = result.attrs | {"unit": "of clean − corrupt"}
    if n < FEWEST_PROMPTS:
        effect = (change.mean("prompt") / whole.mean()).assign_coords(n=n)
    else:
        found = ratio_interval(change, whole)
        effect = found.set_coords(["low", "high", "n"])["ratio"]
        attrs["level"] = found.attrs["level"]
    effect.attrs = attrs
    return effect.rename(f"change of {result.name}")


def _estimates(screen: xr.DataArray, result: xr.DataArray) -> list[dict[str, object]]:
    """The strongest estimates beside the exact changes, in the metric's unit."""
    exact = patching.effect(result).mean("prompt", skipna=False)
    both = {"estimate": screen.mean("prompt"), "exact": exact}
    frame = xr.Dataset({k: v.drop_vars("token", errors="ignore") for k, v in both.items()})
    rows = frame.to_dataframe().dropna().reset_index()
    dims = [str(dim) for dim in exact.dims]
    ordered = rows.iloc[rows["estimate"].abs().argsort()[::-1]][[*dims, "estimate", "exact"]]
    return [{str(k): v for k, v in row.items()} for row in ordered[:_STRONGEST].to_dict("records")]


def _parquet(columns: Mapping[str, xr.DataArray]) -> bytes:
    """A row for each cell and prompt, without cells that were not computed."""
    frame = xr.Dataset({name: x.drop_attrs() for name, x in columns.items()}).to_dataframe()
    rows = frame.dropna(how="all", subset=list(columns)).reset_index()
    if "pos" in rows:  # numbers and names do not go into one column
        rows["pos"] = rows["pos"].astype(str)
    return frame_parquet(rows)
