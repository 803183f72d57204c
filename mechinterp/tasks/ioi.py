"""Indirect object identification (IOI): who receives it, Mary or John?

    When Mary and John went to the store, John gave a drink to -> Mary

>>> from mechinterp.tasks.ioi import FINDINGS, TEMPLATES
>>> TEMPLATES[0].format(A="Mary", B="John", S="John", place="store", object="ring")
'Then, Mary and John went to the store. John gave a ring to'
>>> {f.role: len(f.sites) for f in FINDINGS if f.model == "gpt2"}["S-inhibition"]
4
"""

import random

import torch

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import logit_diff
from mechinterp.models.model import Model
from mechinterp.tasks.definition import MEASURED_HERE, Finding, Task, heads
from mechinterp.tasks.words import (
    draw_distinct,
    named_pair,
    positions_of,
    single_token_ids,
    split_words,
    tokenize_known,
)

SOURCE = "Wang et al. 2022, arXiv 2211.00593"

TEMPLATES = (
    "Then, {A} and {B} went to the {place}. {S} gave a {object} to",
    "Then, {A} and {B} met at the {place}, and {S} gave a {object} to",
    "Friends {A} and {B} found a {object} at the {place}. {S} gave it to",
    "While {A} and {B} were working at the {place}, {S} gave a {object} to",
    "While {A} and {B} were walking to the {place}, {S} gave a {object} to",
    "When {A} and {B} went to the {place}, {S} gave a {object} to",
    "After {A} and {B} went to the {place}, {S} gave a {object} to",
)
"""Adapted from the paper (appendix E). A task uses those of the most common length in tokens."""

NAMES = split_words(
    "Mary John Tom James Robert Michael William David Richard Joseph Thomas Charles Daniel Matthew "
    "Anthony Mark Paul Steven Andrew George Edward Brian Kevin Jason Jeffrey Ryan Jacob Gary Eric "
    "Stephen Jonathan Larry Justin Scott Frank Brandon Benjamin Gregory Samuel Patrick Alexander "
    "Jack Dennis Jerry Peter Henry Adam Arthur Simon Martin Roger Joe Max Sam Dan Linda Elizabeth "
    "Barbara Susan Jessica Sarah Karen Nancy Lisa Margaret Sandra Ashley Emily Michelle Carol "
    "Amanda Melissa Laura Rebecca Sharon Kathleen Amy Anna Helen Rachel Emma Maria Julie Kelly "
    "Christina Victoria Jane Alice Kate Julia Grace Diana Sophie"
)
PLACES = split_words("store garden school hospital office house station park library market")
OBJECTS = split_words("ring bone drink book ball letter flower gift key ticket cake map")

FINDINGS = (
    Finding(
        "write the indirect object: they attend from the end to IO and copy it",
        f"{SOURCE}, section 3.1",
        "gpt2",
        heads((9, 6), (9, 9), (10, 0)),
        "name mover",
    ),
    Finding(
        "write against the name that they attend to, as name movers with the opposite sign",
        f"{SOURCE}, section 3.1",
        "gpt2",
        heads((10, 7), (11, 10)),
        "negative name mover",
    ),
    Finding(
        "attend from the end to S2 and keep the name movers from attending to the subject",
        f"{SOURCE}, section 3.2",
        "gpt2",
        heads((7, 3), (7, 9), (8, 6), (8, 10)),
        "S-inhibition",
    ),
    Finding(
        "attend from S2 to S1 and mark that the subject occurred before",
        f"{SOURCE}, section 3.3",
        "gpt2",
        heads((0, 1), (0, 10), (3, 0)),
        "duplicate token",
    ),
    Finding(
        "write the subject at S1 to the position after it, S1+1",
        f"{SOURCE}, section 3.3",
        "gpt2",
        heads((2, 2), (4, 11)),
        "previous token",
    ),
    Finding(
        "attend from S2 to S1+1 and mark, as duplicate token heads do, that the subject repeats",
        f"{SOURCE}, section 3.3",
        "gpt2",
        heads((5, 5), (5, 8), (5, 9), (6, 9)),
        "induction",
    ),
    Finding(
        "do little as things are, and move the name when the name movers are knocked out",
        f"{SOURCE}, section 3.4",
        "gpt2",
        heads((9, 0), (9, 7), (10, 1), (10, 2), (10, 6), (10, 10), (11, 2), (11, 9)),
        "backup name mover",
    ),
    Finding(
        "IO is above S in 97% of 128 prompts, by 4.25 logits on average",
        MEASURED_HERE,
        "smollm2",
    ),
    Finding(
        "write directly for IO against S: +2.24, +1.20 and +1.06 logits",
        MEASURED_HERE,
        "smollm2",
        heads((23, 3), (29, 1), (23, 0)),
        "direct writer",
    ),
    Finding(
        "write directly against IO: -0.94 and -0.76 logits",
        MEASURED_HERE,
        "smollm2",
        heads((29, 0), (24, 4)),
        "negative name mover",
    ),
    Finding(
        "patched one at a time from the corrupt prompts, lower the logit difference most: by 52%, "
        "30%, 27%, 26% and 23%",
        MEASURED_HERE,
        "smollm2",
        heads((23, 3), (29, 1), (17, 4), (20, 0), (19, 2)),
        "largest total effect",
    ),
    Finding(
        "attend from the end to IO (.42) and write it: with their direct path noised IO falls by "
        "1.23, 0.97 and 0.52 logits; at the mean, together, they are not missed",
        MEASURED_HERE,
        "smollm2",
        heads((23, 0), (23, 1), (23, 2)),
        "name mover",
    ),
    Finding(
        "attends from the end to S2 (.60) and directly lowers S by 2.4 logits, IO by none: the "
        "strongest direct effect, and no name mover in the paper's sense",
        MEASURED_HERE,
        "smollm2",
        heads((23, 3)),
        "subject suppressor",
    ),
    Finding(
        "attend from the end to S2 (.46) and act through the queries of layer 23, by -1.13 and "
        "-0.68 logits of 3.55",
        MEASURED_HERE,
        "smollm2",
        heads((20, 0), (19, 2)),
        "S-inhibition",
    ),
    Finding(
        "attend from S2 to S1+1 (.46); with these links cut the logit difference falls by 1.37 "
        "of 3.55",
        MEASURED_HERE,
        "smollm2",
        heads((17, 3), (17, 4), (17, 5), (18, 6)),
        "induction",
    ),
    Finding(
        "attends from S1+1 to S1 (.89); with this link cut the logit difference falls by 1.08 "
        "of 3.55",
        MEASURED_HERE,
        "smollm2",
        heads((16, 0)),
        "previous token",
    ),
)


