"""Greater-than: a war that began in 1732 ends, in that century, after 32.

    The war lasted from the year 1732 to the year 17 -> 33, 34, ... 99

If the tokenizer reads 1732 as 17 and 32, like the paper's, the candidates are all 100 two-digit
tokens, and those above 32 are right. If each digit is a token, the next token is the tens digit:
the candidates are the ten digits, and 3 and above are right. Then start years end in 0 to 8, so
that an equal tens digit can be right, and are at least 10, so that some digit is wrong.

>>> from mechinterp.tasks.greater_than import TEMPLATE
>>> TEMPLATE.format(noun="war", XX=17, YY=32)
'The war lasted from the year 1732 to the year 17'
"""

import random
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric, columns
from mechinterp.models.model import Model
from mechinterp.models.tokenization import decoder
from mechinterp.tasks.definition import MEASURED_HERE, Finding, Task, heads, mlps
from mechinterp.tasks.words import (
    continuation_ids,
    draw_distinct,
    named_pair,
    single_token_ids,
    split_words,
    tokenize_known,
)

SOURCE = "Hanna et al. 2023, arXiv 2305.00586"

TEMPLATE = "The {noun} lasted from the year {XX}{YY:02} to the year {XX}"
START = "The {noun} lasted from the year"

NOUNS = split_words(
    "war conflict battle siege campaign dispute dynasty reign kingdom plague epidemic famine "
    "rebellion revolution alliance treaty truce trial voyage journey expedition tour marriage "
    "friendship relationship rivalry romance construction project program study experiment "
    "investigation negotiation competition tradition occupation invasion struggle crisis decline "
    "expansion partnership contract employment practice operation work plan effort"
)
CENTURIES = range(11, 18)

FINDINGS = (
    Finding(
        "attend from the end to YY and bring the start year to the MLPs",
        f"{SOURCE}, section 3",
        "gpt2",
        heads((5, 1), (5, 5), (6, 9), (7, 10), (8, 8), (8, 11), (9, 1)),
        "start year",
    ),
    Finding(
        "write directly for the years above YY",
        f"{SOURCE}, section 3",
        "gpt2",
        mlps(8, 9, 10, 11),
        "greater-than",
    ),
    Finding(
        "in the graph that later work scores against: heads of the middle layers, and those that "
        "read the start year",
        "Conmy et al. 2023 (ACDC), arXiv 2304.14997, their code",
        "gpt2",
        heads((0, 1), (0, 3), (0, 5), (5, 5), (6, 1), (6, 9), (7, 10), (8, 11), (9, 1)),
        "ACDC's reference",
    ),
    Finding(
        "the tens digits of YY and above together have probability .986, those below .014; "
        "the right ones have more in 60 of 60 prompts",
        MEASURED_HERE,
        "smollm2",
    ),
    Finding(
        "noised at the end, together, they take 93% of what the start year makes; 20.8, 18.6 and "
        "6.0 attend to the tens digit of YY (.93, .78, .79), 23.0 less (.31)",
        MEASURED_HERE,
        "smollm2",
        heads((20, 8), (6, 0), (18, 6), (23, 0)),
        "start year",
    ),
    Finding(
        "noised at the end, together, they take 64% of it; with the MLPs 20 to 29 held the heads "
        "that bring the start year take 12%",
        MEASURED_HERE,
        "smollm2",
        mlps(22, 23, 24, 26),
        "greater-than",
    ),
)


