"""A task: pairs of prompts, the metric, and the published findings about them.

A finding is data: a claim, its source, the model, and the sites that it names. The result of a
search or a sweep on the same prompts can be compared with it.

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
"""The source of findings that are not from a paper."""


@dataclass(frozen=True)
class Finding:
    """A published claim about a model, and the sites that it names.

    `source`: paper, section, arXiv number. `model`: a name that `load_model` takes, if it has one.
    `role`: what the paper calls the sites, such as "name mover".
    """

    claim: str
    source: str
    model: str
    sites: tuple[Site, ...] = ()
    role: str = ""


@dataclass(frozen=True, eq=False)
class Task:
    """Prompts of a published task. Tasks compare by identity, since tensors have no truth value.

    `pair`: clean and corrupt prompts with the same named positions. `metric`: the paper's; it holds
    the answers, so use it for these prompts in this order, clean or corrupt. `answers`, `others`: a
    right and a wrong token id for each clean prompt. `corruption`: how the corrupt prompts differ,
    in words.
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
    """The sites of these heads, given as (layer, head): their outputs before W_O."""
    return tuple(Site("z", layer, head) for layer, head in layer_head)


def mlps(*layers: int) -> tuple[Site, ...]:
    """The sites of these layers' MLP outputs."""
    return tuple(Site("mlp_out", layer) for layer in layers)
