"""What is measured: a `Metric` gives one number per prompt, and says what it reads.

A sweep unembeds no more than the positions and token ids that its metrics read. With an answer
token a metric measures a run. Without one, as `log_prob()`, `attribute` binds it to each output:

    >>> from mechinterp.core.metrics import log_prob, logit_diff
    >>> logit_diff(7, 9).unit
    'logits'
    >>> log_prob().name, log_prob().at
    ('log_prob', ('end',))

`sequence_log_prob()` and `sequence_log_odds()` measure a whole answer at once:

>>> from mechinterp import attribute, load_model, sequence_log_odds, sequence_log_prob
>>> for metric in (sequence_log_prob(), sequence_log_odds()):
...     scores = attribute(load_model("toy:induction"), "a b c a", outputs=3, metric=metric)
...     print(scores.sizes["output"], scores.output_token.values[0], round(float(scores[0, 2]), 1))
1 bca 12.6
1 bca 18.2
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.core.cautions import caution
from mechinterp.core.indices import holds_indices, index, indices, is_index, positions
from mechinterp.core.modes import ordinary
from mechinterp.core.sites import Pos

Answers = int | Sequence[int] | Int[Tensor, " prompt"]
"""A token id for all prompts, or one for each."""


@runtime_checkable
class HasLogits(Protocol):
    """The part of a run that a metric reads."""

    def logits_of(self, at: tuple[Pos, ...]) -> Float[Tensor, "prompt pos vocab"]:
        """The logits at these positions."""


@dataclass(frozen=True, eq=False)
class Metric:
    """One number per prompt from the logits at some positions.

    `score` gets logits `[prompt, pos, vocab]` at the positions `at`; with `tokens` `[prompt, n]` it
    gets those columns alone, `[prompt, pos, n]`. `bind(answers, at, base)` makes the same metric
    for an answer token at a position; `base` are the logits `[prompt, vocab]` of the unchanged run.
    A metric that was made with an answer or a base keeps it. `together(answers, at, base)` makes
    one for a whole row of answers and their positions. `distance`: it measures how far a run is
    from the unchanged one, so that a removal raises it. `of_answer`: it measures the answer tokens
    that it is bound to.
    """

    name: str
    unit: str
    at: tuple[Pos, ...]
    score: Callable[[Float[Tensor, "prompt pos vocab"]], Float[Tensor, " prompt"]]
    tokens: Int[Tensor, "prompt n"] | None = None
    bind: Callable[[Tensor, Pos, Tensor], "Metric"] | None = None
    distance: bool = False
    together: Callable[[Tensor, tuple[Pos, ...], Tensor], "Metric"] | None = None
    of_answer: bool = True

    def __post_init__(self) -> None:
        at = positions(self.at, f"{self.name}: a position")
        object.__setattr__(self, "at", tuple(at))

    def __call__(self, run: HasLogits) -> Float[Tensor, " prompt"]:
        """The metric of a run.

        Raises:
            ValueError: if the run did not keep the logits that it reads.
        """
        logits = run.logits_of(self.at)
        if self.tokens is None:
            return self.score(logits)
        ids = columns(self.tokens, len(logits), logits.shape[-1], self.name).to(logits.device)
        return self.score(logits.gather(2, ids[:, None].expand(-1, logits.shape[1], -1)))


def columns(
    tokens: Int[Tensor, "prompt n"], n_prompts: int, n_vocab: int, name: str
) -> Int[Tensor, "rows n"]:
    """The token ids that a metric reads for each prompt.

    Raises:
        ValueError: if there are neither one nor one for each prompt, or an id is out of range.
    """
    if len(tokens) not in (1, n_prompts):
        raise ValueError(
            f"{name}: {len(tokens)} answers for {n_prompts} prompts. Give one for each, or one for "
            f"all."
        )
    wrong = tokens[(tokens < 0) | (tokens >= n_vocab)]
    if len(wrong):
        raise ValueError(
            f"{name}: token id {int(wrong[0])} is outside the vocabulary of {n_vocab}. Find "
            f"ids with token_id(model, text)."
        )
    return tokens.expand(n_prompts, -1)


def log_prob(answers: Answers | None = None, *, at: Pos = "end") -> Metric:
    """Log-probability of the answer, in nats, per prompt."""
    return _of_answer("log_prob", "nats", _log_prob, answers, at)


def prob(answers: Answers | None = None, *, at: Pos = "end") -> Metric:
    """Probability of the answer, 0 to 1, per prompt. It saturates: prefer `log_prob`."""
    return _of_answer("prob", "probability", lambda x, ids: _log_prob(x, ids).exp(), answers, at)


def centred_logit(answers: Answers | None = None, *, at: Pos = "end") -> Metric:
    """Logit of the answer minus the mean logit over the vocabulary, in logits, per prompt."""
    return _of_answer(
        "centred_logit", "logits", lambda x, ids: _pick(x, ids) - x.mean(-1), answers, at
    )


def logit(answers: Answers | None = None, *, at: Pos = "end") -> Metric:
    """Raw logit of the answer, in logits, per prompt.

    Warns: a raw logit contains a constant per position on which no output depends, so its drops
    cannot be compared between models, or between ways of folding one.
    """
    caution(
        "a raw logit contains a constant per position that changes no output; "
        "centred_logit and log_prob do not.",
    )
    return _of_tokens("logit", lambda x: x[..., 0], answers, None, at)


def logit_diff(
    answers: Answers | None = None, others: Answers | None = None, *, at: Pos = "end"
) -> Metric:
    """Logit of the right answer minus logit of the wrong one, in logits, per prompt.

    Positive means that the model prefers the right answer.

    Raises:
        ValueError: if no wrong answer is given.

    Source: Wang et al. 2022 (IOI), section 2.1, arXiv 2211.00593.
    """
    if others is None:
        raise ValueError("logit_diff needs the wrong answer too: logit_diff(answers, others).")
    return _of_tokens("logit_diff", lambda x: x[..., 0] - x[..., 1], answers, others, at)


def kl(base: Float[Tensor, "prompt vocab"] | None = None, *, at: Pos = "end") -> Metric:
    """KL divergence of the run from a base run, KL(base || run), in nats, per prompt.

    `base`: the logits of the base run at the same position. Never negative.
    """
    if base is not None and not (isinstance(base, Tensor) and base.ndim == 2):
        got = list(base.shape) if isinstance(base, Tensor) else type(base).__name__
        raise ValueError(
            f"kl: the base is {got}. Give logits [prompt, vocab]: run(...).logits[:, 0]."
        )
    reference = None if base is None else ordinary(base.double().log_softmax(-1))

    def divergence(logits: Tensor) -> Tensor:
        if reference is None:
            raise ValueError("kl() has no base. Give the base run's logits: kl(base).")
        if reference.shape != logits[:, 0].shape:
            raise ValueError(
                f"kl: the base has shape {list(reference.shape)}, the run's logits "
                f"{list(logits[:, 0].shape)} (prompt, vocab). Give the base of the same prompts."
            )
        new = logits[:, 0].double().log_softmax(-1)
        return (reference.exp() * (reference - new)).sum(-1)

    def bind(answers: Tensor, at: Pos, whole: Tensor) -> Metric:
        return kl(whole if base is None else base, at=at)

    return Metric("kl", "nats", (at,), divergence, bind=bind, distance=True)


def sequence_log_prob(
    answers: Int[Tensor, " pos"] | None = None, *, at: tuple[Pos, ...] = ("end",)
) -> Metric:
    """Log-probability of a whole row of answer tokens, in nats: the sum over their positions.

    `answers`: one token for each position of `at`, the same for all prompts.
    """
    return _of_sequence("sequence_log_prob", "nats", lambda total: total, answers, at)


def sequence_log_odds(
    answers: Int[Tensor, " pos"] | None = None, *, at: tuple[Pos, ...] = ("end",)
) -> Metric:
    """Log-odds log(p / (1 - p)) of a whole row of answer tokens, in nats, p their probability.

    It does not saturate as p does, and adds up where evidence is independent.

    Source: ContextCite, Cohen-Wang et al. 2024, section 3, arXiv 2409.00729.
    """

    def log_odds(total: Tensor) -> Tensor:
        return total - torch.log(-torch.expm1(total.clamp(max=-1e-12)))

    return _of_sequence("sequence_log_odds", "nats", log_odds, answers, at)


def top_token(*, at: Pos = "end") -> Metric:
    """The id of the token with the highest logit, per prompt."""

    def bind(answers: Tensor, at: Pos, base: Tensor) -> Metric:
        return top_token(at=at)

    def score(logits: Tensor) -> Tensor:
        return logits[:, 0].argmax(-1).double()  # half precision has not every whole number

    return Metric("top_token", "token id", (at,), score, bind=bind)


def _of_sequence(
    name: str,
    unit: str,
    of_total: Callable[[Tensor], Tensor],
    answers: Tensor | None,
    at: tuple[Pos, ...],
) -> Metric:
    """A metric of the log-probability of all answers, summed."""
    answers = None if answers is None else _ids(answers)

    def score(logits: Tensor) -> Tensor:
        if answers is None or len(answers) != logits.shape[1]:
            n = 0 if answers is None else len(answers)
            raise ValueError(f"{name}: {n} answers at {logits.shape[1]} positions. Give one each.")
        logs = logits.double().log_softmax(-1)
        ids = ordinary(answers).to(logits.device).expand(len(logits), -1)[..., None]
        return of_total(logs.gather(-1, ids)[..., 0].sum(1))

    def together(new: Tensor, at: tuple[Pos, ...], base: Tensor) -> Metric:
        return _of_sequence(name, unit, of_total, new if answers is None else answers, at)

    return Metric(name, unit, at, score, together=together)


def _ids(answers: Answers) -> Int[Tensor, " prompt"]:
    """Token ids, checked to be whole numbers."""
    if isinstance(answers, str):
        raise ValueError(f"{answers!r} is text. Give its token id, token_id(model, {answers!r}).")
    if isinstance(answers, Tensor) and holds_indices(answers):
        ids = answers.reshape(-1)
    elif is_index(answers):
        ids = torch.tensor([index(answers, "token id", least=None)])
    else:
        ids = torch.tensor(indices(answers, "token ids", least=None), dtype=torch.long)
    if len(ids) == 0:
        raise ValueError("no token id was given. Give one, or one for each prompt.")
    return ordinary(ids)


def _pick(logits: Tensor, ids: Tensor) -> Tensor:
    return logits.gather(-1, ids.to(logits.device).expand(len(logits))[:, None])[:, 0]


def _log_prob(logits: Tensor, ids: Tensor) -> Tensor:
    return _pick(logits, ids) - logits.logsumexp(-1)


def _of_answer(
    name: str,
    unit: str,
    fn: Callable[[Tensor, Tensor], Tensor],
    answers: Answers | None,
    at: Pos,
) -> Metric:
    """A metric of the answer that depends on all logits."""
    ids = None if answers is None else _ids(answers)

    def score(logits: Tensor) -> Tensor:
        if ids is None:
            raise ValueError(f"{name}() has no answer token. Give one: {name}(token_id).")
        columns(ids[:, None], len(logits), logits.shape[-1], name)
        # In double: a sum over a vocabulary in float32 is off by 1e-5 of itself.
        return fn(logits[:, 0].double(), ids)

    def bind(answers: Tensor, at: Pos, base: Tensor) -> Metric:
        return _of_answer(name, unit, fn, ids if ids is not None else answers, at)

    return Metric(name, unit, (at,), score, bind=bind)


def _of_tokens(
    name: str,
    fn: Callable[[Tensor], Tensor],
    answers: Answers | None,
    others: Answers | None,
    at: Pos,
) -> Metric:
    """A metric of a few logits, so that no others need to be computed."""

    def bind(new: Tensor, at: Pos, base: Tensor) -> Metric:
        return _of_tokens(name, fn, answers if answers is not None else new, others, at)

    def score(logits: Tensor) -> Tensor:
        if answers is None:
            raise ValueError(f"{name}() has no answer token. Give one: {name}(token_id).")
        return fn(logits[:, 0])

    given = [_ids(a) for a in (answers, others) if a is not None]
    n_prompts = max(map(len, given), default=1)
    if {len(ids) for ids in given} - {1, n_prompts}:
        raise ValueError(
            f"{name}: {len(given[0])} answers and {len(given[1])} others. Give as many, or one."
        )
    tokens = (
        ordinary(torch.stack([ids.expand(n_prompts) for ids in given], 1))
        if answers is not None
        else None
    )
    return Metric(name, "logits", (at,), score, tokens, bind)
