"""The options of `mechinterp layers`, checked before anything loads.

>>> from mechinterp.commands.options.layer import ReadLayers
>>> ReadLayers(task="ioi").heads
10
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mechinterp.commands.options.prompt import PromptOptions


@dataclass(frozen=True, kw_only=True)
class ReadLayers(PromptOptions):
    """What `mechinterp layers` takes.

    Args:
        tuned: a tuned lens to show beside the logit lens: a file that --train or write_lens made.
        train: train a tuned lens first, on the lines of this text file, and keep it in the folder.
        steps: of its training on what the model says, a minute each on a CPU and a model of 135
            million weights; 0 takes least squares alone.
        heads: how many heads, of the largest direct attribution, are ablated to see what they do.
        no_ablation: leave out the causal half: what the metric loses without each layer or head.
    """

    kind: ClassVar[str] = "layers"

    tuned: Path | None = None
    train: Path | None = None
    steps: int = 0
    heads: int = 10
    no_ablation: bool = False

    def __post_init__(self) -> None:
        """Refuse what is wrong whatever the model is."""
        super().__post_init__()
        if self.tuned is not None and self.train is not None:
            raise ValueError("give --tuned, a lens that is there, or --train, texts for a new one.")
        for name, file in (("--tuned", self.tuned), ("--train", self.train)):
            if file is not None and not file.is_file():
                raise ValueError(f"{name} {file} is no file.")
        if self.steps < 0 or self.heads < 0:
            raise ValueError("--steps and --heads: 0 or more.")
