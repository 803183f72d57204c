"""A sweep that has been checked: the arms of its points, how to plan them, and how to run a pass.

>>> from mechinterp import Site, load_model, log_prob, zero
>>> from mechinterp.sweeps.job import SweepJob
>>> job = SweepJob.from_points(load_model("toy:trigger"), "bring the sesame", {"layer": [0, 1]},
...                            lambda layer: zero(Site("z", layer)), [log_prob(2)], None)
>>> [arm.first_layer for arm in job.arms], job.plan(None, "planned").same_as
([0, 1], (0, 1))
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp import models
from mechinterp.core.callables import call_error
from mechinterp.core.indices import index
from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Pos
from mechinterp.core.specs import Specs
from mechinterp.engine.arms import Arm, prepare_arm
from mechinterp.engine.base_run import BaseRun
from mechinterp.engine.batch import Extent
from mechinterp.engine.passes import forward
from mechinterp.engine.scoring import arm_scores
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.sweeps.not_finite import not_finite_error
from mechinterp.sweeps.pass_plan import NAIVE, Pass, Plan, Savings
from mechinterp.sweeps.planner import default_budget, plan_passes
from mechinterp.sweeps.points import ResultLayout, check_dims, list_values, select_points
from mechinterp.sweeps.resumable import SweepFolder, sweep_facts


@dataclass(frozen=True, eq=False)
class SweepJob:
    """The arms of the points that are wanted, and what is measured on them.

    `at`: the positions that the metrics read. `readings`: where these are in each arm's prompts.
    """

    model: Model
    prompts: Prompts
    coords: Mapping[str, Sequence[object]]
    wanted: Sequence[int]
    arms: Sequence[Arm]
    metrics: Sequence[Metric]
    at: tuple[Pos, ...]
    readings: Sequence[Int[Tensor, "prompt k"]]

    @classmethod
    def from_points(
        cls,
        model: Model,
        prompts: Text,
        over: Mapping[str, Iterable[object]],
        arm: Callable[..., Specs],
        metrics: Sequence[Metric],
        only: xr.DataArray | None,
    ) -> "SweepJob":
        """Check a sweep and make the arms of its points, of those in `only` if it is given.

        Raises:
            HookError: if an arm cannot run.
            ValueError: if the prompts, the points or the metrics do not fit.
        """
        given = tokenize(model, prompts)
        if not isinstance(over, Mapping):
            raise ValueError(
                f"over is a {type(over).__name__}: give the values of each dimension by name, "
                f'{{"layer": [0, 1]}}.'
            )
        coords = {name: list_values(name, values) for name, values in over.items()}
        check_dims(coords, metrics)
        _check_arm(arm, coords)
        points = list(itertools.product(*coords.values()))
        wanted = range(len(points)) if only is None else select_points(only, coords)
        arms = []
        for number in wanted:
            point = dict(zip(coords, points[number], strict=True))
            arms.append(prepare_arm(model, given, arm(**point), point))
        at = tuple(dict.fromkeys(pos for metric in metrics for pos in metric.at))
        readings = [a.prompts.reading(at) for a in arms]
        return cls(model, given, coords, wanted, arms, metrics, at, readings)

    def folder(
        self, out: str | Path, budget_bytes: int | None, exact: str | Savings
    ) -> SweepFolder:
        """The folder of this sweep, with what was finished there.

        Raises:
            ValueError: if it cannot hold this sweep.
        """
        specs, points = [arm.specs for arm in self.arms], [self.coords, list(self.wanted)]
        facts = sweep_facts(self.model, out, self.prompts, specs, self.metrics, points)
        return SweepFolder(
            out, {**facts, "exact": str(exact)}, budget_bytes, default_budget(self.model)
        )

    def plan(self, budget_bytes: int | None, exact: str | Savings) -> Plan:
        """The cheapest passes.

        Raises:
            ValueError: if `exact` is unknown.
        """
        if not isinstance(exact, Savings) and exact not in ("planned", "naive"):
            raise ValueError(f'exact={exact!r} is none of "planned", "naive", nor Savings.')
        if budget_bytes is not None:
            budget_bytes = index(budget_bytes, "budget_bytes", least=1)
        named = NAIVE if exact == "naive" else Savings()
        widths = [None if m.tokens is None else m.tokens.shape[1] for m in self.metrics]
        n_columns = None if None in widths else sum(n or 0 for n in widths)
        return plan_passes(
            self.model,
            self.arms,
            self.readings,
            n_columns,
            default_budget(self.model) if budget_bytes is None else budget_bytes,
            named if isinstance(exact, str) else exact,
        )

    def run(self, p: Pass, base: BaseRun) -> Float[np.ndarray, "metric arm prompt"]:
        """The metrics of the arms of a pass.

        Raises:
            HookError: if a spec goes wrong, or a metric is not finite.
        """
        members = [self.arms[i] for i in p.arms]
        reading = torch.cat([self.readings[i] for i in p.arms])
        extent = Extent(
            base,
            p.first_layers,
            p.first_pos,
            last_queries=p.last_queries,
            whole_logits=p.whole_logits,
        )
        output = forward(self.model, members, reading, extent)
        values = np.stack([arm_scores(m, output, self.at, len(members)) for m in self.metrics])
        for place, number in enumerate(p.arms):
            if not np.isfinite(values[:, place]).all():
                arm, read_at = self.arms[number], self.readings[number]
                raise not_finite_error(self.model, arm, read_at, self.metrics)
            self.arms[number].reads = {}  # what an arm reads serves its own edits alone
        return values

    def layout(self, made: Plan) -> ResultLayout:
        """How the values of the arms become a labelled array, and what they cost."""
        n_prompts = len(self.prompts)
        return {
            "dims": ["metric", *self.coords, "prompt"],
            "shape": [len(self.metrics), *map(len, self.coords.values()), n_prompts],
            "coords": {
                "metric": [m.name for m in self.metrics],
                **self.coords,
                "prompt": list(range(n_prompts)),
            },
            "wanted": list(self.wanted),
            "same_as": list(made.same_as),
            "attrs": {
                "arms": len(self.arms),
                "passes": made.n_passes,
                "token_layers": made.token_layers,
                "token_layers_naive": made.token_layers_naive,
                "peak_bytes_planned": made.planned_bytes,
                "model": models.name(self.model),
                "size": models.size(self.model),
                "weights": models.processing(self.model),
            },
        }


def _check_arm(arm: object, coords: Mapping[str, Sequence[object]]) -> None:
    """Check that a function makes the arms, and takes the points as they are named."""
    names = ", ".join(coords)
    if not callable(arm):
        raise ValueError(
            f"arm is a {type(arm).__name__}: give a function of ({names}) that makes the specs of "
            f"a point."
        )
    if wrong := call_error(arm, **dict.fromkeys(coords)):
        raise ValueError(
            f"arm is called with the names of over, arm({', '.join(f'{n}=...' for n in coords)}), "
            f"but {wrong}. Name its parameters so: ({names})."
        )
