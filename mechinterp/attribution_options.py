"""The options of `mechinterp attribute`, checked before anything loads.

>>> from mechinterp.attribution_options import Attribute
>>> Attribute("bring the sesame", spans="trigger=sesame,verb=bring").named_spans()
{'trigger': 'sesame', 'verb': 'bring'}
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

MethodName = Literal[
    "single",
    "pairs",
    "shapley",
    "kernel_shap",
    "surrogate",
    "gradient",
    "integrated_gradients",
    "direct",
    "value_attention",
    "rollout",
]
MetricName = Literal[
    "log_prob",
    "centred_logit",
    "logit",
    "prob",
    "logit_diff",
    "kl",
    "sequence_log_prob",
    "sequence_log_odds",
    "refusal",
]


@dataclass(frozen=True)
class Attribute:
    """What the command takes.

    Args:
        prompt: the text; "-" reads it from standard input.
        file: or many prompts, an object a line with "prompt" (text or messages) and maybe
            "continuation", "spans": {"trigger": "sesame"} and "expect": ["sesame"].
        model: smollm2, toy:NAME, a local Hugging Face directory, or a hub name such as gpt2.
        outputs: how many tokens the model writes on, each of which is explained.
        continuation: explain this text instead of what the model would write.
        units: what is removed as one. "levels" is for long texts: sentences, then the words within
            those that matter.
        spans: or what you name: trigger=sesame,verb=bring. A text stands for all its occurrences.
        removal: what is done to an input.
        method: single removes one at a time; pairs finds inputs that stand in for each other; the
            others sample sets of removals, or read gradients and attention.
        beside: a second method, shown side by side with the first.
        subsets: how many sets kernel_shap and surrogate draw.
        seed: of sets that are drawn.
        metric: what is measured of an output token, or (sequence_..., refusal) of the answer.
        contrast: two tokens, --contrast " Mary" " John": measures the first's logit minus the
            second's.
        expect: input tokens or phrases that should matter, with commas between: Mary,John.
        faithfulness: measure how well the scores foretell what removals do, beside chance.
        chat: the prompt is a user's message; put it into the model's chat template.
        out: a folder for manifest.json, scores.parquet, scores.json and report.html; of a file, for
            the results, of which the same command goes on.
    """

    prompt: tyro.conf.Positional[str | None] = None
    file: Path | None = None
    model: str = "smollm2"
    outputs: int = 5
    continuation: str | None = None
    units: Literal["token", "word", "sentence", "part", "levels"] = "token"
    spans: str | None = None
    removal: Literal[
        "delete", "delete_keep", "knockout", "suppress", "mean", "resample", "replace"
    ] = "delete"
    method: MethodName = "single"
    beside: MethodName | None = None
    subsets: int = 256
    seed: int = 0
    metric: MetricName = "log_prob"
    contrast: tuple[str, str] | None = None
    expect: str | None = None
    faithfulness: bool = False
    chat: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what is wrong whatever the model is."""
        if (self.prompt is None) == (self.file is None):
            raise ValueError("give either a prompt or --file FILE.jsonl.")
        if self.file is not None and not self.file.is_file():
            raise ValueError(f"--file {self.file} is no file.")
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out {self.out} is a file. Name a folder.")
        if self.metric == "logit_diff" and self.contrast is None:
            raise ValueError('--metric logit_diff needs --contrast, two tokens: " Mary" " John".')
        alone = {
            "--units levels": self.units == "levels",
            "--file": self.file is not None,
        }
        for name, given in alone.items():
            for other in ("beside", "faithfulness"):
                if given and getattr(self, other):
                    raise ValueError(f"--{other} goes with one prompt and one level, not {name}.")
            if given and self.method != "single":
                raise ValueError(f"--method {self.method} does not go with {name}.")
        if self.file is not None and (self.units == "levels" or self.chat or self.expect):
            raise ValueError(
                "--file holds prompts of its own: messages for a chat, expect in a line; "
                "--units levels is for one."
            )
        if self.file is not None and self.continuation is not None:
            raise ValueError("--continuation is for one prompt: put it into the lines of --file.")
        if self.contrast is not None and self.metric not in ("log_prob", "logit_diff"):
            raise ValueError(f"--contrast is a metric: leave out --metric {self.metric}.")
        if self.spans is not None and self.units != "token":
            raise ValueError(f"--spans names the units: leave out --units {self.units}.")
        if self.spans is not None:
            self.named_spans()

    def named_spans(self) -> dict[str, str]:
        """The texts of `--spans` by name."""
        parts = [part.partition("=") for part in (self.spans or "").split(",")]
        for name, sign, text in parts:
            if not (name.strip() and sign and text.strip()):
                raise ValueError(f"--spans {self.spans}: write name=text,name=text.")
        names = [name.strip() for name, *_ in parts]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"--spans {self.spans}: {name} is there twice.")
        return dict(zip(names, (text for *_, text in parts), strict=True))
