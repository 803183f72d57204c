"""The options that say which prompts a command uses, checked before anything loads.

>>> from mechinterp.commands.options.prompt import PromptOptions
>>> PromptOptions(task="ioi").model
'smollm2'
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mechinterp.commands.options.ranges import check_count, check_seed
from mechinterp.storage.output_folder import check_folder


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What every command on pairs of prompts takes.

    Args:
        task: prompts of a published task: ioi, greater-than, induction, docstring, sva, capitals.
        pairs: or your own prompts, one JSON object a line, with the texts "clean", "corrupt" and
            "answer", and optionally "other" and "positions": {"S2": 10, "IO": " Mary"}. The metric
            is the logit of answer minus that of other, or the log-probability of answer alone.
        n: how many prompts; unless given, 16 of a task and all of a file.
        seed: for the prompts of a task, and for resampling.
        model: smollm2, toy:NAME, a local Hugging Face directory, or a hub name such as gpt2.
        out: a folder for report.html, the numbers, manifest.json and the finished parts of the
            run: if it was stopped, the same command continues.
    """

    kind: ClassVar[str] = ""
    """What a folder of such a run says that it holds."""

    task: str | None = None
    pairs: Path | None = None
    n: int | None = None
    seed: int = 0
    model: str = "smollm2"
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check what does not depend on the model."""
        if (self.task is None) == (self.pairs is None):
            raise ValueError("give either --task, such as --task ioi, or --pairs FILE.jsonl.")
        if self.pairs is not None and not self.pairs.is_file():
            raise ValueError(f"--pairs {self.pairs} is no file.")
        if self.n is not None and self.n < 1:
            raise ValueError(f"--n {self.n}: ask for at least one prompt.")
        check_count("n", self.n)
        check_seed(self.seed)
        check_folder(self.out, self.kind)
