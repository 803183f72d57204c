"""Docstrings: which argument of the function is described next?

>>> from mechinterp.tasks.docstring import text
>>> print(text("port", ["old", "load", "size", "files", "last"], "oil column piece".split(),
...            ["load", "size"], ["crime population".split(), "unit dark".split()]))
<BLANKLINE>
def port(self, old, load, size, files, last):
    \"\"\"oil column piece
<BLANKLINE>
    :param load: crime population
    :param size: unit dark
    :param

The next token is " files".
"""

import math
import random
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.models.model import Model
from mechinterp.tasks.definition import MEASURED_HERE, Finding, Task, heads
from mechinterp.tasks.words import (
    continuation_ids,
    draw_distinct,
    named_pair,
    positions_of,
    single_token_ids,
    split_words,
    tokenize_known,
)

POST = "Heimersheim and Janiak 2023, A circuit for Python docstrings, alignmentforum.org"
SOURCE = f"{POST}; prompts as in the authors' part of Conmy et al. 2023, arXiv 2304.14997"

ARGUMENTS = split_words(
    "data name file value test result line user key default request path output node item url "
    "model response text version function log string field start number values index error "
    "current context image message size event state row end files form query fields action target "
    "array code table source config first options update module status group content results "
    "last command format color settings order count match tag title parent session server host "
    "mode project page header option task shape names port old resource root load"
)
DESCRIPTIONS = split_words(
    "price control cost issue course minute research girl age father force health street patient "
    "class mind church paper bank century section building sense staff team language town plan "
    "morning practice evidence ground letter foot boy game food union land art stage trade voice "
    "arm club history care air light wife quality rule story nature bed hospital unit wall amount "
    "president property king share picture security future heart music pattern tree plant fire "
    "space sea player film cup machine energy risk sound floor science horse character dog season "
    "glass park river stone oil fish blood memory star mouth rock radio speech wine gold"
)

FINDINGS = (
    Finding(
        "attend from the end to C_def and write the argument's name",
        POST,
        "attn-only-4l",
        heads((3, 0), (3, 6)),
        "argument mover",
    ),
    Finding(
        "at C_def brings what stands at ,_B, so that the movers find the argument after B",
        POST,
        "attn-only-4l",
        heads((2, 0)),
        "fuzzy previous token",
    ),
    Finding(
        "at the end an induction head, which finds B_doc; at ,_B a fuzzy previous token head, "
        "which brings B_def",
        POST,
        "attn-only-4l",
        heads((1, 4)),
        "induction and fuzzy previous token",
    ),
    Finding(
        "help: 0.5 mostly transforms the token at its own position, 1.2 keeps the movers from the "
        "arguments in the docstring",
        POST,
        "attn-only-4l",
        heads((0, 5), (1, 2)),
        "duplicate token",
    ),
    Finding(
        "essential too, but alike on clean and corrupt prompts, so that patching cannot show it",
        POST,
        "attn-only-4l",
        heads((0, 2)),
        "previous token",
    ),
    Finding(
        "essential too, but alike on clean and corrupt prompts, so that patching cannot show it",
        POST,
        "attn-only-4l",
        heads((0, 4)),
        "positional information",
    ),
    Finding(
        "the right argument is above every wrong one in 78% of 128 prompts, by 1.36 logits on "
        "average; on the corrupt prompts it is 4.67 below the best of them",
        MEASURED_HERE,
        "smollm2",
    ),
)


