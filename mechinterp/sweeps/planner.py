"""How a sweep becomes passes: a `Plan`, made from shapes alone before anything is allocated.

Arms go as blocks of rows into one batch. Each joins it at the first layer that it touches, from
the unchanged run's residual stream. A pass begins at the first position that any of its arms
touches, with the unchanged run's keys and values before it. Arms are put into buckets by that
position, weighing a longer common prefix against more passes. In the last layer only the positions
that are read need queries. Identical arms run once.

>>> from mechinterp import Site, load_model, log_prob, plan, zero
>>> model = load_model("toy:trigger")
>>> print(plan(model, "please bring the sesame", {"layer": [0, 1]},
...            lambda layer: zero(Site("z", layer, pos="end")), log_prob(1)))  # doctest: +ELLIPSIS
2 arms ...
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int
from torch import Tensor

from mechinterp import models
from mechinterp.engine.arms import Arm
from mechinterp.engine.exactness import resumes_exactly
from mechinterp.models.hook_points import read_bytes
from mechinterp.models.memory import available_bytes
from mechinterp.models.model import Model
from mechinterp.sweeps.pass_memory import Footprint, PassShape
from mechinterp.sweeps.pass_plan import CALL_TOKEN_LAYERS, NAIVE, Pass, Plan, Savings

CPU_POSITIONS = 768
"""Positions in a pass beyond which a CPU gets slower: a layer's values no longer fit its caches."""


