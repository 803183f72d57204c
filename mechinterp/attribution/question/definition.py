"""What an attribution asks: `Question`, a prompt split into units, its outputs and their metrics.

The continuation is fixed (the greedy one of the whole prompt, or yours), and every output token is
read at the position before it, so one pass serves all outputs. Every method answers a question:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.question.definition import drops
>>> question = ask(load_model("toy:and"), "bring copper and the lantern", outputs=1)
>>> [unit.text for unit in question.units][1:]
['bring', 'copper', 'and', 'the', 'lantern']
>>> measured = drops(question, [(2,), (5,), (2, 5), (1,)])
>>> measured["drop"].round().astype(int).values.tolist()
[[8, 8, 8, 0]]
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from mechinterp.attribution.question.outputs import Last, append_outputs, check_room, trim_padding
from mechinterp.attribution.question.removals import REMOVALS, Removal, RemoveOne, removal_of
from mechinterp.attribution.question.units import Spans, Unit, units_of
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.interrupts import holds_signals
from mechinterp.core.metrics import Metric, log_prob, top_token
from mechinterp.core.prompts import Prompts
from mechinterp.core.signs import sign_of_support
from mechinterp.core.sites import HookError
from mechinterp.engine.arms import prepare_arm
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.sweeps.experiment import sweep_each
from mechinterp.sweeps.options import PassOptions, Progress


@dataclass(frozen=True, eq=False)
class Question:
    """A prompt in units and its outputs. Made by `ask`.

    `sequence`: the prompt and all outputs but the last. `kind`: what the units are, such as "token"
    or "span". `rows`: for each output the last position that it depends on. `metrics`: one for each
    output; `scores`: their values on the whole prompt. `reads`: the positions at which the output
    tokens are read; `tops`: the model's top tokens there. `n_passes`: the passes made so far.
    """

    model: Model
    sequence: Prompts
    units: tuple[Unit, ...]
    kind: str
    metric: Metric
    metrics: tuple[Metric, ...]
    rows: tuple[int, ...]
    output_texts: tuple[str, ...]
    output_ids: tuple[int, ...]
    scores: Float[np.ndarray, " output"]
    reads: tuple[int, ...]
    read_ids: tuple[int, ...]
    tops: Int[np.ndarray, " read"]
    n_passes: int

    @property
    def attributed(self) -> list[int]:
        """The numbers of the units that are attributed."""
        return [number for number, unit in enumerate(self.units) if unit.attributed]

    @property
    def pasts(self) -> list[list[int]]:
        """For each output, which of the attributed units it can depend on, by place among them."""
        firsts = [self.units[number].positions[0] for number in self.attributed]
        return [[j for j, first in enumerate(firsts) if first <= row] for row in self.rows]

    @property
    def text(self) -> str:
        """The text that the units cover."""
        n_shown = sum(len(unit.positions) for unit in self.units)
        return "".join(self.sequence.token_text[0][:n_shown])

    def positions(self, chosen: Collection[int]) -> tuple[int, ...]:
        """The positions of some units, in order.

        Raises:
            ValueError: if there is no unit of a number.
        """
        for number in chosen:
            if not 0 <= number < len(self.units):
                raise ValueError(f"unit {number}: the units are 0 to {len(self.units) - 1}.")
        return tuple(sorted(pos for number in set(chosen) for pos in self.units[number].positions))

    def on(self, model: Model) -> "Question":
        """The same question, with the same outputs, to another model with the same tokens."""
        return _bind_metrics(replace(self, model=model))


@checks_arguments
def ask(
    model: Model,
    prompt: Text,
    outputs: int | str | Sequence[int] | Last = 5,
    metric: Metric | None = None,
    *,
    units: str | Spans = "token",
    inputs: str | Sequence[int] = "text",
) -> Question:
    """The question of which inputs drive which outputs.

    `prompt`: text, a chat, token ids or `Prompts`; one prompt. `outputs`: how many greedy tokens
    (fewer if the model ends its answer), a continuation of yours as text or token ids, or
    `last(n)`. `metric`: default `log_prob()` of each output; one such as `sequence_log_prob()`
    scores all of them as one output. This function decides where the metric is read, and for which
    token, unless the metric was made with an answer. `units` and `inputs`: as in `units_of`.

    Warns: if a continuation as text would be other tokens written as one with the prompt.

    Raises:
        ValueError: if there is more than one prompt, nothing to remove, or too many outputs.
    """
    prompts = tokenize(model, prompt)
    if len(prompts) != 1:
        raise ValueError(
            f"ask takes one prompt, not {len(prompts)}. For several use attribute_each."
        )
    prompts = trim_padding(prompts)
    metric = log_prob() if metric is None else metric
    if not isinstance(metric, Metric):
        raise ValueError(
            f"metric={metric!r} is not a Metric: make one, such as log_prob() or logit_diff(a, b)."
        )
    if metric.bind is None and metric.together is None:
        raise ValueError(
            f"metric {metric.name} cannot be bound to an output token: it has no bind. Use one "
            f"made without an answer, such as log_prob()."
        )
    check_room(model, prompts, outputs)
    if isinstance(inputs, str) and inputs != "sequence":
        units_of(model, prompts, units, inputs)  # fail before a token is generated
    sequence, targets, reads, generated = append_outputs(model, prompts, outputs)
    chosen = units_of(model, sequence, units, inputs, shown=prompts.width)
    in_a_row = not isinstance(outputs, Last)  # those of `last` do not follow each other
    texts = sequence.texts(targets) if in_a_row else tuple(map(sequence.decode, targets))
    question = Question(
        model,
        sequence,
        chosen,
        units if isinstance(units, str) else "span",
        metric,
        metrics=(),
        rows=tuple(reads),
        output_texts=texts,
        output_ids=tuple(targets),
        scores=np.zeros(0),
        reads=tuple(reads),
        read_ids=tuple(targets),
        tops=np.zeros(0, dtype=int),
        n_passes=1 + generated,
    )
    return _bind_metrics(question)


class DropOptions(PassOptions, total=False):
    """Keyword options of `drops`, which methods that sweep over sets pass on."""

    out: str | Path | None


@checks_arguments
def drops(
    question: Question,
    sets: Sequence[Collection[int]],
    removal: str | RemoveOne | Removal = "delete",
    *,
    out: str | Path | None = None,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """How far each output's score falls when the units of a set are removed together.

    Variables: `drop` (output, set), in the metric's unit, the mean over the removal's draws;
    `error`, its standard error (NaN for one draw); `flip`, true where most draws change the model's
    top token (at any position that the metric of a whole sequence reads). Exactly 0 for empty sets
    and for sets after an output, so a removal of yours must not act before its position.

    Raises:
        ValueError: if a set leaves no position from which an output could be read.
        HookError: as `sweep`.
    """
    removal = removal_of(question.model, removal)
    positions = [question.positions(chosen) for chosen in sets]
    for chosen, at in zip(sets, positions, strict=True):
        if at and not can_remove(question, chosen, removal):
            texts = [question.units[number].text for number in sorted(chosen)]
            raise ValueError(
                f"removing {texts} leaves no position up to {min(question.reads)} from which the "
                f"output could be read. Keep a token before it."
            )
    at_all = [number for number, at in enumerate(positions) if at]
    n_outputs = len(question.metrics)
    together = question.metric.together is not None
    looked_at = _read_by(question) if together else list(range(len(question.reads)))
    drop = np.zeros((n_outputs, len(sets), removal.n_draws))
    flip = np.zeros((n_outputs, len(sets), removal.n_draws))
    attrs: Mapping[str, object] = {}
    remove = removal.specs
    if at_all:
        swept = sweep_each(
            question.model,
            question.sequence,
            {"set": at_all, "draw": range(removal.n_draws)},
            lambda set, draw: remove(positions[set], draw),
            [*question.metrics, *(top_token(at=question.reads[i]) for i in looked_at)],
            out=out,
            budget_bytes=budget_bytes,
            progress=progress,
        )
        values, attrs = swept.values[..., 0], swept.attrs
        change = values[:n_outputs] - question.scores[:, None, None]
        drop[:, at_all] = change if question.metric.distance else -change
        other = values[n_outputs:] != question.tops[looked_at][:, None, None]
        flip[:, at_all] = other.any(0) if together else other
    first = np.array([min(at, default=question.sequence.width) for at in positions])
    future = first > np.array(question.rows)[:, None]
    drop[future], flip[future] = 0.0, 0.0
    error = np.full(drop.shape[:2], np.nan)
    if removal.n_draws > 1:
        error = drop.std(2, ddof=1) / np.sqrt(removal.n_draws)
    dims = ("output", "set")
    return xr.Dataset(
        {
            "drop": (dims, drop.mean(2) + 0.0),
            "error": (dims, error),
            "flip": (dims, flip.mean(2) > 0.5),
        },
        attrs={
            "removal": removal.name,
            "n_draws": removal.n_draws,
            **sign_of_drop(question.metric),
            **({"removal_note": removal.note} if removal.note else {}),
            **attrs,
        },
    )


def sign_of_drop(metric: Metric) -> dict[str, str]:
    """The `sign` and `supports` of a drop of the output's score."""
    if metric.distance:
        # Attribution pages look for "no direction".
        reason = "removing the input moves the whole prediction, in no direction"
    else:
        reason = "removing the input lowers the score of the output"
    return sign_of_support(reason, part="input")


