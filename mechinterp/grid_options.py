"""The options of `mechinterp patch` and `ablate`, checked before anything loads.

>>> from mechinterp.grid_options import Patch
>>> Patch(task="ioi", layers="0,3-5").chosen_layers()
[0, 3, 4, 5]
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from mechinterp.folders import check_folder


@dataclass(frozen=True, kw_only=True)
class GridOptions:
    """What both commands take.

    Args:
        task: prompts of a published task: ioi, greater-than, induction, docstring, sva, capitals.
        pairs: or prompts of yours, an object a line with the texts "clean", "corrupt", "answer" and
            maybe "other" and "positions": {"S2": 10, "IO": " Mary"}. Measured is the logit of
            answer minus that of other, or the log-probability of answer alone.
        n: how many prompts: of a task 16, of a file all, unless it is given.
        seed: of a task's prompts, and of resampling.
        model: smollm2, toy:NAME, a local Hugging Face directory, or a hub name such as gpt2.
        layers: such as 0,1,2 or 3-8; all unless given.
        positions: numbers or names, such as end,S2,4. Where the grid has positions it has these;
            elsewhere each cell is of these together. All unless given.
        layer: that of --what neurons.
        out: a folder for report.html, values.parquet, manifest.json and the finished parts of the
            sweep: if it was stopped, the same command goes on from there.
        plan: print the passes that would run and what they cost, and stop.
    """

    kind: ClassVar[str]
    """What a folder of such a run says that it holds."""

    task: str | None = None
    pairs: Path | None = None
    n: int | None = None
    seed: int = 0
    model: str = "smollm2"
    layers: str | None = None
    positions: str | None = None
    layer: int | None = None
    out: Path | None = None
    plan: bool = False

    def __post_init__(self) -> None:
        """Refuse what is wrong whatever the model is."""
        if (self.task is None) == (self.pairs is None):
            raise ValueError("give either --task, such as --task ioi, or --pairs FILE.jsonl.")
        if self.pairs is not None and not self.pairs.is_file():
            raise ValueError(f"--pairs {self.pairs} is no file.")
        if self.n is not None and self.n < 1:
            raise ValueError(f"--n {self.n}: ask for at least one prompt.")
        self.chosen_layers()
        check_folder(self.out, self.kind)
        is_of_one_layer = getattr(self, "what", "") == "neurons"
        if is_of_one_layer and (self.layer is None or self.layers is not None):
            raise ValueError("--what neurons is of one layer: give --layer, such as --layer 5.")
        if not is_of_one_layer and self.layer is not None:
            raise ValueError(f"--layer is for --what neurons. Use --layers {self.layer}.")

    def chosen_layers(self) -> list[int] | None:
        """The numbers of `--layers`; None for all."""
        if self.layers is None:
            return None
        found: dict[int, None] = {}
        for part in self.layers.split(","):
            ends = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
            first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
            if last < first:
                raise ValueError(f"--layers {self.layers}: {part!r} is neither 4 nor 3-8.")
            found |= dict.fromkeys(range(first, last + 1))
        return list(found)


@dataclass(frozen=True, kw_only=True)
class Patch(GridOptions):
    """What `mechinterp patch` takes.

    Args:
        what: each head's output (z), query, key, value or pattern; at each position the residual
            stream, or what attention or the MLP of a layer writes; each neuron of a layer.
        direction: noise runs the clean prompts and puts in what the corrupt ones had, which shows
            what is needed; denoise is the other way round, which shows what suffices.
        screen: estimate every patch from gradients first (attribution patching, with the patterns
            of patched queries and keys exact), then compute only so many, the strongest.
    """

    kind: ClassVar[str] = "activation patching"

    what: Literal[
        "heads", "heads-by-position", "resid_pre", "resid_mid", "resid_post", "attn_out",
        "mlp_out", "q", "k", "v", "pattern", "neurons",
    ] = "heads"  # fmt: skip
    direction: Literal["noise", "denoise"] = "noise"
    screen: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is wrong whatever the model is."""
        super().__post_init__()
        if self.screen is not None and self.screen < 1:
            raise ValueError(f"--screen {self.screen}: keep at least one cell.")


@dataclass(frozen=True, kw_only=True)
class Ablate(GridOptions):
    """What `mechinterp ablate` takes.

    Args:
        what: each head's output (z), query, key or value; what attention, the MLP or both of a
            layer write; each neuron of a layer; the residual stream at each layer and position.
        how: what takes its place: zero; the mean over the corrupt prompts at the same position;
            or resample, what a corrupt prompt drawn at random had there.
    """

    kind: ClassVar[str] = "ablation"

    what: Literal["heads", "layers", "neurons", "positions", "q", "k", "v"] = "heads"
    how: Literal["zero", "mean", "resample"] = "mean"
