"""Groups of inputs that stand in for each other: found by removing sets, of any size.

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

How: some set of candidates takes half of what all of them take, and is made as small as it goes
(a *minimal set*). Keep one unit of each minimal set found and remove the rest. If the effect ends,
there is a further minimal set within that rest; if it stays, what was kept is enough. When nothing
new comes, all minimal sets are known, provided that removing more never takes less. Then the same
among the units that no minimal set holds, while a fifth of the effect is unexplained.

Source: dualize and advance, Gunopulos et al. 2003, doi:10.1145/777943.777945; ours: the effects of
single units and pairs start the search, and sums of smaller effects are taken apart.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float

from mechinterp.attribution.methods.hitting_sets import (
    Members,
    hitting_sets,
    linked,
    smallest,
)
from mechinterp.attribution.question.definition import Question
from mechinterp.stats.additivity import notable_effect, shows_redundancy

Drops = Float[np.ndarray, " output"]

ENOUGH = 0.5
"""A set ends an effect if its removal takes this share of it; a part with less is not enough."""

EXPLAINS = 0.2
"""The least share of the joint effect that a group has to explain, and that is looked for."""

MOST_SETS = 160
"""How many sets are removed in search of groups, at most, beyond singles and pairs."""

_MOST_ROUNDS = 4
_MOST_WAYS = 64  # minimal sets, or ways to keep one unit of each, in one round


class Group(TypedDict):
    """Units that stand in for each other at one output.

    members: the numbers of the units of each member, smallest first; each member is enough.
    units: all of them. joint: the drop without all of `units`; sum: without each alone, added up.
    share: of the effect of removing everything attributed; NaN where that is not known or not
    notable.
    """

    output: int
    units: list[int]
    members: list[list[int]]
    texts: list[str]
    joint: float
    sum: float
    share: float


class GroupSearch(NamedTuple):
    """The groups found, how many sets were removed for them, and whether the search ended.

    It did not where it would have taken more than `MOST_SETS`.
    """

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
    n_spare: int = 0,
) -> GroupSearch:
    """For each output the groups of candidates, those with the largest joint effect first.

    `drop`: of single units and pairs, and whatever else is known; `alone`: of units where the
    others are removed; `joint_effect`: of all units that are attributed; `measure`: gives the drops
    of further sets, if they can be removed. `n_spare`: how many units besides `chosen` are tried
    where removing all of these takes less than half of the joint effect.
    """
    if question.metric.distance:
        return GroupSearch([], 0, is_complete=True)
    unit, wanted = question.metric.unit, question.attributed
    known = dict(drop)
    searches = [
        _Search(
            drop=known,
            output=i,
            chosen=_by_size(chosen, wanted, alone[i]),
            spare=_by_size(set(wanted) - set(chosen), wanted, alone[i])[:n_spare],
            total=float(joint_effect[i]),
            notable=notable_effect(unit),
        )
        for i in range(len(question.metrics))
    ]
    n_sets, is_complete = _drive([each.steps() for each in searches], known, measure)
    groups: list[Group] = []
    for search in searches:
        found = [group for clauses in search.found for group in _groups(question, search, clauses)]
        groups += sorted(found, key=lambda group: -abs(group["joint"]))
    return GroupSearch(groups, n_sets, is_complete)


Steps = Generator[list[Members], None, None]
"""Asks for the drops of sets; when it goes on they are there, if they can be removed."""


@dataclass(eq=False)
class _Search:
    """The search at one output; `found` grows by the minimal sets of each round.

    `chosen`, `spare`: units, by what they do alone, largest first. `total`: the effect of removing
    everything attributed, NaN if that is not known.
    """

    drop: dict[Members, Drops]
    output: int
    chosen: list[int]
    spare: list[int]
    total: float
    notable: float

    def __post_init__(self) -> None:
        self.found: list[list[Members]] = []
        self.least = self.notable

    def value(self, units: Sequence[int]) -> float:
        """The drop without these units: 0 without none, NaN if it is not known."""
        key = tuple(sorted(units))
        return float(self.drop[key][self.output]) if key in self.drop else 0.0 if not key else np.nan

    def steps(self) -> Steps:
        """Rounds: the minimal sets of what is left, until it does little."""
        ground = self.chosen
        yield [tuple(sorted(ground))]
        if np.isnan(self.value(ground)):  # some removals must leave a token
            ground = ground[:-1]
            yield [tuple(sorted(ground))]
        total = self.value(ground) if np.isnan(self.total) else self.total
        if not self._takes(ground, ENOUGH * total) and self.spare:
            more = [*ground, *self.spare]
            yield [tuple(sorted(more))]
            ground = ground if np.isnan(self.value(more)) else more
        size = max(abs(total), *(abs(self.value([n])) for n in ground))
        self.least = max(self.notable, EXPLAINS * np.nan_to_num(size))
        loud = {n for n in ground if abs(self.value([n])) >= self.least}
        explained: set[int] = set()
        for _ in range(_MOST_ROUNDS):
            left = [n for n in ground if n not in explained]
            yield [tuple(sorted(explained)), tuple(sorted(left))]
            rest = total - self.value(sorted(explained))
            before = len(explained)
            # All and what is left agree where the effects of opposite signs do not hide each other.
            if abs(rest) >= self.least and self._takes(left, np.sign(rest) * self.least):
                yield from self._minimal_sets(left)
                explained |= set(chain(*self.found[-1]))
            explained |= loud
            if len(explained) in (before, len(ground)):
                break
        yield [tuple(sorted(set(chain(*g)))) for found in self.found for g in linked(found)]

    def _takes(self, units: Sequence[int], target: float) -> bool:
        """Whether removing these takes at least the target, in its direction."""
        return bool(self.value(units) * np.sign(target) >= abs(target) > 0)

    def _minimal_sets(self, ground: list[int]) -> Steps:
        """Add to `found` all minimal sets of `ground` that do half of what the first one does."""
        first = yield from self._whole(ground)
        target = ENOUGH * self.value(first)
        small = [first, *((n,) for n in ground)]
        small += [pair for pair in self.drop if len(pair) == 2 and set(pair) <= set(ground)]
        self.found.append(smallest(s for s in small if self._takes(s, target)))
        tried: set[Members] = set()
        while len(self.found[-1]) < _MOST_WAYS:
            ways = hitting_sets(self.found[-1], _MOST_WAYS)
            rests = {way: [n for n in ground if n not in way] for way in ways if way not in tried}
            yield [tuple(sorted(rest)) for rest in rests.values()]
            tried |= set(rests)
            ended = [rest for rest in rests.values() if self._takes(rest, target)]
            if not ended:
                break
            tried -= set(rests)
            new = yield from self._shrunk(ended[0], target)
            self.found[-1] = smallest([*self.found[-1], new])

    def _whole(self, ground: list[int]) -> Generator[list[Members], None, Members]:
        """A minimal set of which no part does half of what it does: no sum of smaller effects."""
        units: Members = tuple(ground)
        while True:
            units = yield from self._shrunk(units, ENOUGH * self.value(units))
            if len(units) == 1:
                return units
            parts = _all_but_one(units)
            part = max(parts, key=lambda s: self.value(s) * np.sign(self.value(units)))
            if not self._takes(part, ENOUGH * self.value(units)):
                return units
            units = part

    def _shrunk(
        self, units: Sequence[int], target: float
    ) -> Generator[list[Members], None, Members]:
        """A set within these units that takes the target, none of whose members can be spared."""
        order = [*self.chosen, *self.spare]
        kept = sorted(units, key=order.index)
        while len(kept) > 1:
            parts = [[n for n in kept if n != unit] for unit in kept]
            yield [tuple(sorted(part)) for part in parts]
            spare = [
                n for n, part in zip(kept, parts, strict=True) if self._takes(part, target)
            ]
            if not spare:
                break
            spare.reverse()  # those that do least alone go first, as many as can go together
            fewer = [[n for n in kept if n not in spare[:k]] for k in range(1, len(spare) + 1)]
            yield [tuple(sorted(s)) for s in fewer if s]
            kept = [s for s in fewer if s and self._takes(s, target)][-1]
        return tuple(sorted(kept))


def _drive(
    searches: Sequence[Steps],
    known: dict[Members, Drops],
    measure: Callable[[Sequence[Members]], Mapping[Members, Drops]],
) -> tuple[int, bool]:
    """Run all searches side by side, so that one sweep serves them all; how many sets it took."""
    asked: set[Members] = set()
    running = list(searches)
    while running:
        steps = [(search, next(search, None)) for search in running]
        running = [search for search, sets in steps if sets is not None]
        wanted = {s for _, sets in steps for s in sets or () if s}
        new = sorted(wanted - set(known) - asked)
        if len(asked) + len(new) > MOST_SETS:
            return len(asked), False
        asked |= set(new)
        known.update(measure(new))
    return len(asked), True


def _groups(question: Question, search: _Search, clauses: Sequence[Members]) -> list[Group]:
    """The groups among minimal sets: those that share units are one group."""
    real = [s for s in clauses if len(s) > 1 and _is_hidden(question, search, s)]
    groups: list[Group] = []
    for sets in linked(real):
        units = sorted(set(chain(*sets)))
        members = hitting_sets(sets)
        joint = search.value(units)
        if not abs(joint) >= search.least or not _stands_in(question, search, units):
            continue
        known = abs(search.total) >= search.notable
        groups.append(
            {
                "output": search.output,
                "units": units,
                "members": [list(member) for member in members],
                "texts": [question.units[number].text for number in units],
                "joint": joint,
                "sum": float(sum(search.value([number]) for number in units)),
                "share": joint / search.total if known else float("nan"),
            }
        )
    return groups


def _is_hidden(question: Question, search: _Search, units: Members) -> bool:
    """Whether a set does much more than its parts: no part of it does half of what it does."""
    half = ENOUGH * search.value(units)
    parts = _all_but_one(units)
    return _stands_in(question, search, units) and not any(search._takes(s, half) for s in parts)


def _stands_in(question: Question, search: _Search, units: Sequence[int]) -> bool:
    parts = np.array([[search.value([number]) for number in units]])
    joint = np.array([search.value(units)])
    return bool(shows_redundancy(parts, joint, question.metric.unit)[0])


def _all_but_one(units: Members) -> list[Members]:
    return [tuple(n for n in units if n != number) for number in units]


def _by_size(
    units: Sequence[int] | set[int], wanted: Sequence[int], alone: Float[np.ndarray, " attributed"]
) -> list[int]:
    """The units by what they do alone, largest first."""
    size = dict(zip(wanted, np.abs(np.nan_to_num(alone)).tolist(), strict=True))
    return sorted(units, key=lambda n: (-size[n], n))
