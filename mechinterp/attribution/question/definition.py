"""What an attribution asks: `Question`, a prompt in units, its outputs, and what is measured there.

The continuation is fixed (the greedy one of the whole prompt, or yours), and every output token is
read at the position before it: one pass serves all outputs. Every method answers a question:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.question.definition import drops
>>> question = ask(load_model("toy:and"), "bring copper and the lantern", outputs=1)
>>> [unit.text for unit in question.units][1:]
['bring', 'copper', 'and', 'the', 'lantern']
>>> fallen = drops(question, [(2,), (5,), (2, 5), (1,)])
>>> fallen["drop"].round().astype(int).values.tolist()
[[8, 8, 8, 0]]
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from mechinterp.attribution.question.outputs import Last, check_room, trimmed, with_outputs
from mechinterp.attribution.question.removals import REMOVALS, Removal, RemoveOne, removal_of
from mechinterp.attribution.question.units import Spans, Unit, units_of
from mechinterp.core.metrics import Metric, log_prob, top_token
from mechinterp.core.prompts import Prompts
from mechinterp.core.signs import sign_of_support
from mechinterp.core.sites import HookError
from mechinterp.engine.arms import planned
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.sweeps.experiment import sweep_each
from mechinterp.sweeps.options import Progress


@dataclass(frozen=True, eq=False)
class Question:
    """A prompt in units and its outputs. Made by `ask`.

    `sequence`: the prompt and all outputs but the last. `kind`: what the units are, "token", "span"
    and so on. `rows`: for each output the position up to which it depends on the input. `metrics`:
    what is measured of each; `scores`: of the whole prompt. `reads`: the positions of all output
    tokens; `tops`: the model's top tokens there.
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
        """For each output the places, among the attributed units, of those it can depend on."""
        firsts = [self.units[number].positions[0] for number in self.attributed]
        return [[j for j, first in enumerate(firsts) if first <= row] for row in self.rows]

    @property
    def text(self) -> str:
        """What the units cover, as it stands."""
        n_shown = sum(len(unit.positions) for unit in self.units)
        return "".join(self.sequence.token_text[0][:n_shown])

    def positions(self, chosen: Collection[int]) -> tuple[int, ...]:
        """The positions of some units, in order.

        Raises:
            ValueError: if a unit is not there.
        """
        for number in chosen:
            if not 0 <= number < len(self.units):
                raise ValueError(f"unit {number}: there are units 0 to {len(self.units) - 1}.")
        return tuple(sorted(pos for number in set(chosen) for pos in self.units[number].positions))

    def on(self, model: Model) -> "Question":
        """The same question, outputs and all, to another model with the same tokens."""
        return _measured(replace(self, model=model))


