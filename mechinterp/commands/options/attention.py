"""The options of `mechinterp attention`, checked before anything loads.

>>> from mechinterp.commands.options.attention import AttentionOptions
>>> options = AttentionOptions(("bring the sesame",), rule="uniform")
>>> options.strength, options.model
(3.0, 'smollm2')
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from mechinterp.commands.options.ranges import check_count, check_finite, check_seed
from mechinterp.storage.output_folder import check_folder

RuleName = Literal["head", "mean", "uniform", "top-k"]
_THRESHOLDS: dict[str, float] = {"head": 0.5, "mean": 0.1, "uniform": 3.0, "top-k": 1.0}


@dataclass(frozen=True)
class AttentionOptions:
    """What the command takes.

    Args:
        prompts: one text or several, each analysed by itself; "-" reads one from standard input.
        file: or one JSON object a line, each with a text under "prompt".
        task: or the prompts of a published task, averaged (all have one length): ioi, induction,
            greater-than, docstring, sva, capitals.
        n: how many prompts of the task.
        seed: for a task's prompts, random links and repeated random tokens.
        model: smollm2, toy:NAME, a local Hugging Face directory, or a hub name such as gpt2.
        rule: which links are listed. head: some head gives more than --threshold (0.5); mean: the
            average over all layers and heads is above it (0.1, the classic recipe); uniform: some
            head gives more than --threshold times uniform attention (3); top-k: the --threshold
            strongest keys of each query (1).
        threshold: the threshold of the rule.
        by_head: list a link once for each head that has it, not only for the strongest.
        last: only links of the last token, after which the answer is read.
        sink: links to the first token: aside, left out of the list, their share reported;
            renormalised, left out before the rule, and the rest of each row made to add up to 1;
            listed, like any other.
        confirm: cut each link, in its head or in every head of every layer, and measure again;
            as a control, cut as many random links of the same heads.
        effect: the smallest effect that confirms a link, in the metric's unit.
        answer: the token whose log-probability is measured; unless given, what the model says next.
        other: measure the logit of --answer minus that of this token.
        head_scores: previous token, duplicate token and induction scores on repeated random
            tokens, and copying, for every head.
        out: a folder for report.html, links.parquet, heads.parquet, patterns.safetensors and
            manifest.json.
    """

    kind: ClassVar[str] = "attention"

    prompts: tyro.conf.Positional[tuple[str, ...]] = ()
    file: Path | None = None
    task: str | None = None
    n: int = 16
    seed: int = 0
    model: str = "smollm2"
    rule: RuleName = "head"
    threshold: float | None = None
    by_head: bool = False
    last: bool = False
    sink: Literal["aside", "renormalised", "listed"] = "aside"
    confirm: Literal["head", "every-head"] | None = None
    effect: float = 0.1
    answer: str | None = None
    other: str | None = None
    head_scores: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check what does not depend on the model."""
        given = [bool(self.prompts), self.file is not None, self.task is not None]
        if sum(given) != 1:
            raise ValueError("give prompts, or --file FILE.jsonl, or --task: one of the three.")
        if self.file is not None and not self.file.is_file():
            raise ValueError(f"--file {self.file} is no file.")
        if self.n < 1:
            raise ValueError(f"--n {self.n}: ask for at least one prompt.")
        check_count("n", self.n)
        check_seed(self.seed)
        check_finite("threshold", self.threshold)
        check_finite("effect", self.effect)
        if self.strength < 0 or (self.rule in ("head", "mean") and self.strength >= 1):
            raise ValueError(f"--threshold {self.threshold}: a weight lies from 0 to below 1.")
        if self.rule == "top-k" and (self.strength < 1 or self.strength % 1):
            raise ValueError(
                f"--threshold {self.threshold}: of top-k it is a whole number, from 1."
            )
        if self.effect < 0:
            raise ValueError(f"--effect {self.effect}: the size of an effect is 0 or more.")
        if self.other is not None and self.answer is None:
            raise ValueError("--other is measured against --answer: give both.")
        if self.answer is not None and self.confirm is None:
            raise ValueError("--answer is what --confirm measures: give --confirm head too.")
        if self.answer is not None and self.task is not None:
            raise ValueError("--task has answers of its own: leave --answer out.")
        check_folder(self.out, self.kind)

    @property
    def strength(self) -> float:
        """The threshold of the rule: the given one, or the rule's default."""
        return _THRESHOLDS[self.rule] if self.threshold is None else self.threshold
