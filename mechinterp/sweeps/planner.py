"""How a sweep becomes passes: `Plan`, made from shapes alone before anything is allocated.

Arms go as blocks of rows into one batch. Each joins it at the first layer that it touches, from
the unchanged run's residual stream. A pass begins at the first position that any of its arms
touches, with the unchanged run's keys and values for those before; arms are put into buckets by
that position, where a longer common prefix is weighed against more passes. In the last layer only
what is read needs queries. Arms that are the same run once.

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
from mechinterp.engine.passes import resumes_exactly
from mechinterp.models.hook_points import read_bytes
from mechinterp.models.memory import available_bytes, readable
from mechinterp.models.model import Model
from mechinterp.sweeps.pass_memory import Batch, Footprint

CALL = 40
"""What calling a layer costs beside its arithmetic, in token-layers: its weights are read."""

CPU_POSITIONS = 768
"""Positions in a pass beyond which a CPU gets slower: a layer's values no longer fit its caches."""


@dataclass(frozen=True)
class Savings:
    """What a plan may use; all of it gives the same numbers. For checking, and for benchmarks."""

    rows: bool = True
    layers: bool = True
    positions: bool = True
    queries: bool = True
    repeats: bool = True
    columns: bool = True


NAIVE = Savings(False, False, False, False, False, False)


@dataclass(frozen=True)
class Pass:
    """Arms that run as one batch: each from its layer, all from one position on."""

    arms: tuple[int, ...]
    starts: tuple[int, ...]
    first: int
    width: int
    last_queries: bool
    whole_logits: bool
    token_layers: int
    planned_bytes: int


@dataclass(frozen=True)
class Plan:
    """The passes of a sweep, and what they cost beside the loop of whole passes.

    `same_as[i]`: the arm that arm `i` repeats, itself if none. `base_layers`, `base_first`: what
    the unchanged run has to keep.
    """

    passes: tuple[Pass, ...]
    same_as: tuple[int, ...]
    base_layers: frozenset[int]
    base_first: int
    base_token_layers: int
    base_bytes: int
    token_layers_naive: int
    n_layers: int

    @property
    def token_layers(self) -> int:
        """Positions times layers that are computed, the unchanged run's among them."""
        return sum(p.token_layers for p in self.passes) + self.base_token_layers

    @property
    def cost(self) -> int:
        """What the plan costs in token-layers, the calls of layers counted too."""
        calls = sum(self.n_layers - min(p.starts) for p in self.passes)
        base = self.n_layers if self.base_first else max(self.base_layers, default=0)
        return self.token_layers + CALL * (calls + base)

    @property
    def planned_bytes(self) -> int:
        """The most that is allocated at once beside the model's weights."""
        return max((p.planned_bytes for p in self.passes), default=0) + self.base_bytes

    @property
    def n_passes(self) -> int:
        """Passes over the model, the unchanged run's among them."""
        return len(self.passes) + (self.base_token_layers > 0)

    def __str__(self) -> str:
        n_arms, different = len(self.same_as), sum(len(p.arms) for p in self.passes)
        ratio = self.token_layers_naive / max(self.token_layers, 1)
        lines = [
            f"{n_arms} arms ({n_arms - different} repeat another) in {self.n_passes} passes: "
            f"{self.token_layers:,} token-layers, naive {self.token_layers_naive:,} "
            f"({ratio:.1f} times as many); {readable(self.planned_bytes)}",
            "pass   arms  layers   positions  token-layers  memory",
        ]
        if self.base_token_layers:
            kept = readable(self.base_bytes)
            lines.append(f"base {'':29}{self.base_token_layers:14,}  {kept}")
        for number, p in enumerate(self.passes):
            layers = f"{min(p.starts)}-{self.n_layers - 1}"
            positions = f"{p.first}-{p.width - 1}"
            lines.append(
                f"{number:4} {len(p.arms):6}  {layers:8} {positions:10} "
                f"{p.token_layers:12,}  {readable(p.planned_bytes)}"
            )
        return "\n".join(lines)


