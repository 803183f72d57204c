"""Running many arms: `sweep`, the experiment.

Each point of a sweep is an arm, a tuple of specs. They run as blocks of rows of a few batches, from
the first layer and position that they touch (`sweeps.planner`), and every point gets what one
`run` would have given:

    sweep(model, prompts, over, arm, metric).sel(point) == metric(run(model, prompts, arm(point)))

>>> from mechinterp import Site, load_model, log_prob, sweep, token_id, zero
>>> model = load_model("toy:trigger")
>>> refuse = log_prob(token_id(model, "REFUSE"))
>>> effect = sweep(model, "please bring the sesame", {"layer": [0, 1], "head": [0, 1]},
...                lambda layer, head: zero(Site("z", layer, head)), refuse)
>>> effect.dims
('layer', 'head', 'prompt')
"""

import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp import models
from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError, Pos
from mechinterp.core.specs import Specs
from mechinterp.engine.arms import Arm, planned
from mechinterp.engine.passes import Base, base_run, forward
from mechinterp.engine.scoring import arm_scores
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.sweeps.options import Progress, SweepOptions, check_options
from mechinterp.sweeps.planner import NAIVE, Pass, Plan, Savings, default_budget, planned_passes
from mechinterp.sweeps.resumable import Parts, coordinate, labelled, sweep_facts

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def sweep(
    model: Model,
    prompts: Text,
    over: Mapping[str, Iterable[Any]],
    arm: Callable[..., Specs],
    metric: Metric,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """The metric at every point of `over`, for every prompt: dims `(*over, "prompt")`.

    `arm(**point)` makes the specs of a point. Options, all by name:

    - `only`: a mask over the points, such as `top_k(screen, 20)`; the others are NaN.
    - `out`: a folder for finished parts. A sweep that was stopped goes on from there when it is run
      again; `read_sweep` reads it.
    - `progress`: a function of (done, all), such as `progress_bar("heads")`.
    - `budget_bytes`: a bound on what a pass allocates (default: a quarter of the free memory, at
      most 1 GiB).
    - `exact`: "planned"; "naive", the slow loop of one whole pass an arm, for checking; or
      `planner.Savings`.

    Arms with the same specs, the same edits among them, on the same tokens run once: an edit that
    draws numbers or counts has to be made anew for each arm, or `exact="naive"` asked for.
    `attrs` hold the cost, beside that of the slow loop. `plan(...)` tells it before.

    Raises:
        HookError: as `run`, before the first pass where it can be known then; also if the metric
            is not finite, naming the first site where that began.
        ValueError: if the prompts, the points, a position or an option do not fit, or if `out`
            holds another sweep.
    """
    check_options("sweep", options)
    swept = sweep_each(model, prompts, over, arm, [metric], **options)
    return swept.isel(metric=0, drop=True).rename(metric.name)


def sweep_each(
    model: Model,
    prompts: Text,
    over: Mapping[str, Iterable[Any]],
    arm: Callable[..., Specs],
    metrics: Sequence[Metric],
    *,
    only: xr.DataArray | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    budget_bytes: int | None = None,
    exact: str | Savings = "planned",
) -> xr.DataArray:
    """Several metrics of one sweep, for the cost of one: dims `("metric", *over, "prompt")`.

    Raises:
        HookError: as `sweep`.
        ValueError: as `sweep`.
    """
    began = time.perf_counter()
    job = _Job.of(model, prompts, over, arm, metrics, only)
    stored = None if out is None else job.parts(out, budget_bytes, exact)
    made = job.plan(stored.budget_bytes if stored else budget_bytes, exact)
    values = np.full((len(metrics), len(job.arms), len(job.given)), np.nan)
    groups = _groups(made.passes) if stored else [[p] for p in made.passes]
    left, done = [], 0
    for number, passes in enumerate(groups):
        members = [i for p in passes for i in p.arms]
        found = stored.load(number, members) if stored else None
        if found is None:
            left.append(number)
        else:
            values[:, members] = found
            done += sum(p.token_layers for p in passes)
    tick = _Ticks(progress, done, made.token_layers - (0 if left else made.base_token_layers))
    base = Base()
    if left:
        base = base_run(model, job.given, set(made.base_layers), made.base_first)
        tick(made.base_token_layers)
    for number in left:
        for p in groups[number]:
            values[:, p.arms] = job.run(p, base)
            tick(p.token_layers)
        if stored:
            members = [i for p in groups[number] for i in p.arms]
            stored.save(number, members, values[:, members])

    result = job.result(made)
    if stored:
        stored.finish(len(groups), {**result, "coords": _plain(result["coords"])})
    swept = labelled(values, result)
    return swept.assign_attrs(seconds=time.perf_counter() - began)


def plan(
    model: Model,
    prompts: Text,
    over: Mapping[str, Iterable[Any]],
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
    return _Job.of(model, prompts, over, arm, [metric], only).plan(budget_bytes, exact)


@dataclass(frozen=True, eq=False)
class _Job:
    """What is to be swept, checked: the arms of the points that are wanted."""

    model: Model
    given: Prompts
    coords: Mapping[str, Sequence[Any]]
    wanted: Sequence[int]
    arms: Sequence[Arm]
    metrics: Sequence[Metric]
    at: tuple[Pos, ...]
    readings: Sequence[Int[Tensor, "prompt k"]]

    @classmethod
    def of(
        cls,
        model: Model,
        prompts: Text,
        over: Mapping[str, Iterable[Any]],
        arm: Callable[..., Specs],
        metrics: Sequence[Metric],
        only: xr.DataArray | None,
    ) -> "_Job":
        given = tokenize(model, prompts)
        coords = {name: _listed(name, values) for name, values in over.items()}
        _check_dims(coords, metrics)
        points = list(itertools.product(*coords.values()))
        wanted = range(len(points)) if only is None else _wanted(only, coords)
        arms = []
        for number in wanted:
            point = dict(zip(coords, points[number], strict=True))
            arms.append(planned(model, given, arm(**point), point))
        at = tuple(dict.fromkeys(pos for metric in metrics for pos in metric.at))
        readings = [a.prompts.reading(at) for a in arms]
        return cls(model, given, coords, wanted, arms, metrics, at, readings)

    def parts(self, out: str | Path, budget_bytes: int | None, exact: str | Savings) -> Parts:
        """The folder of this sweep."""
        if models.has_foreign_hooks(self.model):
            raise ValueError(
                f"out={str(out)!r}: somebody else's hooks are on the model. Another run could not "
                f"tell whether it has the same. Remove them, or sweep without out."
            )
        specs, points = [arm.specs for arm in self.arms], [self.coords, list(self.wanted)]
        facts = sweep_facts(self.model, self.given, specs, self.metrics, points)
        facts["exact"] = str(exact)
        return Parts(out, facts, budget_bytes, default_budget(self.model))

    def plan(self, budget_bytes: int | None, exact: str | Savings) -> Plan:
        """The passes, as cheap as may be."""
        if isinstance(exact, str) and exact not in ("planned", "naive"):
            raise ValueError(f'exact={exact!r}: "planned" or "naive".')
        named = NAIVE if exact == "naive" else Savings()
        widths = [None if m.tokens is None else m.tokens.shape[1] for m in self.metrics]
        n_columns = None if None in widths else sum(n or 0 for n in widths)
        return planned_passes(
            self.model,
            self.arms,
            self.readings,
            n_columns,
            default_budget(self.model) if budget_bytes is None else budget_bytes,
            named if isinstance(exact, str) else exact,
        )

    def run(self, p: Pass, base: Base) -> Float[np.ndarray, "metric arm prompt"]:
        """The metrics of the arms of a pass."""
        members = [self.arms[i] for i in p.arms]
        output = forward(
            self.model,
            members,
            torch.cat([self.readings[i] for i in p.arms]),
            base=base,
            starts=p.starts,
            first=p.first,
            last_queries=p.last_queries,
            whole_logits=p.whole_logits,
        )
        values = np.stack([arm_scores(m, output, self.at, len(members)) for m in self.metrics])
        for place, number in enumerate(p.arms):
            if not np.isfinite(values[:, place]).all():
                raise _not_finite(
                    self.model, self.arms[number], self.readings[number], self.metrics
                )
            self.arms[number].reads = {}  # what an arm read is for its own edits alone
        return values

    def result(self, made: Plan) -> dict[str, Any]:
        """How the values of the arms become a labelled array; all but the values of it."""
        n_prompts = len(self.given)
        cost = {
            "arms": len(self.arms),
            "passes": made.n_passes,
            "token_layers": made.token_layers,
            "token_layers_naive": made.token_layers_naive,
            "peak_bytes_planned": made.planned_bytes,
            "model": models.name(self.model),
            "size": models.size(self.model),
            "weights": models.processing(self.model),
        }
        return {
            "dims": ["metric", *self.coords, "prompt"],
            "shape": [len(self.metrics), *map(len, self.coords.values()), n_prompts],
            "coords": {"metric": [m.name for m in self.metrics]}
            | dict(self.coords)
            | {"prompt": list(range(n_prompts))},
            "wanted": list(self.wanted),
            "same_as": list(made.same_as),
            "attrs": cost,
        }


class _Ticks:
    """Tells a progress function how much of a plan is done."""

    def __init__(self, progress: Progress | None, done: int, all_of_it: int) -> None:
        self._progress, self._done, self._all = progress, done, all_of_it
        if progress is not None:
            progress(done, all_of_it)

    def __call__(self, token_layers: int) -> None:
        self._done += token_layers
        if self._progress is not None and token_layers:
            self._progress(self._done, self._all)


def _groups(passes: Sequence[Pass]) -> list[list[Pass]]:
    """The passes of each file: some 200 files, of about as much work each."""
    least = sum(p.token_layers for p in passes) / 200
    groups: list[list[Pass]] = [[]]
    for p in passes:
        if sum(q.token_layers for q in groups[-1]) >= least:
            groups.append([])
        groups[-1].append(p)
    return groups


def _listed(name: str, values: Any) -> list[Any]:
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ValueError(f"over: {name!r} is {values!r}, not a list of values. Give [{values!r}].")
    return list(values)


def _wanted(only: xr.DataArray, coords: Mapping[str, Sequence[Any]]) -> list[int]:
    """The numbers of the points that a mask chooses."""
    shape = tuple(map(len, coords.values()))
    if not isinstance(only, xr.DataArray):
        raise ValueError(f"only: a mask as top_k(screen, k) makes is needed, not {only!r}.")
    if only.dims != tuple(coords) or only.shape != shape or only.dtype != bool:
        raise ValueError(
            f"only: a mask (bool) over {' '.join(coords)} {list(shape)} is needed, not "
            f"{only.dtype} over {' '.join(map(str, only.dims))} {list(only.shape)}. "
            f"top_k(screen, k) makes one."
        )
    for name, labels in coords.items():
        if name in only.coords and list(only[name].values) != list(coordinate(labels)):
            raise ValueError(f"only: its {name} are others than those of the sweep, {labels}.")
    if not bool(only.any()):
        raise ValueError("only: no point is chosen, so there is nothing to sweep.")
    return [int(number) for number in np.flatnonzero(only.values)]


def _plain(coords: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Labels as JSON has them: numbers and text, and the text of all else."""
    return {
        name: [v if isinstance(v, int | float | str) else _plain_label(v) for v in labels]
        for name, labels in coords.items()
    }


def _plain_label(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else _ADDRESS.sub("", str(label))


def _not_finite(model: Model, arm: Arm, reading: Tensor, metrics: Sequence[Metric]) -> HookError:
    """An error that says where the numbers of an arm first stopped being finite."""
    first: list[str] = []

    def watch(name: str, value: Tensor) -> None:
        masked = name.endswith("hook_attn_scores")  # -inf is what the causal mask is made of
        fine = ~value.isnan() if masked else value.isfinite()
        if not first and not bool(fine.all()):
            first.append(name)

    names = ", ".join(m.name for m in metrics)
    specs = " + ".join(s.name for s in arm.specs) or "no specs"
    anew = replace(arm, reads={s: v for s, v in arm.reads.items() if s.act == "tokens"})
    forward(model, [anew], reading, watch=watch)
    where = f"It began at {first[0]}." if first else "Every activation is finite: see the metric."
    return HookError(f"{names} is not finite for {dict(arm.point)} ({specs}). {where}")


def _check_dims(dims: Mapping[str, Sequence[Any]], metrics: Sequence[Metric]) -> None:
    for name, values in dims.items():
        if name in ("prompt", "metric"):
            raise ValueError(f"over: {name!r} is a dimension of the result already. Rename it.")
        if not values:
            raise ValueError(f"over: {name!r} has no values, so there is nothing to sweep.")
    if not metrics:
        raise ValueError("no metrics were given. Give at least one.")
    for metric in metrics:
        if not isinstance(metric, Metric):
            raise ValueError(f"{metric!r} is no metric. Functions such as log_prob(id) make them.")