CORRUPTIONS = {
    "p_ABC": "three other names, all different, in the places of IO, S1 and S2 (p_ABC)",
    "S2 to IO": "the indirect object in the place of S2, so that the answer is the other name",
}
"""The possible corruptions, in words."""


@checks_arguments
def indirect_objects(
    model: Model, n: int = 16, seed: int = 0, *, corruption: str = "p_ABC"
) -> Task:
    """Two names, one of them repeated. Metric: IO's logit minus S's, in logits, at the end.

    Positions: IO; S1 and S2, the first and the second occurrence of the subject; S1+1; end. IO
    comes first in about half of the prompts. Corrupt: three other names, all different (the paper's
    p_ABC), or, with "S2 to IO", the indirect object at S2, so that right and wrong change places.

    Raises:
        ValueError: if `n` is out of range, too few of the words are single tokens, or the
            corruption is unknown.

    Source: Wang et al. 2022, sections 2 and 3, arXiv 2211.00593.
    """
    task, rng = "ioi", random.Random(seed)
    if corruption not in CORRUPTIONS:
        raise ValueError(f"corruption={corruption!r} is none of {list(CORRUPTIONS)}.")
    ids = single_token_ids(model, task, "names", NAMES, 5)
    names = list(ids)
    places = list(single_token_ids(model, task, "places", PLACES, 1))
    objects = list(single_token_ids(model, task, "objects", OBJECTS, 1))
    templates = _as_long_as_most(model, task, names, places[0], objects[0])

    def pick() -> tuple[str, bool, str, str, str, str]:
        io, s = rng.sample(names, 2)
        order = rng.random() < 0.5
        return rng.choice(templates), order, io, s, rng.choice(places), rng.choice(objects)

    pairs_of_names = len(names) * (len(names) - 1)
    possible = len(templates) * 2 * pairs_of_names * len(places) * len(objects)
    clean, corrupt, answers, others = [], [], [], []
    for template, io_first, io, s, place, thing in draw_distinct(task, n, possible, pick):
        a, b, c = rng.sample([name for name in names if name not in (io, s)], 3)
        first, second = (io, s) if io_first else (s, io)
        clean.append(template.format(A=first, B=second, S=s, place=place, object=thing))
        if corruption == "S2 to IO":
            a, b, c = first, second, io
        corrupt.append(template.format(A=a, B=b, S=c, place=place, object=thing))
        answers.append(ids[io])
        others.append(ids[s])
    prompts = tokenize_known(model, task, clean)
    s1 = positions_of(prompts, others)
    device = prompts.tokens.device
    right, wrong = (torch.tensor(x, device=device) for x in (answers, others))
    return Task(
        name=task,
        pair=named_pair(
            prompts,
            tokenize_known(model, task, corrupt),
            **{
                "IO": positions_of(prompts, answers),
                "S1": s1,
                "S1+1": [pos + 1 for pos in s1],
                "S2": positions_of(prompts, others, 1),
                "end": (prompts.lengths - 1).tolist(),
            },
        ),
        metric=logit_diff(right, wrong),
        answers=right,
        others=wrong,
        findings=FINDINGS,
        source=SOURCE,
        corruption=CORRUPTIONS[corruption],
    )


def _as_long_as_most(
    model: Model, task: str, names: list[str], place: str, thing: str
) -> list[str]:
    """The templates whose length in tokens is the most common one for this tokenizer."""
    a, b = names[:2]
    filled = [t.format(A=a, B=b, S=a, place=place, object=thing) for t in TEMPLATES]
    lengths = tokenize_known(model, task, filled).lengths.tolist()
    most = max(lengths, key=lengths.count)
    return [t for t, length in zip(TEMPLATES, lengths, strict=True) if length == most]
