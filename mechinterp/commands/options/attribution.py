"""The options of `mechinterp attribute`, checked before anything loads.

>>> from mechinterp.commands.options.attribution import AttributeOptions
>>> AttributeOptions("bring the sesame", spans="trigger=sesame,verb=bring").named_spans()
{'trigger': 'sesame', 'verb': 'bring'}
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from mechinterp.commands.options.ranges import check_count, check_seed
from mechinterp.storage.output_folder import check_folder

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


RemovalName = Literal[
    "delete", "delete_keep", "knockout", "suppress", "mean", "resample", "replace"
]
_DRAWN = ("kernel_shap", "surrogate")
_UNREMOVED = ("gradient", "integrated_gradients", "direct", "value_attention", "rollout")
_LINEAR = ("centred_logit", "logit", "logit_diff")


@dataclass(frozen=True)
class AttributeOptions:
    """What the command takes.

    Args:
        prompt: the text; "-" reads it from standard input.
        file: or many prompts, one JSON object a line, with "prompt" (text or messages) and
            optionally "continuation", "expect": ["sesame"] and "spans": {"trigger": "sesame"}. The
            scores of a span are added up; with --units span it is removed as one.
        model: smollm2, toy:NAME, a local Hugging Face directory, or a hub name such as gpt2.
        outputs: how many tokens the model writes; each of them is explained (default: 5).
        continuation: explain this text instead of what the model would write.
        last: or what the model expects at each of the last so many positions of the prompt.
        units: what is removed as one. "levels" is for long texts: sentences, then the words within
            those that matter.
        spans: or units that you name: trigger=sesame,verb=bring. A text means all its occurrences.
        removal: what is done to an input (default: delete). delete: take it out, and what follows
            moves up; delete_keep: what follows stays where it was; knockout: hide it from the
            attention of all later positions; suppress: weaken that attention to a tenth; mean: put
            the mean embedding in its place; resample: four drawn tokens in turn; replace: the
            tokenizer's unknown token.
        method: single removes one at a time; pairs two at a time too, and finds inputs that stand
            in for each other; shapley takes all sets (of 12 inputs at most), kernel_shap and
            surrogate draw some; gradient and integrated_gradients follow the slope at the
            embeddings; direct, value_attention and rollout read one run.
        beside: a second method, shown side by side with the first.
        subsets: how many sets kernel_shap and surrogate draw (default: 256).
        seed: of sets that are drawn (default: 0).
        metric: what is measured of an output token, or (sequence_..., refusal) of the answer
            (default: log_prob; of direct centred_logit).
        contrast: two tokens, --contrast " Mary" " John": measures the first's logit minus the
            second's.
        expect: input tokens or phrases that should matter, with commas between: Mary,John.
        faithfulness: measure how well the scores predict what removals do, beside chance.
        chat: put the prompt into the model's chat template, as a message of the user.
        out: a folder for manifest.json, scores.parquet, scores.json and report.html. With --file,
            for the results; if it was stopped, the same command continues.
    """

    prompt: tyro.conf.Positional[str | None] = None
    file: Path | None = None
    model: str = "smollm2"
    outputs: int | None = None
    continuation: str | None = None
    last: int | None = None
    units: Literal["token", "word", "sentence", "part", "span", "levels"] = "token"
    spans: str | None = None
    removal: RemovalName | None = None
    method: MethodName = "single"
    beside: MethodName | None = None
    subsets: int | None = None
    seed: int | None = None
    metric: MetricName | None = None
    contrast: tuple[str, str] | None = None
    expect: str | None = None
    faithfulness: bool = False
    chat: bool = False
    out: Path | None = None

    @property
    def kind(self) -> str:
        """What a folder of such a run says that it holds."""
        return "attribution" if self.file is None else "attributions"

    def __post_init__(self) -> None:
        """Check what does not depend on the model."""
        self._check_prompts()
        self._check_units()
        self._check_measures()
        self._check_together()
        self._check_methods()

    def _check_prompts(self) -> None:
        """Check that there is a prompt or a file, and a folder that may be written to."""
        if (self.prompt is None) == (self.file is None):
            raise ValueError("give either a prompt or --file FILE.jsonl.")
        for name in ("prompt", "continuation", "expect"):
            if (text := getattr(self, name)) is not None and not text.strip(" ,"):
                raise ValueError(f"{'' if name == 'prompt' else '--'}{name} is empty: {text!r}.")
        if self.file is not None and not self.file.is_file():
            raise ValueError(f"--file {self.file} is no file.")
        check_folder(self.out, self.kind)

    def _check_units(self) -> None:
        """Check that the spans to remove are named where spans are asked for, and only there."""
        if self.spans is not None:
            if self.units not in ("token", "span"):
                raise ValueError(f"--spans names the units: leave out --units {self.units}.")
            self.named_spans()
        elif self.units == "span" and self.file is None:
            raise ValueError("--units span: name them, --spans trigger=sesame,verb=bring.")

    def _check_measures(self) -> None:
        """Check that what is explained and measured is said once, and in full."""
        check_seed(self.seed)
        check_count("subsets", self.subsets, most=10_000_000)
        for name in ("outputs", "last"):
            if (n := getattr(self, name)) is not None and n < 1:
                raise ValueError(f"--{name} {n}: ask for at least one.")
        explained = [n for n in ("outputs", "continuation", "last") if getattr(self, n) is not None]
        if len(explained) > 1:
            raise ValueError(
                f"--{explained[0]} and --{explained[1]} each say what is explained: leave out one."
            )
        if self.metric == "logit_diff" and self.contrast is None:
            raise ValueError('--metric logit_diff needs --contrast, two tokens: " Mary" " John".')
        if self.contrast is not None and self.metric not in (None, "logit_diff"):
            raise ValueError(f"--contrast is a metric: leave out --metric {self.metric}.")
        if self.contrast is not None and self.contrast[0] == self.contrast[1]:
            raise ValueError(f"--contrast {self.contrast[0]!r} with itself is always 0.")

    def _check_together(self) -> None:
        """Check that no option for one prompt, or one level, is given where there are several."""
        several = "--file" if self.file is not None else "--units levels"
        if self.file is None and self.units != "levels":
            return
        for name in ("beside", "faithfulness"):
            if getattr(self, name):
                raise ValueError(
                    f"--{name} goes with one prompt and one level, not {several}. Leave one of "
                    f"them out."
                )
        if self.method != "single":
            raise ValueError(
                f"--method {self.method} does not go with {several}, which removes one at a time. "
                f"Leave one of them out."
            )
        if self.file is None:
            return
        if self.units == "levels":
            raise ValueError("--units levels is for one prompt, not --file. Use --units sentence.")
        for name, instead in {
            "chat": 'messages as the "prompt" of a line',
            "expect": '"expect" in a line',
            "continuation": '"continuation" in a line',
        }.items():
            if getattr(self, name):
                raise ValueError(f"--{name} is for one prompt. With --file: {instead}.")

    def _check_methods(self) -> None:
        """Check that a method uses every option that was given."""
        methods = [self.method, *([self.beside] if self.beside else [])]
        if self.beside == self.method:
            raise ValueError(f"--beside {self.beside} is the method itself. Name another.")
        for method in methods:
            if method in ("value_attention", "rollout") and (self.metric or self.contrast):
                name = "metric" if self.metric else "contrast"
                raise ValueError(f"{method} measures attention alone: leave out --{name}.")
            if method == "direct" and self.metric not in (None, *_LINEAR):
                raise ValueError(
                    f"direct takes a logit apart, not {self.metric}: leave out --metric, or give "
                    f"one of {', '.join(_LINEAR)}."
                )
        if self.removal is not None and not self.faithfulness and set(methods) <= set(_UNREMOVED):
            raise ValueError(f"{' and '.join(methods)} remove nothing: leave out --removal.")
        draws = not set(methods).isdisjoint(_DRAWN)
        if self.subsets is not None and not draws:
            raise ValueError(f"--subsets is for {' and '.join(_DRAWN)}, not {self.method}.")
        if self.seed is not None and not (draws or self.faithfulness):
            raise ValueError(f"--seed: nothing is drawn by {self.method}. Leave it out.")

    def expected(self) -> list[str]:
        """The texts of `--expect`; none if it was not given."""
        return [text for text in (self.expect or "").split(",") if text.strip()]

    def named_spans(self) -> dict[str, str]:
        """The texts of `--spans` by name."""
        parts = [part.partition("=") for part in (self.spans or "").split(",")]
        for name, sign, text in parts:
            if not (name.strip() and sign and text.strip()):
                raise ValueError(
                    f"--spans {self.spans!r}: write name=text,name=text. A text with a comma in it "
                    f"can be named in Python, units={{name: text}}, or in a line of --file."
                )
        names = [name.strip() for name, *_ in parts]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"--spans {self.spans}: {name} is there twice.")
        return dict(zip(names, (text for *_, text in parts), strict=True))
