"""Induction: on repeated random tokens, what followed a token once follows it again.

    <bos> k r w q k r w -> q

It needs no words, so it works for any vocabulary, and for a model without a tokenizer.

>>> from mechinterp import load_model
>>> from mechinterp.engine.runner import run
>>> from mechinterp.tasks.induction import repeated_tokens
>>> model = load_model("toy:induction-trained")
>>> task = repeated_tokens(model, n=8)
>>> task.pair.clean.tokens[0, task.pair.clean.positions("induction")[0]] == task.answers[0]
tensor(True)
>>> bool(task.metric(run(model, task.pair.clean)).mean() > -0.1)
True
>>> bool(task.metric(run(model, task.pair.corrupt)).mean() < -3)
True
"""

import math
import random

import torch

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import log_prob
from mechinterp.core.prompts import Prompts
from mechinterp.models.model import Model
from mechinterp.models.tokenization import check_length, decoder, ordinary_tokens, start_token
from mechinterp.tasks.definition import MEASURED_HERE, Finding, Task, heads
from mechinterp.tasks.words import draw_distinct, named_pair

SOURCE = "Olsson et al. 2022, arXiv 2209.11895"

FINDINGS = (
    Finding(
        "on repeated random tokens give most of their attention to the token after the earlier "
        "occurrence: 5.5 .93, 6.9 .91, 7.10 .91, 5.1 .91, 7.2 .83",
        f"github.com/designer-coderajay/induction-head-detector, the score of {SOURCE}",
        "gpt2",
        heads((5, 1), (5, 5), (6, 9), (7, 2), (7, 10)),
        "induction",
    ),
    Finding(
        "give this share of their attention to the token after the earlier occurrence: 18.6 .87, "
        "17.3 .74, 17.4 .74, 17.5 .63; mean-ablating the four raises the loss on the second half "
        "from 2.90 to 7.38 nats, twelve random heads to 3.38",
        MEASURED_HERE,
        "smollm2",
        heads((18, 6), (17, 3), (17, 4), (17, 5)),
        "induction",
    ),
    Finding(
        "give this share of their attention to the token before: 16.0 .90, 11.1 .83, 19.3 .70",
        MEASURED_HERE,
        "smollm2",
        heads((16, 0), (11, 1), (19, 3)),
        "previous token",
    ),
    Finding(
        "give this share of their attention to the earlier occurrence: 14.3 .74, 8.0 .57",
        MEASURED_HERE,
        "smollm2",
        heads((14, 3), (8, 0)),
        "duplicate token",
    ),
    Finding(
        "tells the keys of the induction heads what stood before: this path alone carries 0.87 "
        "(layer 17) and 2.14 nats (layer 18); 11.1 tells them nothing",
        MEASURED_HERE,
        "smollm2",
        heads((16, 0)),
        "previous token, into the keys",
    ),
    Finding(
        "write the answer to the logits directly, by 0.86, 0.39, 0.37, 0.28 and 0.16 nats; the "
        "induction heads of layers 17 and 18 hardly do",
        MEASURED_HERE,
        "smollm2",
        heads((29, 1), (23, 7), (23, 2), (23, 1), (23, 0)),
        "direct writer",
    ),
)


@checks_arguments
def repeated_tokens(model: Model, n: int = 16, seed: int = 0, *, length: int = 10) -> Task:
    """A block of random tokens, twice. Metric: log-probability of the next token, in nats.

    The block has `length` different tokens, none of them special, after the start token if there is
    one. The second time its last token is missing: it is the answer. Positions: first, the earlier
    occurrence of the prompt's last token; induction, the position after it, where the answer
    stands; end. Corrupt: other tokens in the first half, which do not come again. `others`: the
    token at "induction" in the corrupt prompt.

    Raises:
        ValueError: if `n` or `length` is out of range for the vocabulary or the context.

    Source: Olsson et al. 2022, "repeated random tokens", arXiv 2209.11895.
    """
    task, rng = "induction", random.Random(seed)
    tokens, start = ordinary_tokens(model), start_token(model)
    if length < 2 or 2 * length > len(tokens):
        raise ValueError(
            f"{task}: blocks of length={length} need twice as many different tokens, and this "
            f"model has {len(tokens)}. Give a length from 2 to {len(tokens) // 2}."
        )

    def pick() -> tuple[int, ...]:
        return tuple(rng.sample(tokens, length))

    clean, corrupt, answers, others = [], [], [], []
    for block in draw_distinct(task, n, math.perm(len(tokens), length), pick):
        other = _sample_without(rng, tokens, block)
        clean.append([*start, *block, *block[:-1]])
        corrupt.append([*start, *other, *block[:-1]])
        answers.append(block[-1])
        others.append(other[-1])
    device = models.device(model)
    right, wrong = (torch.tensor(x, device=device) for x in (answers, others))
    roles = [["bos"] * len(start) + ["text"] * (2 * length - 1)] * n
    sides = [
        check_length(
            model, Prompts.from_ids(ids, decode=decoder(model), roles=roles, device=device)
        )
        for ids in (clean, corrupt)
    ]
    last = len(start) + length - 1
    return Task(
        name=task,
        pair=named_pair(*sides, first=last - 1, induction=last, end=last + length - 1),
        metric=log_prob(right),
        answers=right,
        others=wrong,
        findings=FINDINGS,
        source=SOURCE,
        corruption="other random tokens in the first half, so that nothing is repeated",
    )


def _sample_without(rng: random.Random, tokens: list[int], block: tuple[int, ...]) -> list[int]:
    """As many different tokens as the block has, none of them in it."""
    return [i for i in rng.sample(tokens, 2 * len(block)) if i not in block][: len(block)]
