"""The options of `mechinterp probe`, checked before anything loads.

>>> from mechinterp.commands.options.ranges import chosen_layers
>>> chosen_layers("0,4-6")
[0, 4, 5, 6]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from mechinterp.commands.options.ranges import (
    MOST_PROMPTS,
    check_count,
    check_finite,
    check_seed,
    chosen_layers,
)
from mechinterp.storage.output_folder import check_folder


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What `mechinterp probe` takes.

    Args:
        file: JSON lines, each with "text" (or "prompt": a text or a list of messages), "label" and,
            unless every line stands for itself, "group": lines of a group are never split between
            training and test.
        layers: such as 0,4-6: of the residual stream 0 is the embedding, the last what the last
            block leaves; of another activation the numbers of the blocks. All, unless given.
        act: what is probed: resid, the residual stream, or z, attn_out, mlp_out, mlp_post ...
        position: end, the last token; text_end, the last of the user's text; mean, over the
            user's text; or a number.
        probe: logistic regression on standardised activations, or the difference of class means.
        C: the inverse strength of the logistic penalty.
        folds: into how many parts the groups are divided, each tested once.
        shuffles: how many random orders of the labels are tried.
        chat: put each text into the model's chat template.
        causal: the other half, of two classes: take the direction at --causal-layer out of the
            residual stream, and steer along it, beside random directions; found on all folds but
            two, measured on these.
        causal_layer: of the residual stream; the one with the highest curve unless given.
        metric: what the interventions are measured by: refusal, the log-odds of a refusal's first
            words; or with --tokens the logit difference of two.
        tokens: two tokens, such as " yes" " no".
        random: how many random directions of each kind.
        n: how many lines of the file: all, unless it is given.
        seed: of folds, shuffles, control labels and random directions.
        model: smollm2, toy:NAME, a local Hugging Face directory, or a hub name such as gpt2.
        out: a folder for report.html, probes.parquet, directions.safetensors, the activations and
            manifest.json: if it was stopped, the same command continues.
    """

    kind: ClassVar[str] = "probing"

    file: Path
    layers: str | None = None
    act: str = "resid"
    position: str = "end"
    probe: Literal["logistic", "mass-mean"] = "logistic"
    C: Annotated[float, tyro.conf.arg(name="C")] = 0.1
    folds: int = 5
    shuffles: int = 3
    chat: bool = False
    causal: bool = False
    causal_layer: int | None = None
    metric: Literal["refusal"] | None = None
    tokens: tuple[str, str] | None = None
    random: int = 10
    n: int | None = None
    seed: int = 0
    model: str = "smollm2"
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check what does not depend on the model."""
        if not self.file.is_file():
            raise ValueError(f"--file {self.file} is no file.")
        if self.layers is not None:
            chosen_layers(self.layers)
        for name, least in (("folds", 2), ("shuffles", 0), ("random", 1), ("n", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} {value}: ask for {least} at least.")
        check_seed(self.seed)
        check_finite("C", self.C)
        for name, most in (("shuffles", 10_000), ("random", 10_000), ("n", MOST_PROMPTS)):
            check_count(name, getattr(self, name), most=most)
        if self.C <= 0:
            raise ValueError(f"--C {self.C}: the inverse strength of a penalty is positive.")
        self._check_causal()
        check_folder(self.out, self.kind)

    def _check_causal(self) -> None:
        """Check that the options of the causal half fit each other, and are given only with it."""
        if self.metric is not None and self.tokens is not None:
            raise ValueError("--metric and --tokens each say what is measured: leave out one.")
        if not self.causal:
            for name in ("causal_layer", "metric", "tokens"):
                if getattr(self, name) is not None:
                    said = name.replace("_", "-")
                    raise ValueError(f"--{said} is for --causal. Add it, or leave this out.")
        elif self.act != "resid":
            raise ValueError(f"--causal steers the residual stream: leave out --act {self.act}.")
        elif self.folds < 3:
            raise ValueError("--causal measures on two folds and needs others: --folds 3 or more.")
