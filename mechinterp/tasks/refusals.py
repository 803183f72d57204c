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

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.sites import Pos
from mechinterp.models.model import Model, require_model
from mechinterp.models.tokenization import decoder, tokenizer_of

REFUSALS = ("I'm sorry", "I cannot", "Sorry", "Unfortunately", "As an AI", "No", "Apolog")
COMPLIANCES = ("Sure", "Here", "Of course", "Certainly", "To", "Yes", "Absolutely", "First", "The")


@checks_arguments
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
        ValueError: if one of the two is empty, an opener is no text or has no token, or the same
            token begins both, naming it.
    """
    require_model(model)
    if model.tokenizer is None:
        raise ValueError("refusal_log_odds: this model has no tokenizer, so no openers.")
    named = {"refusals": refusals, "compliances": compliances}
    first = [_first_tokens(model, texts, name) for name, texts in named.items()]
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


def _first_tokens(model: Model, texts: Sequence[str], name: str) -> set[int]:
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise ValueError(f"refusal_log_odds: {name}={texts!r}: give a list of openers.")
    tokenizer, found = tokenizer_of(model), set()
    for text in texts:
        is_text = isinstance(text, str) and bool(text.strip())
        ids = tokenizer(text, add_special_tokens=False)["input_ids"] if is_text else ()
        if not ids:
            raise ValueError(
                f"refusal_log_odds: {text!r} of {name} has no token to begin with. Leave it out."
            )
        found.add(int(ids[0]))
    return found