def ask(
    model: Model,
    prompt: Text,
    outputs: int | str | Sequence[int] | Last = 5,
    metric: Metric | None = None,
    *,
    units: str | Spans = "token",
    inputs: str | Sequence[int] = "text",
) -> Question:
    """The question which inputs drive which outputs.

    `prompt`: text, a chat, token ids or `Prompts`, of one prompt. `outputs`: how many greedy
    tokens (fewer if the model ends before), a continuation of yours as text or token ids, or
    `last(n)`. `metric`: default `log_prob()`, of each output; one such as `sequence_log_prob()` is
    of all of them, and there is one output; where it is read is decided here, but an answer that it
    was made with stays. `units` and `inputs`: as in `units_of`.

    Raises:
        ValueError: if there is not one prompt, nothing to remove, or too many outputs.
    """
    prompts = tokenize(model, prompt)
    if len(prompts) != 1:
        raise ValueError(
            f"one prompt is attributed at a time, not {len(prompts)}. See attribute_each."
        )
    prompts = trimmed(prompts)
    metric = log_prob() if metric is None else metric
    if not isinstance(metric, Metric):
        raise ValueError(
            f"metric={metric!r} is no Metric: make one, such as log_prob() or logit_diff(a, b)."
        )
    if metric.bind is None and metric.together is None:
        raise ValueError(f"metric {metric.name} cannot ask for an output token: it has no bind.")
    check_room(model, prompts, outputs)
    if isinstance(inputs, str) and inputs != "sequence":
        units_of(model, prompts, units, inputs)  # what is wrong shows before a token is generated
    sequence, targets, reads, generated = with_outputs(model, prompts, outputs)
    found = units_of(model, sequence, units, inputs, shown=prompts.width)
    a_row = not isinstance(outputs, Last)  # those of `last` do not follow each other
    texts = sequence.texts(targets) if a_row else tuple(map(sequence.decode, targets))
    question = Question(
        model,
        sequence,
        found,
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
    return _measured(question)


class DropOptions(TypedDict, total=False):
    """Keyword options of `drops`, passed on by the methods that are sweeps over sets."""

    out: str | Path | None
    budget_bytes: int | None
    progress: Progress | None


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
    `error`, its standard error (NaN of one draw); `flip`, true where the model's top token is then
    another (for most draws; of several outputs together, any of those that are read). Of sets that
    come after an output, and of empty ones: exactly 0; so a removal of yours must not act on what
    comes before its position.

    Raises:
        ValueError: if a set leaves nothing from which an output could be read.
        HookError: as `sweep`.
    """
    how = removal_of(question.model, removal)
    positions = [question.positions(chosen) for chosen in sets]
    for chosen, at in zip(sets, positions, strict=True):
        if at and not can_remove(question, chosen, how):
            texts = [question.units[number].text for number in sorted(chosen)]
            raise ValueError(
                f"removing {texts} leaves nothing before position {min(question.reads)} from which "
                f"the output could be read. Keep a token before it."
            )
    at_all = [number for number, at in enumerate(positions) if at]
    n_outputs = len(question.metrics)
    together = question.metric.together is not None
    looked_at = _read_by(question) if together else list(range(len(question.reads)))
    drop = np.zeros((n_outputs, len(sets), how.n_draws))
    flip = np.zeros((n_outputs, len(sets), how.n_draws))
    attrs: Mapping[str, Any] = {}
    if at_all:
        swept = sweep_each(
            question.model,
            question.sequence,
            {"set": at_all, "draw": range(how.n_draws)},
            lambda set, draw: how.specs(positions[set], draw),
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
    if how.n_draws > 1:
        error = drop.std(2, ddof=1) / np.sqrt(how.n_draws)
    dims = ("output", "set")
    return xr.Dataset(
        {
            "drop": (dims, drop.mean(2) + 0.0),
            "error": (dims, error),
            "flip": (dims, flip.mean(2) > 0.5),
        },
        attrs={
            "removal": how.name,
            "n_draws": how.n_draws,
            **sign_of_drop(question.metric),
            **({"removal_note": how.note} if how.note else {}),
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


def can_remove(
    question: Question, chosen: Collection[int], removal: str | RemoveOne | Removal
) -> bool:
    """True unless removing these units leaves nothing from which an output could be read."""
    how = removal_of(question.model, removal)
    positions = question.positions(chosen)
    first = min(question.reads)
    if how.name in REMOVALS:
        return not how.deletes or len([pos for pos in positions if pos <= first]) <= first
    specs = how.specs(positions, 0)
    try:
        planned(question.model, question.sequence, specs).prompts.reading(question.reads)
    except (ValueError, HookError):
        return False
    return True


def changes_nothing(question: Question, chosen: Collection[int], removal: Removal) -> bool:
    """True if a removal puts the tokens that stand there in their place, and does no more."""
    specs = removal.specs(question.positions(chosen), 0)
    if any(spec.site.act != "tokens" for spec in specs):
        return False
    edited = planned(question.model, question.sequence, specs).prompts
    return torch.equal(edited.tokens, question.sequence.tokens)


def _read_by(question: Question) -> list[int]:
    """Which of the reads the metric of all of them looks at."""
    at = {int(question.sequence.given_positions(pos)[0]) for pos in question.metrics[0].at}
    return [number for number, pos in enumerate(question.reads) if pos in at]


def _measured(question: Question) -> Question:
    """The question with its metrics bound to the outputs, and what the whole prompt scores."""
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
