"""Subject-verb agreement (SVA) with an attractor: the verb agrees with keys, not with cabinet.

    The keys near the cabinet -> are

>>> from mechinterp.tasks.sva import NOUNS, TEMPLATE
>>> TEMPLATE.format(subject=NOUNS["key"], preposition="near", attractor="cabinet")
'The keys near the cabinet'
"""

import random

import torch

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import logit_diff
from mechinterp.models.model import Model
from mechinterp.tasks.definition import MEASURED_HERE, Finding, Task
from mechinterp.tasks.words import (
    draw_distinct,
    named_pair,
    positions_of,
    single_token_ids,
    tokenize_known,
)

STUDY = "Finlayson et al. 2021, arXiv 2106.06087"
SOURCE = f"Linzen et al. 2016, arXiv 1611.01368; {STUDY}"

TEMPLATE = "The {subject} {preposition} the {attractor}"
VERBS = ("is", "are")
"""Singular and plural."""

PREPOSITIONS = ("near", "behind", "beside", "with", "by", "from")
NOUNS = {
    "key": "keys", "cabinet": "cabinets", "author": "authors", "pilot": "pilots",
    "teacher": "teachers", "farmer": "farmers", "manager": "managers", "officer": "officers",
    "customer": "customers", "doctor": "doctors", "lawyer": "lawyers", "student": "students",
    "artist": "artists", "driver": "drivers", "guard": "guards", "picture": "pictures",
    "letter": "letters", "book": "books", "car": "cars", "tree": "trees", "house": "houses",
    "door": "doors", "dog": "dogs", "cat": "cats", "child": "children", "man": "men",
    "woman": "women", "window": "windows", "table": "tables", "boat": "boats",
}  # fmt: skip
"""Singular -> plural."""

FINDINGS = (
    Finding(
        "similar neurons carry the subject's number in sentences of similar structure; there are "
        "two mechanisms, depending on the structure, and larger models are not always surer",
        f"{STUDY}, abstract",
        "gpt2",
    ),
    Finding(
        "the verb agrees with the subject, against the attractor, in 97.7% of the prompts",
        MEASURED_HERE,
        "smollm2",
    ),
)


@checks_arguments
def subject_verb(model: Model, n: int = 16, seed: int = 0) -> Task:
    """Agreement. Metric: the right verb's logit minus the wrong one's, in logits, at the end.

    Positions: subject; attractor, a noun of the other number; end, the same position. Corrupt: the
    subject in the other number, so that the wrong verb becomes the right one.

    Raises:
        ValueError: if `n` is out of range, or the tokenizer has too few of the words.

    Source: Linzen et al. 2016, arXiv 1611.01368; Finlayson et al. 2021, arXiv 2106.06087 (the
    corruption: their swap-number).
    """
    task, rng = "sva", random.Random(seed)
    verbs = list(single_token_ids(model, task, "verbs", VERBS, 2).values())
    prepositions = list(single_token_ids(model, task, "prepositions", PREPOSITIONS, 1))
    ids = single_token_ids(model, task, "nouns", [w for pair in NOUNS.items() for w in pair], 4)
    nouns = [pair for pair in NOUNS.items() if all(word in ids for word in pair)]
    if len(nouns) < 2:
        raise ValueError(
            f"{task}: only {len(nouns)} of its {len(NOUNS)} nouns are single tokens of this "
            f"model's tokenizer in both numbers, and 2 are needed. Use a larger vocabulary."
        )

    def pick() -> tuple[tuple[str, str], tuple[str, str], str, int]:
        subject, attractor = rng.sample(nouns, 2)
        return subject, attractor, rng.choice(prepositions), rng.randrange(2)

    possible = len(nouns) * (len(nouns) - 1) * len(prepositions) * 2
    picked = draw_distinct(task, n, possible, pick)

    def texts(swapped: int) -> list[str]:
        return [
            TEMPLATE.format(
                subject=subject[number ^ swapped],
                preposition=preposition,
                attractor=attractor[1 - number],
            )
            for subject, attractor, preposition, number in picked
        ]

    prompts = tokenize_known(model, task, texts(0))
    device = prompts.tokens.device
    right = torch.tensor([verbs[number] for *_, number in picked], device=device)
    wrong = torch.tensor([verbs[1 - number] for *_, number in picked], device=device)
    return Task(
        name=task,
        pair=named_pair(
            prompts,
            tokenize_known(model, task, texts(1)),
            subject=positions_of(prompts, (ids[subject[number]] for subject, *_, number in picked)),
            attractor=positions_of(
                prompts, (ids[noun[1 - number]] for _, noun, _, number in picked)
            ),
            end=(prompts.lengths - 1).tolist(),
        ),
        metric=logit_diff(right, wrong),
        answers=right,
        others=wrong,
        findings=FINDINGS,
        source=SOURCE,
        corruption="the subject in the other number; the attractor stays",
    )
