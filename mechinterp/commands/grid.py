"""What `mechinterp patch` and `ablate` do: a sweep, its view in the terminal, and a folder for it.

patched(model, Patch(task="ioi", what="resid_pre", positions="S2,end"))
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from mechinterp import ablation, models, patching
from mechinterp.commands.grid_questions import Question
from mechinterp.commands.options.grid import Ablate, Patch
from mechinterp.core.sites import Site
from mechinterp.core.specs import read
from mechinterp.engine.replacements import Replacement, mean_of, resample_from
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.patching.attribution import qk_fixed_patching, top_k
from mechinterp.report import grid_page, print_grid
from mechinterp.report.render.cells import FEWEST_PROMPTS
from mechinterp.stats.intervals import ratio_interval
from mechinterp.storage.provenance import provenance_facts
from mechinterp.storage.run_folder import begin_run, frame_parquet, write_run
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
_APART = 0.1
"""The least difference of clean and corrupt, as a share of its mean, to divide a prompt by."""
_STRONGEST = 20


def patched(model: Model, options: Patch) -> None:
    """Run `mechinterp patch`.

    Raises:
        HookError: if the model lacks what is patched.
        ValueError: if an option does not fit the model or the prompts.
    """
    asked = Question.of(model, options)
    if options.plan:
        asked.print_plan(asked.prompts.pair.sides(options.direction)[0])
        if options.screen:
            print(
                f"--screen {options.screen}: so many of these arms run, after an estimate of all."
            )
        return
    metric, (clean, corrupt) = asked.prompts.metric, asked.scores()
    _check_apart(clean, corrupt)
    begin_run(options.out, options.kind, sys.argv)
    screen = _screened(asked, options.direction) if options.screen else None
    only = top_k(screen, options.screen) if screen is not None and options.screen else None
    with progress_bar("patching") as tick:
        result = _patch(asked, options, only=only, out=_parts(options.out), progress=tick)
    effect, normalisation = _share(result)
    made = _Made(
        asked,
        f"Activation patching of {asked.what}: {asked.prompts.name} on {models.name(model)}",
        effect.assign_attrs(sign=_SIGNS[options.direction]),
        [
            asked.prompts.note,
            _RUNS[options.direction].format(act=asked.act, at=asked.together_note),
            f"Metric: {metric.name}, in {metric.unit}; mean of the clean prompts "
            f"{clean.mean():.4g}, of the corrupt ones {corrupt.mean():.4g}.",
            normalisation,
        ],
        {"value": result},
    )
    if "prompt" in effect.dims:
        made.columns["normalised"] = effect + (1 if options.direction == "noise" else 0)
    if screen is not None:
        made.notes.append(f"{options.screen} cells were chosen by {screen.attrs['method']}.")
        made.columns["estimate"] = screen
        made.tables[f"Estimated and exact change, in {metric.unit}"] = _estimates(screen, result)
    made.show(options.out)


def ablated(model: Model, options: Ablate) -> None:
    """Run `mechinterp ablate`.

    Raises:
        HookError: if the model lacks what is ablated.
        ValueError: if an option does not fit the model or the prompts.
    """
    asked = Question.of(model, options)
    if options.plan:
        asked.print_plan(asked.prompts.pair.clean)
        return
    _, corrupt = asked.scores()
    begin_run(options.out, options.kind, sys.argv)
    with progress_bar("ablating") as tick:
        result = _ablate(asked, options, out=_parts(options.out), progress=tick)
    effect = ablation.effect(result)
    scored = effect.rename(base_score="clean_score").assign_coords(corrupt_score=corrupt)
    act = "what attention, the MLP or both write" if options.what == "layers" else asked.act
    reference = "" if options.how == "zero" else " (the corrupt ones)"
    made = _Made(
        asked,
        f"Ablation of {asked.what}: {asked.prompts.name} on {models.name(model)}",
        scored.assign_attrs(sign="Negative: the ablation lowers the metric."),
        [
            asked.prompts.note,
            f"The clean prompts run; in place of {act}{asked.together_note}: "
            f"{result.attrs['how']}{reference}.",
            f"Metric: {asked.prompts.metric.name}, in {asked.prompts.metric.unit}.",
        ],
        {"value": result, "effect": effect},
    )
    made.show(options.out)


@dataclass(frozen=True, eq=False)
class _Made:
    """What came out: `effect` is shown, `columns` are kept for each cell and prompt."""

    asked: Question
    title: str
    effect: xr.DataArray
    notes: list[str]
    columns: dict[str, xr.DataArray]
    tables: dict[str, Sequence[Mapping[str, object]]] = field(default_factory=dict)

    def show(self, out: Path | None) -> None:
        """Print the effect, and write it if there is a folder for it."""
        effect, found = _readable(self.effect), self._compared()
        for line in (self.title, *self.notes, ""):
            print(line)
        print_grid(effect)
        for row in found:
            if row.is_inside:
                print(f"published, {row.finding.role}: {row.verdict}: {row.places}")
        if out is None:
            return
        tables = (
            {f"Published findings for {self._model}": [row.cells for row in found]} if found else {}
        )
        page = grid_page(
            effect, title=self.title, notes=self.notes, tables={**tables, **self.tables}
        )
        files = {"report.html": page.encode(), "values.parquet": _parquet(self.columns)}
        write_run(out, self._facts(), files)
        print(f"wrote {out / 'report.html'}, values.parquet and manifest.json")

    @property
    def _model(self) -> str:
        return models.name(self.asked.model)

    def _compared(self) -> list[FindingRanks]:
        mine = [f for f in self.asked.prompts.findings if f.model == self._model]
        n_cells = self.effect.size // self.effect.sizes.get("prompt", 1)
        strongest = min(_STRONGEST, -(-n_cells // 10))  # what chance would find: a tenth or less
        return compare_findings(self.effect, self.asked.act, mine, strongest=strongest)

    def _facts(self) -> dict[str, Any]:
        return {
            **provenance_facts(self.asked.model, self.asked.options.kind),
            "prompts": self.asked.prompts.name,
            "seed": self.asked.options.seed,
            "notes": self.notes,
            **self.effect.attrs,
        }


def _parts(out: Path | None) -> Path | None:
    return None if out is None else out / "sweep"


def _readable(effect: xr.DataArray) -> xr.DataArray:
    """Without the tokens, where positions have names and every prompt another token there."""
    are_names = "token" in effect.coords and all(isinstance(p, str) for p in effect["pos"].values)
    several = are_names and any("/" in str(token) for token in effect["token"].values)
    return effect.drop_vars("token") if several else effect


def _patch(asked: Question, options: Patch, **sweep: Any) -> xr.DataArray:
    given = (asked.model, asked.prompts.pair, asked.prompts.metric)
    sweep |= {"direction": options.direction, "positions": asked.positions}
    if options.what == "neurons":
        return patching.patch_neurons(*given, asked.layers[0], **sweep)
    sweep["layers"] = asked.layers
    if options.what in patching.RESIDUALS:
        return patching.patch_residual(*given, asked.act, **sweep)
    if options.what in patching.OUTPUTS:
        return patching.patch_outputs(*given, asked.act, **sweep)
    if options.what == "heads-by-position":
        return patching.patch_heads_by_position(*given, **sweep)
    return patching.patch_heads(*given, asked.act, **sweep)


def _ablate(asked: Question, options: Ablate, **sweep: Any) -> xr.DataArray:
    reference = asked.prompts.pair.corrupt
    how: Replacement | str = "zero"
    if options.how == "mean":
        how = mean_of(reference, by_position=True)
    elif options.how == "resample":
        how = resample_from(reference, seed=options.seed)
    given = (asked.model, asked.prompts.pair.clean, asked.prompts.metric, how)
    sweep["positions"] = asked.positions
    if options.what == "neurons":
        return ablation.ablate_neurons(*given, asked.layers[0], **sweep)
    sweep["layers"] = asked.layers
    if options.what == "layers":
        return ablation.ablate_layers(*given, **sweep)
    if options.what == "positions":
        return ablation.ablate_positions(*given, **sweep)
    return ablation.ablate_heads(*given, asked.act, **sweep)


def _screened(asked: Question, direction: str) -> xr.DataArray:
    """The estimate of each cell; of several positions together, the sum of theirs."""
    base, other = asked.prompts.pair.sides(direction)
    whole = [Site(asked.act, layer) for layer in asked.layers]
    source = run(asked.model, other, read(*whole)).acts
    over = {**asked.over, **({"pos": asked.together} if asked.together else {})}
    given = (asked.model, base, source, over, asked.site, asked.prompts.metric)
    with progress_bar("screening") as tick:
        found = qk_fixed_patching(*given, progress=tick)
    return found.sum("pos", keep_attrs=True) if asked.together else found


def _check_apart(clean: xr.DataArray, corrupt: xr.DataArray) -> None:
    """Nothing, if clean and corrupt score differently on average: known before the sweep."""
    both = {"clean_score": clean, "corrupt_score": corrupt}
    patching.normalized_mean(xr.zeros_like(clean).assign_coords(both))


def _share(result: xr.DataArray) -> tuple[xr.DataArray, str]:
    """The change by each patch as a share of clean - corrupt, and how it was normalised.

    Prompt by prompt; but the ratio of means where a prompt would be divided by next to nothing.
    """
    whole, change = result["clean_score"] - result["corrupt_score"], patching.effect(result)
    change, whole = (x.drop_vars(["clean_score", "corrupt_score"]) for x in (change, whole))
    attrs = result.attrs | {"unit": "of clean − corrupt"}
    name = f"change of {result.name}"
    share = whole / whole.mean()
    if float(share.min()) >= _APART:
        effect = (change / whole).rename(name).assign_attrs(attrs)
        return effect, "Values: the change of each prompt, divided by its clean − corrupt."
    least = int(share.values.argmin())
    how = (
        f"Values: the mean change, divided by the mean of clean − corrupt, {whole.mean():.4g}; not "
        f"prompt by prompt, as prompt {least} would be divided by {whole[least]:.4g}."
    )
    if result.sizes["prompt"] < FEWEST_PROMPTS:
        effect = change.mean("prompt") / whole.mean()
        return effect.rename(name).assign_attrs(attrs), how
    found = ratio_interval(change, whole)
    effect = found.set_coords(["low", "high", "n"])["ratio"]
    effect.attrs = attrs | {"level": found.attrs["level"]}
    return effect.rename(name), how


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
    """A row for each cell and prompt; cells of which nothing was computed are left out."""
    frame = xr.Dataset({name: x.drop_attrs() for name, x in columns.items()}).to_dataframe()
    rows = frame.dropna(how="all", subset=list(columns)).reset_index()
    if "pos" in rows:  # numbers and names do not go into one column
        rows["pos"] = rows["pos"].astype(str)
    return frame_parquet(rows)
