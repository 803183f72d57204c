"""The passes of a sweep and what they cost, as values: `Plan`, `Pass`, and the `Savings` they use.

`sweeps.planner` makes plans; `mechinterp.plan` shows one.

>>> from mechinterp.sweeps.pass_plan import NAIVE, Savings
>>> Savings().layers, NAIVE.layers
(True, False)
"""

from dataclasses import dataclass

from mechinterp.models.memory import readable

CALL_TOKEN_LAYERS = 40
"""What calling a layer costs beside its arithmetic, in token-layers: its weights are read."""


@dataclass(frozen=True)
class Savings:
    """What a plan may use; every choice gives the same numbers. For checks and benchmarks.

    `rows`: several arms in a batch. `layers`, `positions`: start at the first that an arm touches.
    `queries`: in the last layer, only those that are read. `repeats`: run identical arms once.
    `columns`: unembed only what is read.
    """

    rows: bool = True
    layers: bool = True
    positions: bool = True
    queries: bool = True
    repeats: bool = True
    columns: bool = True


NAIVE = Savings(
    rows=False, layers=False, positions=False, queries=False, repeats=False, columns=False
)
"""The slow loop: one whole pass for each arm."""


@dataclass(frozen=True)
class Pass:
    """Arms that run as one batch: each from its first layer, all from one position on."""

    arms: tuple[int, ...]
    first_layers: tuple[int, ...]
    first_pos: int
    width: int
    last_queries: bool
    whole_logits: bool
    token_layers: int
    planned_bytes: int


@dataclass(frozen=True)
class Plan:
    """The passes of a sweep, and what they cost compared with a loop of whole passes.

    `same_as[i]`: the arm that arm `i` repeats, itself if none. `base_layers`, `base_first_pos`:
    what the unchanged run has to keep.
    """

    passes: tuple[Pass, ...]
    same_as: tuple[int, ...]
    base_layers: frozenset[int]
    base_first_pos: int
    base_token_layers: int
    base_bytes: int
    token_layers_naive: int
    n_layers: int

    @property
    def token_layers(self) -> int:
        """Positions times layers that are computed, including the unchanged run."""
        return sum(p.token_layers for p in self.passes) + self.base_token_layers

    @property
    def cost(self) -> int:
        """What the plan costs in token-layers, including the calls of layers."""
        calls = sum(self.n_layers - min(p.first_layers) for p in self.passes)
        base = self.n_layers if self.base_first_pos else max(self.base_layers, default=0)
        return self.token_layers + CALL_TOKEN_LAYERS * (calls + base)

    @property
    def planned_bytes(self) -> int:
        """The most that is allocated at once, without the model's weights."""
        return max((p.planned_bytes for p in self.passes), default=0) + self.base_bytes

    @property
    def n_passes(self) -> int:
        """Passes over the model, including the unchanged run."""
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
            layers = f"{min(p.first_layers)}-{self.n_layers - 1}"
            positions = f"{p.first_pos}-{p.width - 1}"
            lines.append(
                f"{number:4} {len(p.arms):6}  {layers:8} {positions:10} "
                f"{p.token_layers:12,}  {readable(p.planned_bytes)}"
            )
        return "\n".join(lines)