@checks_arguments
def greater_than_years(model: Model, n: int = 16, seed: int = 0) -> Task:
    """Years. Metric: the probability of right end years minus that of wrong ones, at the end.

    From -1 to 1, over the whole softmax. Positions, named as in the paper: XX, the century of the
    start year (its last token); YY, the token after it, two digits or the tens digit; end, the
    century again. `answers`: the lowest right token; `others`: the one below it. Corrupt: the start
    year ends in 01, so that nearly all end years are right.

    Raises:
        ValueError: if `n` is out of range, or the tokenizer splits years in any other way.

    Source: Hanna et al. 2023, section 2, arXiv 2305.00586.
    """
    task, rng = "greater-than", random.Random(seed)
    nouns = list(single_token_ids(model, task, "nouns", NOUNS, 1))
    years = _years(model, task)

    def pick() -> tuple[str, int, int]:
        return rng.choice(nouns), *rng.choice(years.starts)

    picked = draw_distinct(task, n, len(nouns) * len(years.starts), pick)
    clean = tokenize_known(model, task, [TEMPLATE.format(noun=a, XX=x, YY=y) for a, x, y in picked])
    corrupt = tokenize_known(
        model, task, [TEMPLATE.format(noun=a, XX=x, YY=1) for a, x, _ in picked]
    )
    before = tokenize_known(model, task, [START.format(noun=noun) for noun, _, _ in picked]).lengths
    first = zip(before.tolist(), (years.century_lengths[x] for _, x, _ in picked), strict=True)
    century = [begin + length - 1 for begin, length in first]
    device = clean.tokens.device
    candidates = torch.tensor(years.candidates, device=device)
    lowest = torch.tensor([years.lowest_right(y) for _, _, y in picked], device=device)
    return Task(
        name=task,
        pair=named_pair(
            clean,
            corrupt,
            XX=century,
            YY=[pos + 1 for pos in century],
            end=(clean.lengths - 1).tolist(),
        ),
        metric=_prob_diff(candidates, lowest),
        answers=candidates[lowest],
        others=candidates[lowest - 1],
        findings=FINDINGS,
        source=SOURCE,
        corruption="the last two digits of the start year are 01",
    )


@dataclass(frozen=True)
class _Years:
    """How a tokenizer reads years.

    `n_digits`: digits of a candidate, 2 or 1. `candidates`: their token ids, by value. `starts`:
    possible start years as (century, year). `century_lengths`: century -> number of tokens.
    """

    n_digits: int
    candidates: tuple[int, ...]
    starts: tuple[tuple[int, int], ...]
    century_lengths: dict[int, int]

    def lowest_right(self, year: int) -> int:
        return year + 1 if self.n_digits == 2 else year // 10


def _years(model: Model, task: str) -> _Years:
    text = decoder(model)
    split: dict[int, dict[tuple[int, int], list[int]]] = {1: {}, 2: {}}  # by digits of a token
    lengths = {}
    for century in CENTURIES:
        front = continuation_ids(model, f" {century}", "year") or []
        lengths[century] = len(front)
        for year in range(100):
            ids = continuation_ids(model, f" {century}{year:02}", "year") or []
            rest = ids[len(front) :]
            digits = [text(i).strip() for i in rest]
            whole = front and ids[: len(front)] == front
            if whole and digits in ([f"{year:02}"], list(f"{year:02}")):
                split[3 - len(rest)][century, year] = rest
    for n_digits in (2, 1):
        known = {
            year if n_digits == 2 else year // 10: ids[0]
            for (_, year), ids in split[n_digits].items()
        }
        starts = tuple(
            (century, year)
            for century, year in split[n_digits]
            if (century, 1) in split[n_digits]
            and (2 <= year <= 98 if n_digits == 2 else year >= 10 and year % 10 < 9)
        )
        if len(known) == 10**n_digits and starts:
            candidates = tuple(known[value] for value in range(10**n_digits))
            return _Years(n_digits, candidates, starts, lengths)
    pieces = [text(i) for i in continuation_ids(model, " 1732", "year") or []]
    raise ValueError(
        f"{task}: this model's tokenizer reads ' 1732' as {pieces}. The task needs years that are "
        f"a century and one token of two digits, or one token for each digit: use another model."
    )


def _prob_diff(candidates: Int[Tensor, " candidate"], lowest: Int[Tensor, " prompt"]) -> Metric:
    """Probability of the candidates from the lowest right one up, minus that of those below it."""
    right = torch.arange(len(candidates), device=lowest.device) >= lowest[:, None]
    ids = candidates.expand(len(lowest), -1)

    def score(logits: Tensor) -> Tensor:
        read = columns(ids, len(logits), logits.shape[-1], "prob_diff").to(logits.device)
        # In float64: a sum over the vocabulary in float32 has a relative error of 1e-5.
        probs = logits[:, 0].double().softmax(-1).gather(-1, read)
        return torch.where(right.to(logits.device), probs, -probs).sum(-1)

    return Metric("prob_diff", "probability", ("end",), score)
