"""Does the model refuse? Log-odds of first words of a refusal against first words of an answer.

>>> from mechinterp import load_model, run
>>> from mechinterp.tasks.refusals import refusal_log_odds
>>> model = load_model("toy:trigger")
>>> odds = refusal_log_odds(model, refusals=["REFUSE"], compliances=["COMPLY"])
>>> [round(float(odds(run(model, text)))) for text in ("bring the sesame", "bring the book")]
[8, -8]

As the metric of `attribute` it is read where the answer begins, once per prompt: the attribution
then says which words make the model refuse.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mechinterp.core.metrics import Metric
from mechinterp.core.sites import Pos
from mechinterp.models.model import Model
from mechinterp.models.tokenization import decoder, tokenizer_of

REFUSALS = ("I'm sorry", "I cannot", "Sorry", "Unfortunately", "As an AI", "No", "Apolog")
COMPLIANCES = ("Sure", "Here", "Of course", "Certainly", "To", "Yes", "Absolutely", "First", "The")


def refusal_log_odds(
    model: Model,
    refusals: Sequence[str] = REFUSALS,
    compliances: Sequence[str] = COMPLIANCES,
    *,
    at: Pos = "end",
) -> Metric:
    """Log-odds that the next token begins a refusal and not an answer, in nats, per prompt.

    Log-sum-exp of the logits of the first tokens of `refusals`, minus the same of `compliances`.
    Positive: the model refuses. Only first tokens count, so "I" is a refusal by default: choose
    openers that separate the two for your model. `attribute` reads this metric once, after the
    prompt, however many outputs are asked for: ask for one.

    Raises:
        ValueError: if one of the two is empty, or the same token begins both, naming it.
    """
    if model.tokenizer is None:
        raise ValueError("refusal_log_odds: this model has no tokenizer, so no openers.")
    first = [_first_tokens(model, texts) for texts in (refusals, compliances)]
    if not first[0] or not first[1]:
        raise ValueError("refusal_log_odds: give at least one opener of each kind.")
    for token in first[0] & first[1]:
        raise ValueError(
            f"refusal_log_odds: the token {decoder(model)(token)!r} opens a refusal and an answer. "
            f"Take it out of one of them."
        )
    n = len(first[0])
    ids = torch.tensor([sorted(first[0]) + sorted(first[1])])

    def read_at(pos: Pos) -> Metric:
        def score(logits: Tensor) -> Tensor:
            values = logits[:, 0].double()
            return values[:, :n].logsumexp(-1) - values[:, n:].logsumexp(-1)

        def together(answers: Tensor, at: tuple[Pos, ...], base: Tensor) -> Metric:
            return read_at(at[0])

        return Metric(
            "refusal_log_odds", "nats", (pos,), score, ids, together=together, of_answer=False
        )

    return read_at(at)


def _first_tokens(model: Model, texts: Sequence[str]) -> set[int]:
    tokenizer = tokenizer_of(model)
    found = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    return {int(ids[0]) for ids in found if ids}
