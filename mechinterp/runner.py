"""Running it: `run` one arm, `sweep` many.

An experiment is a sweep of interventions. Each point of the sweep is an arm, a tuple of specs;
`sweep` runs the arms as blocks of rows of a few batches and starts each at the first layer that
it touches, and gives for every point what one `run` would have given:

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
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp import models
from mechinterp.activations import Activations
from mechinterp.arms import Arm, planned
from mechinterp.hook_points import read_bytes
from mechinterp.memory import available_bytes, readable
from mechinterp.metrics import Metric, columns
from mechinterp.passes import Output, forward, residuals
from mechinterp.prompts import Prompts
from mechinterp.sites import HookError, Pos
from mechinterp.specs import Specs
from mechinterp.tokenization import Text, tokenize

Progress = Callable[[int, int], None]
"""Called with the arms done and all arms, after each pass of a sweep."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a run gave: logits `[prompt, pos, vocab]` at `logits_at`, and what was read."""

    logits: Float[Tensor, "prompt pos vocab"]
    logits_at: tuple[Pos, ...]
    acts: Activations
    prompts: Prompts

    def logits_of(self, at: tuple[Pos, ...]) -> Float[Tensor, "prompt pos vocab"]:
        """The logits at some of the positions that the run kept.

        Raises:
            ValueError: if it did not keep them.
        """
        missing = [pos for pos in at if pos not in self.logits_at]
        if missing:
            raise ValueError(
                f"the run kept logits at {list(self.logits_at)}, not at {missing}. "
                f"Ask for them: run(..., logits_at={list(at)})."
            )
        return self.logits[:, [self.logits_at.index(pos) for pos in at]]


def run(
    model: Any,
    prompts: Text,
    specs: Specs = (),
    *,
    logits_at: Pos | Sequence[Pos] = "end",
) -> Run:
    """One pass over the prompts with the specs, left to right; nothing stays on the model.

    `logits_at`: the position, or positions, whose logits are kept. Logits "at" a token that was
    deleted are those of the last one before it: what the model says comes next.
    Only what `read` names is kept, as copies.

    Raises:
        HookError: if a spec cannot run or did not, or what it reads would not fit into memory.
        ValueError: if the prompts or a position do not fit the model.
    """
    arm = planned(model, tokenize(model, prompts), specs)
    at = (logits_at,) if isinstance(logits_at, int | str) else tuple(logits_at)
    if not at:
        raise ValueError('logits_at names no position. Leave it out, or give one: "end".')
    wanted = read_bytes(model, arm.prompts, [s.site for s in specs if s.edit is None])
    free = available_bytes(models.device(model))
    if wanted > free:
        raise HookError(
            f"the reads need {readable(wanted)}, but {readable(free)} are free. "
            f'Read fewer sites, or narrow them: Site(..., pos="end").'
        )
    output = forward(model, [arm], _reading(arm.prompts, at))
    return Run(output.logits(), at, arm.activations, arm.prompts)