def default_budget(model: Model) -> int:
    """A quarter of the free memory, at most 1 GiB."""
    return min(available_bytes(models.device(model)) // 4, 1 << 30)


def plan_passes(
    model: Model,
    arms: Sequence[Arm],
    readings: Sequence[Int[Tensor, "prompt k"]],
    n_columns: int | None,
    budget_bytes: int,
    savings: Savings,
) -> Plan:
    """The cheapest plan for the arms, each read at the positions `readings` of its prompts.

    `n_columns`: token ids that are read at each position, None for the whole vocabulary.
    """
    footprint = Footprint.from_model(model)
    if savings == NAIVE or models.has_foreign_hooks(model):
        return _plan(footprint, model, arms, readings, n_columns, budget_bytes, NAIVE)
    layers, positions = resumes_exactly(model)
    allowed = replace(
        savings,
        layers=savings.layers and layers,
        positions=savings.positions and positions,
        queries=savings.queries and positions,
    )
    # Starting late needs an unchanged run first, which a small sweep may not earn back.
    candidates = {
        allowed,
        replace(allowed, positions=False),
        replace(allowed, positions=False, layers=False),
    }
    plans = [
        _plan(footprint, model, arms, readings, n_columns, budget_bytes, c) for c in candidates
    ]
    return min(plans, key=lambda made: (max(made.planned_bytes - budget_bytes, 0), made.cost))


@dataclass(frozen=True)
class _ArmStart:
    """An arm as the plan sees it: its number, and the layer and position at which it starts."""

    arm: int
    first_layer: int
    first_pos: int


def _plan(
    footprint: Footprint,
    model: Model,
    arms: Sequence[Arm],
    readings: Sequence[Int[Tensor, "prompt k"]],
    n_columns: int | None,
    budget_bytes: int,
    savings: Savings,
) -> Plan:
    """The plan that uses just these savings."""
    n_layers, n_prompts = model.cfg.n_layers, len(arms[0].prompts)
    same_as = _repeats(arms, readings) if savings.repeats else list(range(len(arms)))
    # Arms of a group may share a batch: their prompts have one width, and they agree on whether
    # the last layer, or what comes after it, has to be computed in full.
    groups: dict[tuple[int, int, int], list[_ArmStart]] = {}
    for number, (arm, reading) in enumerate(zip(arms, readings, strict=True)):
        if same_as[number] != number:
            continue
        alone = number if arm.alone or not savings.rows else -1
        late = savings.positions and not arm.alone
        # What is read has to be computed too.
        first_pos = min(arm.first_pos, int(reading.min())) if late else 0
        first_layer = arm.first_layer if savings.layers and not arm.alone else 0
        touches = max(arm.last_layer, n_layers - 2)  # the last layer, what follows it, or neither
        start = _ArmStart(number, first_layer, first_pos)
        groups.setdefault((arm.prompts.width, touches, alone), []).append(start)

    width = max(arm.prompts.width for arm in arms)
    starts = [start for group in groups.values() for start in group]
    base_first_pos = max(start.first_pos for start in starts)
    kept = {start.first_layer for start in starts} - {0}
    kept_bytes = footprint.base_bytes(n_prompts, width, len(kept), base_first_pos)
    costs = _PassCosts(
        footprint, model, arms, readings[0].shape[1], n_columns, whole_logits=not savings.columns
    )
    passes: list[Pass] = []
    for (width, touches, alone), group in sorted(groups.items()):
        last_queries = savings.queries and touches < n_layers - 1 and alone < 0
        for bucket in _buckets(group, width, n_prompts, n_layers):
            for chunk in _cut(bucket, costs, width, max(1, budget_bytes - kept_bytes)):
                passes.append(costs.make_pass(chunk, width, last_queries=last_queries))
    first_pos = max(p.first_pos for p in passes)
    # The unchanged run computes whole layers up to the last stream that is kept. Above it keys and
    # values are needed alone, so only the positions before first_pos.
    whole, prefix = max(kept, default=0), n_layers if first_pos else 0
    return Plan(
        tuple(passes),
        tuple(same_as),
        frozenset(kept),
        first_pos,
        n_prompts * (width * whole + first_pos * max(prefix - whole, 0)),
        kept_bytes,
        sum(arm.prompts.tokens.numel() for arm in arms) * n_layers,
        n_layers,
    )


def _repeats(arms: Sequence[Arm], readings: Sequence[Tensor]) -> list[int]:
    """For each arm the first one with the same specs, tokens and positions read."""
    seen: dict[Hashable, int] = {}
    same = []
    for number, (arm, reading) in enumerate(zip(arms, readings, strict=True)):
        inner = tuple(
            (spec.site, id(spec.edit), spec.name, spec.needs)
            for spec in arm.specs
            if spec.site.act != "tokens"
        )
        moved = arm.prompts.moved if inner else None
        tensors = (arm.prompts.tokens, arm.prompts.lengths, reading, moved)
        content = tuple(None if t is None else t.cpu().numpy().tobytes() for t in tensors)
        # An edit may use the tokens that were read, so arms that read some are all different.
        distinct = number if arm.reads else -1
        key = (inner, content, arm.prompts.width, distinct)
        same.append(seen.setdefault(key, number))
    return same


@dataclass(frozen=True, eq=False)
class _PassCosts:
    """What passes of these arms cost, in positions and bytes."""

    footprint: Footprint
    model: Model
    arms: Sequence[Arm]
    n_read: int
    n_columns: int | None
    whole_logits: bool

    def n_positions(self, width: int, first_pos: int) -> int:
        """Positions of an arm that are computed, in all its prompts."""
        return (width - first_pos) * len(self.arms[0].prompts)

    def n_bytes(self, chunk: list[_ArmStart], width: int, first_pos: int) -> int:
        """The most that a pass of these arms takes."""
        n_prompts = len(self.arms[0].prompts)
        shape = PassShape(
            len(chunk) * n_prompts,
            width,
            first_pos,
            self.n_read,
            self.n_columns,
            n_prompts,
            self.whole_logits,
        )
        specs = [spec for start in chunk for spec in self.arms[start.arm].specs]
        edited = {spec.site for spec in specs if spec.edit is not None}
        reads = [spec.site for spec in specs if spec.edit is None]
        held = read_bytes(self.model, self.arms[chunk[0].arm].prompts, reads)
        return self.footprint.peak_bytes(shape, edited) + held

    def make_pass(self, chunk: list[_ArmStart], width: int, *, last_queries: bool) -> Pass:
        """The pass of these arms."""
        first_pos, n_layers = min(start.first_pos for start in chunk), self.model.cfg.n_layers
        layers = sum(n_layers - start.first_layer for start in chunk)
        return Pass(
            tuple(start.arm for start in chunk),
            tuple(start.first_layer for start in chunk),
            first_pos,
            width,
            last_queries,
            self.whole_logits,
            layers * self.n_positions(width, first_pos),
            self.n_bytes(chunk, width, first_pos),
        )


def _cut(
    bucket: list[_ArmStart], costs: _PassCosts, width: int, budget_bytes: int
) -> list[list[_ArmStart]]:
    """The arms of a bucket in chunks that fit the budget, those that start early first."""
    bucket = sorted(bucket, key=lambda start: (start.first_layer, start.arm))
    first_pos = min(start.first_pos for start in bucket)
    # Bytes are about linear in the number of arms: one arm, and what each further one adds.
    one, all_of_them = (costs.n_bytes(chunk, width, first_pos) for chunk in (bucket[:1], bucket))
    each = max(1, (all_of_them - one) // max(1, len(bucket) - 1))
    most = max(1, 1 + (budget_bytes - one) // each)
    if models.device(costs.model).type == "cpu":
        most = min(most, max(1, CPU_POSITIONS // costs.n_positions(width, first_pos)))
    n_chunks = -(-len(bucket) // most)
    size = -(-len(bucket) // n_chunks)  # chunks of about one size
    return [bucket[at : at + size] for at in range(0, len(bucket), size)]


def _buckets(
    group: list[_ArmStart], width: int, n_prompts: int, n_layers: int
) -> list[list[_ArmStart]]:
    """Arms grouped by neighbouring first positions, so that arithmetic and calls cost the least.

    All arms of a bucket are computed from the earliest of their first positions on. One bucket for
    everything calls each layer once, but computes positions that most arms do not touch; a bucket
    for each position computes no more than it must, but calls layers often. The best partition of
    the positions into ranges is found by dynamic programming over where the last range begins.
    """
    firsts = sorted({start.first_pos for start in group})  # places: the distinct first positions
    place = {first_pos: i for i, first_pos in enumerate(firsts)}
    # For each place: the layers that its arms compute together, and the earliest that one joins at.
    layers, earliest = np.zeros(len(firsts)), np.full(len(firsts), n_layers)
    for start in group:
        at = place[start.first_pos]
        layers[at] += n_layers - start.first_layer
        earliest[at] = min(earliest[at], start.first_layer)
    each = n_prompts * (width - np.array(firsts))  # positions computed, if a range begins there
    total = np.concatenate([[0], layers.cumsum()])  # total[i]: layers of the places before i
    # best[end]: the least cost, in token-layers, of the places before `end`; cut[end]: where the
    # last range of that partition begins.
    best, cut = np.zeros(len(firsts) + 1), np.zeros(len(firsts) + 1, dtype=int)
    for end in range(1, len(firsts) + 1):
        # For every place at which a range up to `end` may begin, at once: it calls the layers from
        # the earliest at which any of its arms joins, hence the minimum from the right.
        calls = n_layers - np.minimum.accumulate(earliest[:end][::-1])[::-1]
        arithmetic = each[:end] * (total[end] - total[:end])
        cost = best[:end] + arithmetic + CALL_TOKEN_LAYERS * calls
        cut[end] = int(cost.argmin())
        best[end] = cost[cut[end]]
    buckets, end = [], len(firsts)
    while end:
        inside = range(cut[end], end)
        buckets.append([start for start in group if place[start.first_pos] in inside])
        end = cut[end]
    return buckets[::-1]