def default_budget(model: Model) -> int:
    """A quarter of the free memory, at most 1 GiB."""
    return min(available_bytes(models.device(model)) // 4, 1 << 30)


def planned_passes(
    model: Model,
    arms: Sequence[Arm],
    readings: Sequence[Int[Tensor, "prompt k"]],
    n_columns: int | None,
    budget_bytes: int,
    savings: Savings,
) -> Plan:
    """The cheapest plan of the arms, each read at the positions `readings` of its prompts.

    `n_columns`: token ids that are read at each, None for the whole vocabulary.
    """
    if savings == NAIVE or models.has_foreign_hooks(model):
        return _plan(model, arms, readings, n_columns, budget_bytes, NAIVE)
    layers, positions = resumes_exactly(model)
    allowed = replace(
        savings,
        layers=savings.layers and layers,
        positions=savings.positions and positions,
        queries=savings.queries and positions,
    )
    candidates = {
        allowed,
        replace(allowed, positions=False),
        replace(allowed, positions=False, layers=False),
    }
    plans = [_plan(model, arms, readings, n_columns, budget_bytes, c) for c in candidates]
    return min(plans, key=lambda made: (max(made.planned_bytes - budget_bytes, 0), made.cost))


def _plan(
    model: Model,
    arms: Sequence[Arm],
    readings: Sequence[Int[Tensor, "prompt k"]],
    n_columns: int | None,
    budget_bytes: int,
    savings: Savings,
) -> Plan:
    n_layers, n_prompts = model.cfg.n_layers, len(arms[0].prompts)
    same_as = _repeats(arms, readings) if savings.repeats else list(range(len(arms)))
    groups: dict[tuple[int, int, int], list[_Row]] = {}
    for number, (arm, reading) in enumerate(zip(arms, readings, strict=True)):
        if same_as[number] != number:
            continue
        alone = number if arm.alone or not savings.rows else -1
        begin = min(arm.begin, int(reading.min())) if savings.positions and not arm.alone else 0
        start = arm.start if savings.layers and not arm.alone else 0
        touches = max(arm.stop, n_layers - 2)  # the last layer, what comes after it, or neither
        row = _Row(number, start, begin)
        groups.setdefault((arm.prompts.width, touches, alone), []).append(row)

    width = max(arm.prompts.width for arm in arms)
    rows = [row for group in groups.values() for row in group]
    base_first = max(row.begin for row in rows)
    kept = {row.start for row in rows} - {0}
    kept_bytes = Footprint.of(model).base_bytes(n_prompts, width, len(kept), base_first)
    sizes = _Sizes(model, arms, readings[0].shape[1], n_columns, not savings.columns)
    passes: list[Pass] = []
    for (width, touches, alone), group in sorted(groups.items()):
        queries = savings.queries and touches < n_layers - 1 and alone < 0
        for bucket in _buckets(group, width, n_prompts, n_layers):
            for chunk in _cut(bucket, sizes, width, max(1, budget_bytes - kept_bytes)):
                passes.append(sizes.passed(chunk, width, queries))
    first = max(p.first for p in passes)
    whole, prefix = max(kept, default=0), n_layers if first else 0
    return Plan(
        tuple(passes),
        tuple(same_as),
        frozenset(kept),
        first,
        n_prompts * (width * whole + first * max(prefix - whole, 0)),
        kept_bytes,
        sum(arm.prompts.tokens.numel() for arm in arms) * n_layers,
        n_layers,
    )


@dataclass(frozen=True)
class _Row:
    """An arm as the plan sees it: the layer and the position at which it begins."""

    arm: int
    start: int
    begin: int


def _repeats(arms: Sequence[Arm], readings: Sequence[Tensor]) -> list[int]:
    """For each arm the first one with the same specs on the same tokens, read likewise."""
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
        told = number if arm.reads else -1  # an edit may use the tokens that were read
        key = (inner, content, arm.prompts.width, told)
        same.append(seen.setdefault(key, number))
    return same


@dataclass(frozen=True, eq=False)
class _Sizes:
    """What passes of these arms take."""

    model: Model
    arms: Sequence[Arm]
    n_read: int
    n_columns: int | None
    whole_logits: bool

    def n_positions(self, width: int, first: int) -> int:
        """Positions of an arm that are computed, in all its prompts."""
        return (width - first) * len(self.arms[0].prompts)

    def n_bytes(self, chunk: list[_Row], width: int, first: int) -> int:
        """The most that a pass of these rows takes."""
        n_prompts = len(self.arms[0].prompts)
        shape = (len(chunk) * n_prompts, width, first, self.n_read, self.n_columns, n_prompts)
        specs = [spec for row in chunk for spec in self.arms[row.arm].specs]
        edited = {spec.site for spec in specs if spec.edit is not None}
        reads = [spec.site for spec in specs if spec.edit is None]
        held = read_bytes(self.model, self.arms[chunk[0].arm].prompts, reads)
        batch = Batch(*shape, self.whole_logits)
        return Footprint.of(self.model).peak_bytes(batch, edited) + held

    def passed(self, chunk: list[_Row], width: int, last_queries: bool) -> Pass:
        """The pass of these rows."""
        first, n_layers = min(row.begin for row in chunk), self.model.cfg.n_layers
        layers = sum(n_layers - row.start for row in chunk)
        return Pass(
            tuple(row.arm for row in chunk),
            tuple(row.start for row in chunk),
            first,
            width,
            last_queries,
            self.whole_logits,
            layers * self.n_positions(width, first),
            self.n_bytes(chunk, width, first),
        )


def _cut(bucket: list[_Row], sizes: _Sizes, width: int, budget: int) -> list[list[_Row]]:
    """The rows of a bucket in parts that fit the budget, those that begin early first."""
    bucket = sorted(bucket, key=lambda row: (row.start, row.arm))
    first = min(row.begin for row in bucket)
    one, all_of_them = (sizes.n_bytes(rows, width, first) for rows in (bucket[:1], bucket))
    each = max(1, (all_of_them - one) // max(1, len(bucket) - 1))
    most = max(1, 1 + (budget - one) // each)
    if models.device(sizes.model).type == "cpu":
        most = min(most, max(1, CPU_POSITIONS // sizes.n_positions(width, first)))
    n_parts = -(-len(bucket) // most)
    size = -(-len(bucket) // n_parts)
    return [bucket[at : at + size] for at in range(0, len(bucket), size)]


def _buckets(group: list[_Row], width: int, n_prompts: int, n_layers: int) -> list[list[_Row]]:
    """Rows of neighbouring first positions together, so that work and calls cost the least.

    The best partition of the positions into ranges, by dynamic programming over where one ends.
    """
    firsts = sorted({row.begin for row in group})
    place = {begin: i for i, begin in enumerate(firsts)}
    layers, starts = np.zeros(len(firsts)), np.full(len(firsts), n_layers)
    for row in group:
        layers[place[row.begin]] += n_layers - row.start
        starts[place[row.begin]] = min(starts[place[row.begin]], row.start)
    each = n_prompts * (width - np.array(firsts))
    total = np.concatenate([[0], layers.cumsum()])
    best, cut = np.zeros(len(firsts) + 1), np.zeros(len(firsts) + 1, dtype=int)
    for end in range(1, len(firsts) + 1):
        calls = n_layers - np.minimum.accumulate(starts[:end][::-1])[::-1]
        cost = best[:end] + each[:end] * (total[end] - total[:end]) + CALL * calls
        cut[end] = int(cost.argmin())
        best[end] = cost[cut[end]]
    buckets, end = [], len(firsts)
    while end:
        inside = range(cut[end], end)
        buckets.append([row for row in group if place[row.begin] in inside])
        end = cut[end]
    return buckets[::-1]
