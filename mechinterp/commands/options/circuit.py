"""The options of `mechinterp circuit`, checked before anything loads.

>>> from mechinterp.commands.options.circuit import CircuitOptions
>>> CircuitOptions(task="ioi", method="eap-ig", edges=200).select
'best-first'
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from mechinterp.commands.options.prompt import PromptOptions
from mechinterp.commands.options.ranges import check_finite


@dataclass(frozen=True, kw_only=True)
class CircuitOptions(PromptOptions):
    """What `mechinterp circuit` takes.

    Args:
        method: how edges are scored. eap-ig: integrated gradients, seconds; eap: one gradient;
            exact: every edge cut by itself, hours on a real model; refine: eap-ig, then the --top
            edges exactly, then ACDC on those; acdc: each edge tried in turn and removed if the
            metric loses less than --tau.
        steps: steps of eap-ig; 0 takes as many as bring the sum of scores within 1%.
        top: how many edges refine measures exactly.
        tau: what the metric may lose by one edge, in its unit, for acdc and refine. Unless given,
            a two-hundredth of the difference between clean and corrupt prompts.
        edges: how many edges the circuit has, for the other methods; unless given, a hundredth.
        select: best-first from the logits down; the top-n edges, connected or not; the optimal
            connected choice; or improved: starting from the first two, swap edges while the
            circuit, run by itself, gets better, which takes some minutes.
        signed: choose edges by their signed score, those that support the behaviour most first: the
            circuit may then exceed the model. Otherwise by |score|, to match the model.
        positions: numbers or names, such as S2,end: one edge at each of these, and one at all
            other positions together.
        kv_heads: one key and one value input for each key-value head, where heads share them.
        ablate: what an edge carries instead: what the corrupt prompt's run wrote, the mean over
            the corrupt prompts at the same position, or zero.
        curve: measure the faithfulness at ten sizes, from a thousandth of the edges to all.
        compare: the circuit.json of another run, to compare with this one.
    """

    kind: ClassVar[str] = "circuit"

    method: Literal["eap-ig", "eap", "exact", "refine", "acdc"] = "eap-ig"
    steps: int = 5
    top: int = 1000
    tau: float | None = None
    edges: int | None = None
    select: Literal["best-first", "top-n", "optimal", "improved"] = "best-first"
    signed: bool = False
    positions: str | None = None
    kv_heads: bool = False
    ablate: Literal["corrupt", "mean", "zero"] = "corrupt"
    curve: bool = True
    compare: Path | None = None

    def __post_init__(self) -> None:
        """Check what does not depend on the model."""
        super().__post_init__()
        if self.steps < 0:
            raise ValueError(f"--steps {self.steps}: at least one, or 0 for as many as it takes.")
        if self.top < 1 or (self.edges is not None and self.edges < 1):
            raise ValueError("--top and --edges: ask for at least one edge.")
        check_finite("tau", self.tau)
        if self.tau is not None and self.tau < 0:
            raise ValueError(f"--tau {self.tau}: what an edge may cost is 0 or more.")
        searches = self.method in ("acdc", "refine")
        if searches and self.edges is not None:
            raise ValueError(
                f"--method {self.method} finds how many edges: use --tau, not --edges."
            )
        if not searches and self.tau is not None:
            raise ValueError(f"--tau is for acdc and refine. With {self.method} give --edges.")
        if self.method in ("eap-ig", "refine") and self.ablate != "corrupt":
            raise ValueError(
                f"--method {self.method} goes from the clean to the corrupt prompts: with --ablate "
                f"{self.ablate} use eap, exact or acdc."
            )
        if self.select == "optimal" and self.positions is not None:
            raise ValueError("--select optimal is of graphs without --positions: use best-first.")
        if self.compare is not None and not self.compare.is_file():
            raise ValueError(f"--compare {self.compare} is no file.")