@holds_signals
def can_remove(
    question: Question, chosen: Collection[int], removal: str | RemoveOne | Removal
) -> bool:
    """Whether removing these units leaves a position from which every output can be read."""
    removal = removal_of(question.model, removal)
    positions = question.positions(chosen)
    first = min(question.reads)
    if removal.name in REMOVALS:
        return not removal.deletes or len([pos for pos in positions if pos <= first]) <= first
    specs = removal.specs(positions, 0)
    try:
        prepare_arm(question.model, question.sequence, specs).prompts.reading(question.reads)
    except (ValueError, HookError):
        return False
    return True


def changes_nothing(question: Question, chosen: Collection[int], removal: Removal) -> bool:
    """Whether a removal replaces the tokens by the same tokens, and does nothing else."""
    specs = removal.specs(question.positions(chosen), 0)
    if any(spec.site.act != "tokens" for spec in specs):
        return False
    edited = prepare_arm(question.model, question.sequence, specs).prompts
    return torch.equal(edited.tokens, question.sequence.tokens)


def _read_by(question: Question) -> list[int]:
    """The numbers of the reads that the metric of the whole sequence looks at."""
    at = {int(question.sequence.given_positions(pos)[0]) for pos in question.metrics[0].at}
    return [number for number, pos in enumerate(question.reads) if pos in at]


def _bind_metrics(question: Question) -> Question:
    """The question with its metrics bound to the outputs, and the scores of the whole prompt."""
    model, reads = question.model, list(question.reads)
    base = run(model, question.sequence, logits_at=reads)
    targets = torch.tensor(question.read_ids, device=question.sequence.tokens.device)
    metric = question.metric
    metrics: list[Metric] = []
    if metric.together is not None:
        whole = metric.together(targets, tuple(reads), base.logits)
        metrics = [whole]
        at = [int(question.sequence.given_positions(pos)[0]) for pos in whole.at]
        of_all = metric.of_answer and sorted(at) == sorted(reads)
        name = "".join(question.output_texts) if of_all else metric.name
        question = replace(question, rows=(max(at),), output_texts=(name,), output_ids=(-1,))
    elif metric.bind is not None:
        for i, row in enumerate(reads):
            metrics.append(metric.bind(targets[i : i + 1], row, base.logits[:, i]))
    return replace(
        question,
        metrics=tuple(metrics),
        scores=np.array([float(m(base)) for m in metrics]),
        tops=base.logits[0].argmax(-1).cpu().numpy(),
    )
