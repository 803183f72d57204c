"""Groups of inputs that stand in for each other: of any size, found by removing sets.

A group has *members*: units, or sets of units that only together are enough. Each member keeps the
effect up where the others are removed; the effect ends where none is left. Found by `redundancy`:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.redundancy import pair_removals
>>> question = ask(load_model("toy:refusal"), "sesame and copper and velvet anchor", outputs=1)
>>> import warnings
>>> with warnings.catch_warnings():
...     warnings.simplefilter("ignore")
...     found = pair_removals(question)
>>> [(group["members"], round(group["joint"])) for group in found.attrs["groups"]]
[([[1], [3], [5, 6]], 11)]

They follow from the minimal sets (`minimal_sets`): those that share units are one group, and its
members are the smallest sets that hold a unit of each of them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float

from mechinterp.attribution.methods.hitting_sets import Members, hitting_sets, linked
from mechinterp.attribution.methods.minimal_sets import Drops, MinimalSets, measure_for
from mechinterp.attribution.question.definition import Question
from mechinterp.stats.additivity import notable_effect


class Group(TypedDict):
    """Units that stand in for each other at one output.

    members: the numbers of the units of each member, smallest first; each member is enough.
    units: all of them. joint: the drop without all of `units`; sum: without each alone, added up.
    share: of the effect of removing everything attributed; None where that is not known or not
    notable.
    """

    output: int
    units: list[int]
    members: list[list[int]]
    texts: list[str]
    joint: float
    sum: float
    share: float | None


class FoundGroups(NamedTuple):
    """The groups, how many sets were removed in search of them, and whether the search ended."""

    groups: list[Group]
    n_sets: int
    is_complete: bool


def hidden_groups(
    question: Question,
    chosen: Sequence[int],
    drop: Mapping[Members, Drops],
    alone: Float[np.ndarray, "output attributed"],
    joint_effect: Float[np.ndarray, " output"],
    measure: Callable[[Sequence[Members]], Mapping[Members, Drops]],
    *,
    only_chosen: bool = False,
) -> FoundGroups:
    """For each output the groups of candidates, those with the largest joint effect first.

    `drop`: of single units and pairs, and whatever else is known; `alone`: of units where the
    others are removed; `joint_effect`: of all units that are attributed; `measure`: gives the drops
    of further sets, if they can be removed. Unless `only_chosen`, other units are tried too: where
    removing all of `chosen` takes less than half of the joint effect, and where a unit is enough
    only beside one of them.
    """
    if question.metric.distance:
        return FoundGroups([], 0, is_complete=True)
    wanted, known = question.attributed, dict(drop)
    others = [] if only_chosen else [n for n in wanted if n not in chosen]
    searches = [
        MinimalSets(
            known,
            i,
            chosen=_by_size(chosen, wanted, alone[i]),
            spare=_by_size(others, wanted, alone[i]),
            total=float(joint_effect[i]),
            unit=question.metric.unit,
        )
        for i in range(len(question.metrics))
    ]
    n_sets, is_complete = measure_for([each.steps() for each in searches], known, measure)
    groups: list[Group] = []
    for search in searches:
        found = [group for sets in search.found for group in _groups(question, search, sets)]
        groups += sorted(found, key=lambda group: -abs(group["joint"]))
    return FoundGroups(groups, n_sets, is_complete)


def _groups(question: Question, search: MinimalSets, found: Sequence[Members]) -> list[Group]:
    groups: list[Group] = []
    for sets in linked([s for s in found if len(s) > 1]):
        units = sorted(set(chain(*sets)))
        joint = search.value(units)
        if not abs(joint) >= search.least or not search.stand_in(units):
            continue
        known = abs(search.total) >= notable_effect(question.metric.unit)
        groups.append(
            {
                "output": search.output,
                "units": units,
                "members": [list(member) for member in hitting_sets(sets)],
                "texts": [question.units[number].text for number in units],
                "joint": joint,
                "sum": float(sum(search.value([number]) for number in units)),
                "share": joint / search.total if known else None,
            }
        )
    return groups


def _by_size(
    units: Collection[int], wanted: Sequence[int], alone: Float[np.ndarray, " attributed"]
) -> list[int]:
    """The units by what they do alone, largest first."""
    size = dict(zip(wanted, np.abs(np.nan_to_num(alone)).tolist(), strict=True))
    return sorted(units, key=lambda n: (-size[n], n))
