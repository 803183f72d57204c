"""What a task is: prompts in pairs, what is measured on them, and what was found about them.

A finding is data, not code: a claim, where it was published, of which model, and at which sites. A
search or a sweep on the same prompts is compared with it.

>>> from mechinterp.tasks.definition import Finding, heads
>>> finding = Finding("copy the name", "Wang et al. 2022", "gpt2", heads((9, 9)), "name mover")
>>> str(finding.sites[0]), finding.role
('L9H9.z', 'name mover')
"""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from mechinterp.core.metrics import Metric
from mechinterp.core.pairs import Pair
from mechinterp.core.sites import Site

MEASURED_HERE = "measured with this package: SmolLM2-135M-Instruct, weights folded, start token 0"
"""The source of the findings that are not from a paper."""


@dataclass(frozen=True)
class Finding:
    """What was found: a claim about a model, and the sites that it names.

    `source`: paper, section, arXiv number. `model`: a name that `load_model` takes, where it has
    one. `role`: what the sites are called, such as "name mover".
    """

    claim: str
    source: str
    model: str
    sites: tuple[Site, ...] = ()
    role: str = ""


@dataclass(frozen=True, eq=False)
class Task:
    """Prompts of a published task. Tasks compare by identity, as tensors have no truth value.

    `pair`: clean and corrupt prompts, with the same named positions. `metric`: what the paper
    measures; it holds the answers, so that it is for these prompts in this order, clean or
    corrupt. `answers`, `others`: a right and a wrong token id for each clean prompt. `corruption`:
    what the corrupt prompts change, in words.
    """

    name: str
    pair: Pair
    metric: Metric
    answers: Int[Tensor, " prompt"]
    others: Int[Tensor, " prompt"]
    findings: tuple[Finding, ...]
    source: str
    corruption: str


def heads(*layer_head: tuple[int, int]) -> tuple[Site, ...]:
    """The outputs of these heads, given as (layer, head), before `W_O`."""
    return tuple(Site("z", layer, head) for layer, head in layer_head)


def mlps(*layers: int) -> tuple[Site, ...]:
    """The outputs of the MLPs of these layers."""
    return tuple(Site("mlp_out", layer) for layer in layers)
