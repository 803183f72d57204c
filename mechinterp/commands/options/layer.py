"""The options of `mechinterp layers`, checked before anything loads.

>>> from mechinterp.commands.options.layer import LayerOptions
>>> LayerOptions(task="ioi").heads
10
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mechinterp.commands.options.prompt import PromptOptions


@dataclass(frozen=True, kw_only=True)
class LayerOptions(PromptOptions):
    """What `mechinterp layers` takes.

    Args:
        tuned: a tuned lens to show beside the logit lens, a file written by --train or write_lens.
        train: train a tuned lens first, on the lines of this text file, and keep it in the folder.
        steps: training steps on what the model says, a minute each on a CPU for a model of 135
            million weights; 0 is least squares alone.
        heads: how many heads are ablated, those of the largest direct attribution.
        ablation: measure the causal half: what the metric loses without each layer or head.
    """

    kind: ClassVar[str] = "layers"

    tuned: Path | None = None
    train: Path | None = None
    steps: int = 0
    heads: int = 10
    ablation: bool = True

    def __post_init__(self) -> None:
        """Check what does not depend on the model."""
        super().__post_init__()
        if self.tuned is not None and self.train is not None:
            raise ValueError("give --tuned, a lens that is there, or --train, texts for a new one.")
        for name, file in (("--tuned", self.tuned), ("--train", self.train)):
            if file is not None and not file.is_file():
                raise ValueError(f"{name} {file} is no file.")
        if self.steps < 0 or self.heads < 0:
            raise ValueError("--steps and --heads: 0 or more.")
