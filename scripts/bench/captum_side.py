"""captum's side of the attribution benchmark: its settings, each measured and compared.

`LLMAttribution` is captum's tool for this; its scores have our sign: log-probability with the token
minus without. `forward_in_tokens=False` makes one pass a variant, with the outputs behind the
prompt; by default it makes one for each output token and keeps a key-value cache. On the versions
pinned here that default is wrong: transformers no longer cuts the sequence to its last token, so
all of it is fed again behind the cache. Beside it stands `FeatureAblation` itself, over a forward
of one's own, which takes a batch; captum's tool cannot.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch

WANTED = "0.9.0"


@dataclass(frozen=True, eq=False)
class Question:
    """Which tokens of the prompt drive the fixed outputs: put another in the place of each."""

    hf: Any
    tokenizer: Any
    ids: list[int]
    targets: list[int]
    unknown: int

    @property
    def text(self) -> str:
        """The prompt in words, which both tools read by the tokenizer."""
        text = self.tokenizer.decode(self.ids)
        assert self.tokenizer(text)["input_ids"] == self.ids
        return text

    def one_pass_a_variant(self) -> np.ndarray:
        """Brute force: the whole model on each variant with the outputs behind it."""
        ids = torch.tensor([self.ids])
        with torch.no_grad():
            whole = self.log_probs(ids)[0]
            rows = []
            for j in range(len(self.ids)):
                variant = ids.clone()
                variant[0, j] = self.unknown
                rows.append(whole - self.log_probs(variant)[0])
        return torch.stack(rows, 1).numpy()

    def log_probs(self, ids: torch.Tensor) -> torch.Tensor:
        """Of the outputs, `[row, output]`, unembedded only where they are read."""
        answers = torch.tensor(self.targets).expand(len(ids), -1)
        fed = torch.cat([ids, answers[:, :-1]], 1)
        n_read = len(self.targets)
        logits = self.hf(fed, use_cache=False, logits_to_keep=n_read).logits
        return logits.log_softmax(-1).gather(2, answers[..., None])[..., 0]


@dataclass(frozen=True, eq=False)
class Setting:
    """One way to ask captum. `run`: the scores `[output, input]`; `together`: of all outputs.

    `kind`: "llm", captum's own tool for this, or "own", a forward of one's own.
    """

    name: str
    kind: str
    run: Callable[[], np.ndarray]
    together: Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False)
class Tried:
    """What a setting gave, beside brute force."""

    setting: Setting
    scores: np.ndarray | None = None
    seconds: float = 0.0
    apart: float = math.nan
    refusal: str = ""


def imported() -> Any:
    """captum's module of methods.

    Raises:
        SystemExit: if it is not installed.
    """
    try:
        from captum import attr
    except ImportError as error:
        raise SystemExit(
            f"this benchmark compares with captum, which is not installed: "
            f"pip install captum=={WANTED}"
        ) from error
    return attr


def settings(question: Question) -> list[Setting]:
    """The settings that are tried, the faster ones first."""
    attr = imported()

    def llm(name: str, **options: Any) -> Setting:
        def result() -> Any:
            method = attr.LLMAttribution(attr.FeatureAblation(question.hf), question.tokenizer)
            inputs = attr.TextTokenInput(
                question.text, question.tokenizer, baselines=question.unknown
            )
            with torch.no_grad():
                return method.attribute(inputs, target=torch.tensor(question.targets), **options)

        return Setting(
            name,
            "llm",
            lambda: result().token_attr.numpy(),
            lambda: result().seq_attr.numpy(),
        )

    def own(n_variants: int) -> Setting:
        inputs = attr.TextTokenInput(question.text, question.tokenizer, baselines=question.unknown)

        def forward(present: torch.Tensor) -> torch.Tensor:
            return question.log_probs(inputs.to_model_input(present))

        def run() -> np.ndarray:
            method = attr.FeatureAblation(forward)
            found = method.attribute(inputs.to_tensor(), perturbations_per_eval=n_variants)
            return found.reshape(len(question.targets), -1).numpy()

        name = f"FeatureAblation, own forward, perturbations_per_eval={n_variants}"
        return Setting(name, "own", run, lambda: run().sum(0))

    batches = sorted({1, 4, 13, len(question.ids)})
    return [
        llm("LLMAttribution, forward_in_tokens=False", forward_in_tokens=False),
        *(
            llm(
                f"LLMAttribution, forward_in_tokens=False, perturbations_per_eval={n}",
                forward_in_tokens=False,
                perturbations_per_eval=n,
            )
            for n in (2, 4, 13)
        ),
        llm("LLMAttribution, use_cached_outputs=False", use_cached_outputs=False),
        llm("LLMAttribution, its defaults"),
        *(own(n) for n in batches if n <= len(question.ids)),
    ]


def tried(
    question: Question,
    expected: np.ndarray,
    timed: Callable[[Callable[[], np.ndarray]], tuple[np.ndarray, float]],
) -> list[Tried]:
    """Every setting once."""
    made = []
    for setting in settings(question):
        try:
            scores, seconds = timed(setting.run)
        except (RuntimeError, IndexError, TypeError) as error:
            made.append(Tried(setting, refusal=f"{type(error).__name__}: {error}"))
        else:
            apart = float(np.abs(scores - expected).max())
            made.append(Tried(setting, scores, seconds, apart))
    return made


def fastest_exact(made: Sequence[Tried], kind: str, tolerance: float) -> Setting:
    """The fastest of a kind that agrees with brute force.

    Raises:
        SystemExit: if none does.
    """
    right = [t for t in made if t.setting.kind == kind and t.apart <= tolerance]
    if not right:
        raise SystemExit(f"captum: no setting of kind {kind!r} agrees with brute force.")
    return min(right, key=lambda t: t.seconds).setting


def table(
    made: Sequence[Tried], again: Mapping[Setting, tuple[float, int]], our_seconds: float
) -> str:
    """A row for each setting. `again`: seconds and number of runs of those that ran by turns."""
    lines = [
        "| same token in the place of each | CPU s | runs | of ours | largest difference, nats |",
        "|---|---|---|---|---|",
    ]
    for t in made:
        if t.refusal:
            lines.append(f"| {t.setting.name} | fails | | | |")
            continue
        seconds, n_runs = again.get(t.setting, (t.seconds, 1))
        lines.append(
            f"| {t.setting.name} | {seconds:.2f} | {n_runs} | {seconds / our_seconds:.2f} | "
            f"{t.apart:.1e} |"
        )
    return "\n".join(lines)


def remarks(made: Sequence[Tried], expected: np.ndarray, tolerance: float) -> str:
    """Which settings give wrong numbers, by how much and for which outputs; which fail, and how."""
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("captum", "transformers", "torch"))
    lines = [f"Versions: {versions}."]
    for t in made:
        if t.scores is not None and not t.apart <= tolerance:
            of_output = np.abs(t.scores - expected).max(1)
            clear = np.abs(expected) > 1e-3
            flipped = (np.sign(t.scores) != np.sign(expected))[clear].mean()
            lines.append(
                f"WRONG: {t.setting.name}: up to {t.apart:.2f} nats off, the largest score being "
                f"{np.abs(expected).max():.2f}; by output "
                f"{', '.join(f'{x:.1e}' for x in of_output)}; {flipped:.0%} of the signs."
            )
    failed = {t.refusal.split(". ")[0]: t.setting.name for t in made if t.refusal}
    lines += [f"Fails: {name}: {refusal}" for refusal, name in failed.items()]
    return "\n".join(lines)
