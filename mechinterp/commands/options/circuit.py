"""The options of `mechinterp circuit`, checked before anything loads.

>>> from mechinterp.commands.options.circuit import FindCircuit
>>> FindCircuit(task="ioi", method="eap-ig", edges=200).select
'best-first'
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from mechinterp.commands.options.prompt import PromptOptions


@dataclass(frozen=True, kw_only=True)
class FindCircuit(PromptOptions):
    """What `mechinterp circuit` takes.

    Args:
        method: how edges are scored. eap-ig: integrated gradients, seconds; eap: one gradient;
            exact: every edge cut by itself, hours on a real model; refine: eap-ig, then the --top
            edges exactly, then ACDC on those; acdc: each edge tried in turn and removed if the
            metric loses less than --tau.
        steps: of eap-ig; 0 takes as many as the sum of scores needs to be within 1%.
        top: how many edges refine measures exactly.
        tau: what the metric may lose by one edge, in its unit; of acdc and refine. Unless given,
            a two-hundredth of the difference between clean and corrupt prompts.
        edges: how many edges the circuit has, of the other methods; unless given, a hundredth.
        select: best-first from the logits down; the top-n edges whatever they are connected to;
            the optimal connected choice; or improved: begun with the first two, edges are
            swapped as long as the circuit, run by itself, gains, which takes some minutes.
        signed: choose edges that support the behaviour alone, by their signed score, so that the
            circuit may do more than the model; else by size, to do as the model does.
        positions: numbers or names, such as S2,end: edges at each of these, and at all others
            together.
        kv_heads: one key and one value input for each key-value head, where heads share them.
        ablate: what an edge carries instead: what the corrupt prompt's run wrote, the mean over
            the corrupt prompts at the same position, or zero.
        no_curve: leave out the faithfulness at ten sizes, from a thousandth to all edges.
        compare: the circuit.json of another run, to be shown beside this one.
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
    no_curve: bool = False
    compare: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what is wrong whatever the model is."""
        super().__post_init__()
        if self.steps < 0:
            raise ValueError(f"--steps {self.steps}: at least one, or 0 for as many as it takes.")
        if self.top < 1 or (self.edges is not None and self.edges < 1):
            raise ValueError("--top and --edges: ask for at least one edge.")
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