def sweep(
    model: Any,
    prompts: Text,
    over: Mapping[str, Iterable[Any]],
    arm: Callable[..., Specs],
    metric: Metric,
    *,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """The metric at every point of `over`, for every prompt: dims `(*over, "prompt")`.

    `arm(**point)` makes the specs of a point. `budget_bytes` bounds what a pass allocates
    (default: a quarter of the free memory, at most 1 GiB). `attrs` hold the cost, beside that of
    the loop that runs the whole model once an arm.

    Raises:
        HookError: as `run`, before the first pass where it can be known then; also if the metric
            is not finite, naming the first site where that began.
        ValueError: if the prompts, the points or a position do not fit.
    """
    swept = sweep_each(
        model, prompts, over, arm, [metric], budget_bytes=budget_bytes, progress=progress
    )
    return swept.isel(metric=0, drop=True).rename(metric.name)


def sweep_each(
    model: Any,
    prompts: Text,
    over: Mapping[str, Iterable[Any]],
    arm: Callable[..., Specs],
    metrics: Sequence[Metric],
    *,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """Several metrics of one sweep, for the cost of one: dims `("metric", *over, "prompt")`.

    Raises:
        HookError: as `sweep`.
        ValueError: as `sweep`.
    """
    began = time.perf_counter()
    given = tokenize(model, prompts)
    dims = {name: list(values) for name, values in over.items()}
    _check_dims(dims, metrics)
    points = [dict(zip(dims, values, strict=True)) for values in itertools.product(*dims.values())]
    arms = [planned(model, given, arm(**point), point) for point in points]
    at = tuple(dict.fromkeys(pos for metric in metrics for pos in metric.at))
    readings = [_reading(a.prompts, at) for a in arms]
    passes = _passes(model, arms, len(at), budget_bytes)
    base = residuals(model, given, {p.start for p in passes} - {0})

    values = np.empty((len(metrics), len(arms), len(given)))
    done = 0
    for chunk in passes:
        members = [arms[i] for i in chunk.arms]
        resid = base[chunk.start].repeat(len(members), 1, 1) if chunk.start else None
        reading = torch.cat([readings[i] for i in chunk.arms])
        output = forward(model, members, reading, start=chunk.start, resid=resid)
        for number, metric in enumerate(metrics):
            values[number, chunk.arms] = _scores(metric, output, at, len(members))
        for arm_number in chunk.arms:
            if not np.isfinite(values[:, arm_number]).all():
                raise _not_finite(model, arms[arm_number], readings[arm_number], metrics)
            arms[arm_number].reads = {}  # what an arm read is for its own edits alone
        done += len(members)
        if progress is not None:
            progress(done, len(arms))

    shape = (len(metrics), *map(len, dims.values()), len(given))
    cost = _cost(model, arms, passes, max(base, default=0) * given.tokens.numel())
    return xr.DataArray(
        values.reshape(shape),
        dims=("metric", *dims, "prompt"),
        coords={"metric": [m.name for m in metrics], "prompt": range(len(given))}
        | {name: (name, _coordinate(values)) for name, values in dims.items()},
        attrs=cost | {"seconds": time.perf_counter() - began},
    )


@dataclass(frozen=True)
class _Pass:
    """Arms that run as one batch, all from one layer, and the bytes that this was planned at."""

    arms: list[int]
    start: int
    planned_bytes: int


def _passes(model: Any, arms: Sequence[Arm], n_read: int, budget_bytes: int | None) -> list[_Pass]:
    """Arms of one width and one first layer together, as many as the budget holds."""
    if budget_bytes is None:
        budget_bytes = min(available_bytes(models.device(model)) // 4, 1 << 30)
    plain = models.has_foreign_hooks(model)
    resumable = models.can_resume(model) and not plain
    groups: dict[tuple[int, int, int], list[int]] = {}
    for number, arm in enumerate(arms):
        alone = number if plain or arm.alone else -1
        start = arm.start if resumable and not arm.alone else 0
        groups.setdefault((start, arm.prompts.width, alone), []).append(number)
    passes = []
    for (start, width, _), members in sorted(groups.items()):
        each = models.row_bytes(model, width, n_read) * len(arms[0].prompts)
        size = max(1, budget_bytes // each)
        for begin in range(0, len(members), size):
            chunk = members[begin : begin + size]
            passes.append(_Pass(chunk, start, each * len(chunk)))
    return passes


def _reading(prompts: Prompts, at: Sequence[Pos]) -> Int[Tensor, "prompt k"]:
    return torch.stack([prompts.reading_positions(pos) for pos in at], 1)


def _scores(
    metric: Metric, output: Output, at: tuple[Pos, ...], n_arms: int
) -> Float[np.ndarray, "arm prompt"]:
    """The metric of each arm of a pass, given the rows of that arm alone."""
    k = [at.index(pos) for pos in metric.at]
    n_rows, n_vocab = output.normalized.shape[0], output.model.cfg.d_vocab_out
    n_prompts = n_rows // n_arms
    if metric.tokens is None:
        logits = output.logits()[:, k]
    else:
        tokens = columns(metric.tokens, n_prompts, n_vocab, metric.name).to(
            output.normalized.device
        )
        logits = output.logits_of(tokens.repeat(n_arms, 1), k)
    scores = [
        _one_per_prompt(metric, logits[i * n_prompts : (i + 1) * n_prompts]) for i in range(n_arms)
    ]
    return torch.stack(scores).double().cpu().numpy()


def _one_per_prompt(metric: Metric, logits: Tensor) -> Float[Tensor, " prompt"]:
    score = metric.score(logits)
    if not isinstance(score, Tensor) or score.shape != logits.shape[:1]:
        shape = list(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise HookError(
            f"metric {metric.name} gave {shape}, not one number for each of {len(logits)} prompts."
        )
    return score


def _not_finite(model: Any, arm: Arm, reading: Tensor, metrics: Sequence[Metric]) -> HookError:
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


def _coordinate(values: Sequence[Any]) -> np.ndarray:
    """The values as a coordinate: plain where they are numbers or text, else objects."""
    if all(isinstance(v, int | float | str | np.generic) for v in values):
        return np.asarray(values)
    array = np.empty(len(values), dtype=object)
    array[:] = list(values)
    return array


def _cost(
    model: Any, arms: Sequence[Arm], passes: Sequence[_Pass], base_token_layers: int
) -> dict[str, Any]:
    n_layers = model.cfg.n_layers
    sizes = [arm.prompts.tokens.numel() for arm in arms]
    ran = [sum(sizes[i] for i in p.arms) * (n_layers - p.start) for p in passes]
    return {
        "arms": len(arms),
        "passes": len(passes) + (base_token_layers > 0),
        "token_layers": sum(ran) + base_token_layers,
        "token_layers_naive": sum(sizes) * n_layers,
        "peak_bytes_planned": max(p.planned_bytes for p in passes),
        "model": models.name(model),
        "size": models.size(model),
        "weights": models.processing(model),
    }
