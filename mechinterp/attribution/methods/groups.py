"""Groups of inputs that do much more together than the sum of their parts.

Found by removing more sets, as part of `redundancy`, which measures them:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.redundancy import pair_removals
>>> question = ask(load_model("toy:trigger"), "sesame the sesame and sesame", outputs=1)
>>> import warnings
>>> with warnings.catch_warnings():
...     warnings.simplefilter("ignore")
...     found = pair_removals(question)
>>> [(group["units"], round(group["joint"])) for group in found.attrs["groups"]]
[([1, 3, 5], 8)]
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Float

from mechinterp.attribution.question.definition import Question
from mechinterp.stats.additivity import notable_effect, shows_redundancy

Members = tuple[int, ...]
"""The numbers of units, in order."""

Drops = Float[np.ndarray, " output"]

MOST_OF_IT = 0.8
"""The share of the joint effect of all candidates that the smallest group has to reach."""


class Group(TypedDict):
    """Units whose joint drop is more than twice the sum of their single ones, at one output."""

    output: int
    units: list[int]
    texts: list[str]
    joint: float
    sum: float


def hidden_groups(
    question: Question,
    chosen: Sequence[int],
    each: Mapping[int, Drops],
    both: Mapping[Members, Drops],
    alone: Float[np.ndarray, "output attributed"],
    measure: Callable[[Sequence[Members]], Mapping[Members, Drops]],
) -> list[Group]:
    """For each output the groups of candidates that do much more than their parts.

    First the connected components of redundant pairs. Then, among the candidates without effect
    single or in pairs, the fewest that do nearly all, in order of their effect alone, less those
    that are not needed.

    `each`, `both`: the drops of single units and of pairs; `alone`: those of units where the others
    are removed; `measure`: gives the drops of further sets, if they can be removed.
    """
    if question.metric.distance:
        return []
    unit, outputs = question.metric.unit, range(len(question.metrics))
    linked, nested = [], []
    for i in outputs:
        pairs = [p for p, drop in both.items() if _are_redundant(p, each, drop, i, unit)]
        linked.append(_components(pairs))
        taken = {number for group in linked[i] for number in group}
        faint = [n for n in chosen if n not in taken and abs(each[n][i]) < notable_effect(unit)]
        size = dict(zip(question.attributed, np.abs(np.nan_to_num(alone[i])), strict=True))
        faint.sort(key=lambda n: -size[n])
        nested.append([tuple(sorted(faint[:n])) for n in range(3, len(faint) + 1)])
    joint = dict(both)
    joint |= measure(sorted({s for i in outputs for s in [*nested[i], *linked[i]]} - set(joint)))
    hidden = [_smallest_sufficient(nested[i], joint, each, i, unit) for i in outputs]
    joint |= measure(sorted({s for group in hidden for s in _all_but_one(group)} - set(joint)))
    needed = [_needed_members(hidden[i], joint, i) for i in outputs]
    joint |= measure(sorted({group for group in needed if len(group) > 1} - set(joint)))
    groups: list[Group] = []
    for i in outputs:
        found = [s for s in [*linked[i], needed[i]] if s in joint and len(s) > 1]
        found = [s for s in found if _are_redundant(s, each, joint[s], i, unit)]
        groups += [
            {
                "output": i,
                "units": list(s),
                "texts": [question.units[number].text for number in s],
                "joint": float(joint[s][i]),
                "sum": float(sum(each[number][i] for number in s)),
            }
            for s in sorted(found, key=lambda s: -abs(joint[s][i]))
        ]
    return groups


def _smallest_sufficient(
    nested: Sequence[Members],
    joint: Mapping[Members, Drops],
    each: Mapping[int, Drops],
    i: int,
    unit: str,
) -> Members:
    """The smallest of nested sets that is redundant and does nearly what the largest does.

    Empty if there is none.
    """
    if not nested or nested[-1] not in joint:
        return ()
    whole = joint[nested[-1]][i]
    for s in nested:
        if (
            s in joint
            and _most_of(joint[s][i], whole)
            and _are_redundant(s, each, joint[s], i, unit)
        ):
            return s
    return ()


def _needed_members(group: Members, joint: Mapping[Members, Drops], i: int) -> Members:
    """The members that the group needs: without one of them it does much less."""
    without = dict(zip(group, _all_but_one(group), strict=True))
    whole = joint[group][i] if group else 0.0
    return tuple(n for n, s in without.items() if s in joint and not _most_of(joint[s][i], whole))


def _all_but_one(group: Members) -> list[Members]:
    return [tuple(n for n in group if n != number) for number in group]


def _most_of(drop: float, whole: float) -> bool:
    return bool(drop * np.sign(whole) >= MOST_OF_IT * abs(whole))


def _are_redundant(
    group: Sequence[int], each: Mapping[int, Drops], joint: Drops, i: int, unit: str
) -> bool:
    parts = np.array([[each[number][i] for number in group]])
    return bool(shows_redundancy(parts, joint[i : i + 1], unit)[0])


def _components(pairs: Sequence[Members]) -> list[Members]:
    """The connected components of a graph whose edges are the pairs."""
    found: list[set[int]] = []
    for pair in pairs:
        touching = [s for s in found if s & set(pair)]
        found = [s for s in found if s not in touching] + [set(pair).union(*touching)]
    return [tuple(sorted(s)) for s in found]
