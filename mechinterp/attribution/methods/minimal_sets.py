"""The smallest sets of units whose removal ends an effect, looked for by removing sets.

A *minimal set* takes half of what there is, and no member of it can be spared. Of the effect of
`sesame or copper`, {sesame, copper} is the one minimal set; of `velvet and anchor`, {velvet} and
{anchor} are two. The search asks for drops of sets and goes on when they are there, so that the
searches of several outputs share each sweep:

>>> from mechinterp.attribution.methods.minimal_sets import MinimalSets, measure_for
>>> import numpy as np
>>> takes_all = lambda sets: {s: np.array([8.0 * ({1, 2, 4} <= set(s))]) for s in sets}
>>> drop = takes_all([(1,), (2,), (3,), (4,)])
>>> search = MinimalSets(drop, output=0, chosen=[1, 2, 3, 4], spare=[], total=8.0, unit="nats")
>>> measure_for([search.steps()], drop, takes_all)
(8, True)
>>> search.found
[[(1, 2, 4)]]

How: a set is made as small as it goes. Keep one unit of each minimal set found, in every way, and
remove the rest. If the effect ends, there is a further minimal set within that rest; if it stays,
what was kept is enough. When nothing new comes, all are known, provided that removing more never
takes less. Then the same among the other units, while a fifth of the effect is unexplained.

Source: dualize and advance, Gunopulos et al. 2003, doi:10.1145/777943.777945; ours: the effects of
single units and pairs start the search, and sums of smaller effects are not taken for one.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from jaxtyping import Float

from mechinterp.attribution.methods.hitting_sets import Members, hitting_sets, linked, smallest
from mechinterp.stats.additivity import notable_effect, shows_redundancy

Drops = Float[np.ndarray, " output"]

Steps = Generator[list[Members], None, None]
"""Asks for the drops of sets; when it goes on they are there, if they can be removed."""

ENOUGH = 0.5
"""A set ends an effect if its removal takes this share of it; a part with less is not enough."""

EXPLAINS = 0.2
"""The least share of the joint effect that a group has to explain, and that is looked for."""

MOST_SETS = 160
"""How many sets are removed in search of groups, at most, beyond singles and pairs."""

_MOST_ROUNDS = 4
_MOST_WAYS = 64  # minimal sets, or ways to keep one unit of each, in one round
_MOST_PARTNERS = 4  # units outside the candidates: what needs more needs its context


def measure_for(
    searches: Sequence[Steps],
    known: dict[Members, Drops],
    measure: Callable[[Sequence[Members]], Mapping[Members, Drops]],
) -> tuple[int, bool]:
    """Run searches side by side, and put what they ask for into `known`.

    How many sets were asked for, and whether the searches ended within `MOST_SETS`.
    """
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
        if new:
            known.update(measure(new))
    return len(asked), True


@dataclass(eq=False)
class MinimalSets:
    """The search at one output. `found`: the minimal sets of each round, as `steps` goes.

    `drop`: of sets of units; whoever runs the steps adds to it. `chosen`: the candidates, `spare`:
    other units, tried where the candidates do not explain half, and where a candidate is enough
    only beside one; both by what they do alone, largest first. `total`: the effect of removing
    everything attributed, NaN if it is not known. `least`: what a group has to take.
    """

    drop: Mapping[Members, Drops]
    output: int
    chosen: list[int]
    spare: list[int]
    total: float
    unit: str
    found: list[list[Members]] = field(default_factory=list)
    least: float = np.inf

    def value(self, units: Sequence[int]) -> float:
        """The drop without these units: 0 without none, NaN if it is not known."""
        key = tuple(sorted(units))
        return float(self.drop[key][self.output]) if key in self.drop else np.nan if key else 0.0

    def takes(self, units: Sequence[int], target: float) -> bool:
        """Whether removing these takes at least the target, in its direction."""
        return bool(self.value(units) * np.sign(target) >= abs(target) > 0)

    def stand_in(self, units: Sequence[int]) -> bool:
        """Whether these do more than twice as much together as each alone, summed."""
        parts = np.array([[self.value([number]) for number in units]])
        return bool(shows_redundancy(parts, np.array([self.value(units)]), self.unit)[0])

    def is_hidden(self, units: Members) -> bool:
        """Whether these stand in for each other, and no part does half of what all do."""
        half = ENOUGH * self.value(units)
        return self.stand_in(units) and not any(self.takes(s, half) for s in _all_but_one(units))

    def steps(self) -> Steps:
        """Rounds: the minimal sets of what is left, until that does little."""
        ground = self.chosen
        yield [_set(ground)]
        if np.isnan(self.value(ground)):  # some removals must leave a token
            ground = ground[:-1]
            yield [_set(ground)]
        total = self.value(ground) if np.isnan(self.total) else self.total
        if self.spare and not self.takes(ground, ENOUGH * total):
            more = [*ground, *self.spare[: len(ground)]]
            yield [_set(more)]
            ground = ground if np.isnan(self.value(more)) else more
        size = max(abs(total), *(abs(self.value([n])) for n in ground))
        self.least = max(notable_effect(self.unit), EXPLAINS * np.nan_to_num(size))
        explained: set[int] = set()
        for _ in range(_MOST_ROUNDS):
            left = [n for n in ground if n not in explained]
            yield [_set(explained), _set(left)]
            rest = total - self.value(_set(explained))
            before = len(explained)
            # The second: where effects of opposite signs do not hide it.
            if abs(rest) >= self.least and self.takes(left, np.sign(rest) * self.least):
                outside = [n for n in self.spare if n not in {*ground, *explained}]
                explained |= yield from self._round(left, outside)
            explained |= {n for n in ground if abs(self.value([n])) >= self.least}
            if len(explained) == before or explained >= set(ground):
                break
        yield [_set(chain(*sets)) for found in self.found for sets in linked(found)]

    def _round(
        self, ground: list[int], outside: list[int]
    ) -> Generator[list[Members], None, set[int]]:
        """Add to `found` the minimal sets of `ground` that do half of what the first one does.

        What is kept may be enough only beside units `outside`; then these are candidates too.
        Returns the units that are explained.
        """
        first = yield from self._whole(ground)
        target = ENOUGH * self.value(first)
        self.found.append([])
        partners: list[int] = []
        while True:
            every = [*ground, *partners]
            summed = yield from self._all_that_take(every, first, target)
            others = [n for n in outside if n not in partners]
            new = yield from self._partners(every, others, target)
            if not new or len(partners) + len(new) > _MOST_PARTNERS:
                return {*summed, *chain(*self.found[-1])}
            partners += new

    def _whole(self, ground: list[int]) -> Generator[list[Members], None, Members]:
        """A minimal set of which no part does half of what it does: no sum of smaller effects."""
        units: Members = tuple(ground)
        while True:
            units = yield from self._shrunk(units, ENOUGH * self.value(units))
            if len(units) == 1:
                return units
            whole, parts = self.value(units), _all_but_one(units)
            part = max(parts, key=lambda s: self.value(s) * np.sign(whole))
            if not self.takes(part, ENOUGH * whole):
                return units
            units = part

    def _all_that_take(
        self, ground: list[int], first: Members, target: float
    ) -> Generator[list[Members], None, set[int]]:
        """Put the minimal sets of `ground` that take the target last in `found`.

        Only those that are more than the sum of their parts. Of the others the largest part is
        kept from then on; these are returned.
        """
        summed: set[int] = set()
        small = [first, *((n,) for n in ground)]
        small += [pair for pair in self.drop if len(pair) == 2 and set(pair) <= set(ground)]
        taking = smallest(s for s in small if self.takes(s, target))
        self.found[-1] = [s for s in taking if len(s) == 1 or self.is_hidden(s)]
        while len(self.found[-1]) < _MOST_WAYS:
            ways = hitting_sets(self.found[-1], _MOST_WAYS)
            rests = [[n for n in ground if n not in {*way, *summed}] for way in ways]
            yield [_set(rest) for rest in rests]
            ended = [rest for rest in rests if self.takes(rest, target)]
            if not ended:
                break
            new = yield from self._shrunk(ended[0], target)
            if len(new) == 1 or self.is_hidden(new):
                self.found[-1] = smallest([*self.found[-1], new])
            else:
                summed.add(max(new, key=lambda n: abs(self.value([n]))))
        return summed

    def _shrunk(
        self, units: Sequence[int], target: float
    ) -> Generator[list[Members], None, Members]:
        """A set within these units that takes the target, none of whose members can be spared."""
        order = [*self.chosen, *self.spare]
        kept = sorted(units, key=order.index)
        while len(kept) > 1:
            parts = {unit: [n for n in kept if n != unit] for unit in kept}
            yield [_set(part) for part in parts.values()]
            spare = [unit for unit, part in parts.items() if self.takes(part, target)]
            if not spare:
                break
            spare.reverse()  # those that do least alone go first, as many as can go together
            fewer = [[n for n in kept if n not in spare[:k]] for k in range(1, len(spare) + 1)]
            yield [_set(s) for s in fewer]
            kept = [s for s in fewer if self.takes(s, target)][-1]
        return _set(kept)

    def _partners(
        self, ground: list[int], outside: list[int], target: float
    ) -> Generator[list[Members], None, list[int]]:
        """Units outside that something kept needs to be enough; few of them, or none."""
        if not outside or all(len(s) == 1 for s in self.found[-1]):
            return []
        every = {*ground, *outside}
        for way in hitting_sets(self.found[-1], _MOST_WAYS):
            needed: list[int] = []
            pool = outside
            while True:
                rest = every - {*way, *needed}
                yield [_set(rest)]
                if not self.takes(_set(rest), target):
                    break  # enough
                if not pool or len(needed) == _MOST_PARTNERS:
                    needed = []
                    break
                few, many = 0, len(pool)  # `many` of the pool are enough, `few` are not
                while many - few > 1:
                    at = (few + many) // 2
                    without = _set(rest - set(pool[:at]))
                    yield [without]
                    few, many = (at, many) if self.takes(without, target) else (few, at)
                needed.append(pool[many - 1])
                pool = pool[: many - 1]
            if needed:
                return needed
        return []


def _set(units: Sequence[int] | set[int] | chain[int]) -> Members:
    return tuple(sorted(set(units)))


def _all_but_one(units: Members) -> list[Members]:
    return [tuple(n for n in units if n != number) for number in units]