@checks_arguments
def docstring_arguments(model: Model, n: int = 16, seed: int = 0) -> Task:
    """Docstrings. Metric: the next argument's logit minus the largest wrong one's, at the end.

    Wrong answers are all other arguments of the clean and the corrupt prompt, as in the authors'
    code. A function has two arguments, then A, B and C, then one more; its docstring has described
    A and B. Positions: A_def, B_def and C_def; ",_B", the comma after B_def; A_doc and B_doc; end.
    Corrupt: other random names for A, B and C, different ones in definition and docstring (the
    authors' "random_random"). `others`: the name at C_def in the corrupt prompt.

    Raises:
        ValueError: if `n` is out of range, or the tokenizer has too few of the words.

    Source: Heimersheim and Janiak 2023; Conmy et al. 2023 (ACDC), arXiv 2304.14997.
    """
    task, rng = "docstring", random.Random(seed)
    ids = single_token_ids(model, task, "argument names", ARGUMENTS, 12)
    names = list(ids)
    words = list(single_token_ids(model, task, "words of descriptions", DESCRIPTIONS, 7))
    first_words = [w for w in words if len(continuation_ids(model, w, '    """') or []) == 1]
    if not first_words:
        raise ValueError(
            f"{task}: none of its {len(words)} words is one token of this model's tokenizer "
            f'after """. Use a model with a larger vocabulary.'
        )

    def pick() -> tuple[tuple[str, ...], tuple[str, ...]]:
        first = rng.choice(first_words)
        rest = rng.sample([w for w in words if w != first], 6)
        return tuple(rng.sample(names, 7)), (first, *rest)

    possible = math.perm(len(names), 7) * len(first_words) * math.perm(len(words) - 1, 6)
    clean, corrupt, arguments, wrong_names = [], [], [], []
    for (function, *given), w in draw_distinct(task, n, possible, pick):
        before, (a, b, c), after = given[:2], given[2:5], given[5:]
        *new, a_doc, b_doc = rng.sample([x for x in names if x not in (function, *given)], 5)
        described = (w[:3], [w[3:5], w[5:7]])
        clean.append(text(function, given, described[0], [a, b], described[1]))
        other = [*before, *new, *after]
        corrupt.append(text(function, other, described[0], [a_doc, b_doc], described[1]))
        arguments.append((ids[a], ids[b], ids[c]))
        wrong_names.append(
            [ids[x] for x in (new[2], *new[:2], a_doc, b_doc, *before, a, b, *after)]
        )
    prompts = tokenize_known(model, task, clean)
    a_ids, b_ids, c_ids = zip(*arguments, strict=True)
    b_def = positions_of(prompts, b_ids)
    right, wrong = (torch.tensor(x, device=prompts.tokens.device) for x in (c_ids, wrong_names))
    return Task(
        name=task,
        pair=named_pair(
            prompts,
            tokenize_known(model, task, corrupt),
            **{
                "A_def": positions_of(prompts, a_ids),
                "B_def": b_def,
                ",_B": [pos + 1 for pos in b_def],
                "C_def": positions_of(prompts, c_ids),
                "A_doc": positions_of(prompts, a_ids, 1),
                "B_doc": positions_of(prompts, b_ids, 1),
                "end": (prompts.lengths - 1).tolist(),
            },
        ),
        metric=_above_the_best_wrong(right, wrong),
        answers=right,
        others=wrong[:, 0],
        findings=FINDINGS,
        source=SOURCE,
        corruption="other random names for A, B and C, different ones in definition and docstring",
    )


def text(
    function: str,
    arguments: Sequence[str],
    description: Sequence[str],
    described: Sequence[str],
    descriptions: Sequence[Sequence[str]],
) -> str:
    """The prompt: a definition, and its docstring up to the next argument to be described."""
    lines = (
        f"    :param {name}: {' '.join(words)}\n"
        for name, words in zip(described, descriptions, strict=True)
    )
    return (
        f"\ndef {function}(self, {', '.join(arguments)}):\n"
        f'    """{" ".join(description)}\n\n{"".join(lines)}    :param'
    )


def _above_the_best_wrong(
    right: Int[Tensor, " prompt"], wrong: Int[Tensor, "prompt wrong"]
) -> Metric:
    """Logit of the right answer minus the largest logit among the wrong ones."""

    def score(logits: Tensor) -> Tensor:
        return logits[:, 0, 0] - logits[:, 0, 1:].amax(-1)

    tokens = torch.cat([right[:, None], wrong], 1)
    return Metric("logit_diff_to_best_wrong", "logits", ("end",), score, tokens)
