"""The options of `mechinterp refusal`, checked before anything loads.

>>> from mechinterp.commands.options.refusal import RefusalOptions
>>> RefusalOptions(refusals="I'm sorry,I cannot", compliances="Sure").openers
(("I'm sorry", 'I cannot'), ('Sure',))
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from mechinterp.commands.options.ranges import check_count, check_seed
from mechinterp.storage.output_folder import check_folder

FEWEST_FAMILIES = 4
"""Fewer decide nothing: a verdict comes from resampling families."""


@dataclass(frozen=True)
class RefusalOptions:
    """What `mechinterp refusal` takes.

    Args:
        prompt: explain this prompt alone: why is it refused, or answered? "-" reads it from
            standard input. Without it, what the model refuses by.
        model: smollm2, toy:NAME, smollm2:refuses-..., a local Hugging Face directory, or a hub name
            such as Qwen/Qwen2.5-0.5B-Instruct.
        requests: requests in families, one JSON object a line, with "prompt" (text or messages),
            "harmful" and "family", and optionally "topic", "telling" and "kind". Those built in
            unless given. With a prompt, its words are put into the benign ones.
        families: how many families are used, drawn from the requests; all of them unless given.
        quick: a first look, in a minute on a small model: fewer families (unless given), cues and
            words, and nothing inside. The report says what was not tried.
        find: try the whole vocabulary as triggers too, in one place: minutes on a small model.
        stages: look inside: where harm is detected, routed and where the refusal is expressed.
        refusals: how refusals begin, with commas between: "I'm sorry,I cannot". The usual openers
            unless given.
        compliances: how answers begin: "Sure,Here".
        study: with a prompt, a study.json of this model, whose verdict is shown beside it.
        seed: of families that are drawn and set aside, and of all that is resampled.
        out: a folder for report.html, study.json, tables, manifest.json and the finished parts of
            the run: if it was stopped, the same command continues.
    """

    prompt: tyro.conf.Positional[str | None] = None
    model: str = "smollm2"
    requests: Path | None = None
    families: int | None = None
    quick: bool = False
    find: bool = False
    stages: bool = True
    refusals: str | None = None
    compliances: str | None = None
    study: Path | None = None
    seed: int = 0
    out: Path | None = None

    @property
    def kind(self) -> str:
        """What a folder of such a run says that it holds."""
        return "refusals" if self.prompt is None else "refusal of a prompt"

    @property
    def openers(self) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        """The texts of `--refusals` and `--compliances`; None: the usual ones."""
        return _listed(self.refusals), _listed(self.compliances)

    def __post_init__(self) -> None:
        """Check what does not depend on the model."""
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError(f"the prompt is empty: {self.prompt!r}.")
        for name in ("requests", "study"):
            if (file := getattr(self, name)) is not None and not file.is_file():
                raise ValueError(f"--{name} {file} is no file.")
        for name in ("refusals", "compliances"):
            if (text := getattr(self, name)) is not None and not _listed(text):
                raise ValueError(f"--{name} is empty: {text!r}. Write texts with commas between.")
        if self.families is not None and self.families < FEWEST_FAMILIES:
            raise ValueError(
                f"--families {self.families}: a verdict comes from resampling families; give at "
                f"least {FEWEST_FAMILIES}."
            )
        check_count("families", self.families)
        check_seed(self.seed)
        self._check_together()
        check_folder(self.out, self.kind)

    def _check_together(self) -> None:
        """Check that no option for the model is given where one prompt is asked about."""
        if self.prompt is None:
            if self.study is not None:
                raise ValueError("--study goes with a prompt. Leave it out, or give the prompt.")
            return
        for name in ("families", "quick", "find"):
            if getattr(self, name):
                raise ValueError(
                    f"--{name} is for a study of the model, not for one prompt. Leave one of them "
                    f"out."
                )


def _listed(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    return tuple(part.strip() for part in text.split(",") if part.strip())
