"""Running many arms: `sweep`, the experiment.

Each point of a sweep is an arm, a tuple of specs. Arms run as blocks of rows of a few batches, from
the first layer and position that they touch (`sweeps.planner`). Every point gets the number that
one `run` would give:

    sweep(model, prompts, over, arm, metric).sel(point) == metric(run(model, prompts, arm(point)))

>>> from mechinterp import Site, load_model, log_prob, sweep, token_id, zero
>>> model = load_model("toy:trigger")
>>> refuse = log_prob(token_id(model, "REFUSE"))
>>> effect = sweep(model, "please bring the sesame", {"layer": [0, 1], "head": [0, 1]},
...                lambda layer, head: zero(Site("z", layer, head)), refuse)
>>> effect.dims
('layer', 'head', 'prompt')
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import xarray as xr

from mechinterp.core.metrics import Metric
from mechinterp.core.specs import Specs
from mechinterp.engine.base_run import BaseRun
from mechinterp.engine.passes import run_base
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text
from mechinterp.sweeps.job import SweepJob
from mechinterp.sweeps.options import Progress, SweepOptions, check_options
from mechinterp.sweeps.pass_plan import Pass, Plan, Savings
from mechinterp.sweeps.points import json_labels, label_values


def sweep(
    model: Model,
    prompts: Text,
    over: Mapping[str, Iterable[object]],
    arm: Callable[..., Specs],
    metric: Metric,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """The metric at every point of `over`, for every prompt: dims `(*over, "prompt")`.

    `arm(**point)` makes the specs of a point. Options, all by name:

    - `only`: a mask over the points, such as `top_k(screen, 20)`; the others are NaN.
    - `out`: a folder for finished parts. A sweep that was stopped continues from there when it runs
      again; `read_sweep` reads it.
    - `progress`: a function of (done, all), such as `progress_bar("heads")`.
    - `budget_bytes`: a bound on what a pass allocates (default: a quarter of the free memory, at
      most 1 GiB).
    - `exact`: "planned"; "naive", the slow loop of one whole pass for each arm, for checking; or
      `mechinterp.sweeps.Savings`.

    Identical arms run once: those with the same specs, the same edits among them, on the same
    tokens. Create a random or stateful edit separately for each arm, or use `exact="naive"`.
    `attrs` hold the cost, beside that of the slow loop; `plan(...)` tells it before.

    Raises:
        HookError: as `run`, before the first pass where possible; also if the metric is not finite,
            naming the first site that was not.
        ValueError: if the prompts, the points, a position or an option do not fit, or if `out`
            holds another sweep.
    """
    check_options("sweep", options)
    swept = sweep_each(model, prompts, over, arm, [metric], **options)
    return swept.isel(metric=0, drop=True).rename(metric.name)


def sweep_each(
    model: Model,
    prompts: Text,
    over: Mapping[str, Iterable[object]],
    arm: Callable[..., Specs],
    metrics: Sequence[Metric],
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Several metrics of one sweep, for the cost of one: dims `("metric", *over, "prompt")`.

    Options as for `sweep`.

    Raises:
        HookError: as `sweep`.
        ValueError: as `sweep`.
    """
    began = time.perf_counter()
    check_options("sweep_each", options)
    out, exact = options.get("out"), options.get("exact", "planned")
    out = None if out is None else Path(out).absolute()  # an arm may change the folder
    budget_bytes = options.get("budget_bytes")
    job = SweepJob.from_points(model, prompts, over, arm, metrics, options.get("only"))
    folder = None if out is None else job.folder(out, budget_bytes, exact)
    made = job.plan(folder.budget_bytes if folder else budget_bytes, exact)
    values = np.full((len(metrics), len(job.arms), len(job.prompts)), np.nan)
    groups = _group_by_file(made.passes) if folder else [[p] for p in made.passes]
    left, done = [], 0
    for number, passes in enumerate(groups):
        members = [i for p in passes for i in p.arms]
        found = folder.load_part(number, members) if folder else None
        if found is None:
            left.append(number)
        else:
            values[:, members] = found
            done += sum(p.token_layers for p in passes)
    total = made.token_layers - (0 if left else made.base_token_layers)
    tick = _Ticks(options.get("progress"), done, total)
    base = BaseRun()
    if left:
        base = run_base(model, job.prompts, set(made.base_layers), made.base_first_pos)
        tick(made.base_token_layers)
    for number in left:
        for p in groups[number]:
            values[:, p.arms] = job.run(p, base)
            tick(p.token_layers)
        if folder:
            members = [i for p in groups[number] for i in p.arms]
            folder.save_part(number, members, values[:, members])

    layout = job.layout(made)
    if folder:
        folder.finish(len(groups), {**layout, "coords": json_labels(layout["coords"])})
    return label_values(values, layout).assign_attrs(seconds=time.perf_counter() - began)


def plan(
    model: Model,
    prompts: Text,
    over: Mapping[str, Iterable[object]],
    arm: Callable[..., Specs],
    metric: Metric,
    *,
    only: xr.DataArray | None = None,
    budget_bytes: int | None = None,
    exact: str | Savings = "planned",
) -> Plan:
    """The passes that `sweep` would make and what they cost, without making one: print it.

    Raises:
        HookError: as `sweep`.
        ValueError: as `sweep`.
    """
    job = SweepJob.from_points(model, prompts, over, arm, [metric], only)
    return job.plan(budget_bytes, exact)


class _Ticks:
    """Tells a progress function how much of a plan is done."""

    def __init__(self, progress: Progress | None, done: int, total: int) -> None:
        self._progress, self._done, self._total = progress, done, total
        if progress is not None:
            progress(done, total)

    def __call__(self, token_layers: int) -> None:
        self._done += token_layers
        if self._progress is not None and token_layers:
            self._progress(self._done, self._total)


def _group_by_file(passes: Sequence[Pass]) -> list[list[Pass]]:
    """The passes of each file: at most some 200 files, of about as much work each."""
    least = sum(p.token_layers for p in passes) / 200
    groups: list[list[Pass]] = [[]]
    for p in passes:
        if sum(q.token_layers for q in groups[-1]) >= least:
            groups.append([])
        groups[-1].append(p)
    return groups
