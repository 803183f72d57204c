"""Sets of units that have to go, and what each of them leaves: hitting sets of one another.

An effect ends when all units of one of several sets are removed. It stays as long as one unit of
each set is kept, so a smallest set of units that keeps it up holds one of each. Sets and their
smallest hitting sets are each other's: from one follows the other.

>>> from mechinterp.attribution.methods.hitting_sets import hitting_sets, pivotal_shares
>>> hitting_sets([(1, 3, 4), (1, 3, 5)])  # 1, 3, and 4 with 5 are each enough
[(1,), (3,), (4, 5)]
>>> {unit: round(share, 2) for unit, share in pivotal_shares([(1,), (3,), (4, 5)]).items()}
{1: 0.42, 3: 0.42, 4: 0.08, 5: 0.08}

Sources: Berge 1989, Hypergraphs, chapter 2; Shapley 1953 for the shares.
"""

import itertools
import math
from collections.abc import Iterable, Sequence

Members = tuple[int, ...]
"""The numbers of units, in order."""

_MOST_EXACT = 12
"""With more units than this their shares are equal: exact ones take every subset."""


def hitting_sets(sets: Sequence[Members], most: int = 256) -> list[Members]:
    """The smallest sets that share a unit with each of `sets`, shortest first.

    Where there are more than `most` at any step, the longest are left out.
    """
    found: list[Members] = [()]
    for chosen in sets:
        grown = (
            old if set(old) & set(chosen) else (*old, unit) for old in found for unit in chosen
        )
        found = smallest(grown)[:most]
    return found


def smallest(sets: Iterable[Members]) -> list[Members]:
    """Those that contain no other, shortest first, then by their numbers."""
    kept: list[frozenset[int]] = []
    for each in sorted(map(frozenset, sets), key=lambda s: (len(s), sorted(s))):
        if not any(other <= each for other in kept):
            kept.append(each)
    return [tuple(sorted(each)) for each in kept]


def linked(sets: Sequence[Members]) -> list[list[Members]]:
    """The sets in lists, so that sets of different lists share no unit."""
    found: list[list[Members]] = []
    for each in sets:
        touching = [old for old in found if any(set(each) & set(other) for other in old)]
        found = [old for old in found if old not in touching]
        found.append([*itertools.chain(*touching), each])
    return found


def pivotal_shares(enough: Sequence[Members]) -> dict[int, float]:
    """Each unit's Shapley value where every one of these sets is enough for an effect of 1.

    That is how often it ends the effect, when units are removed in random order.
    """
    units = sorted(set(itertools.chain(*enough)))
    n = len(units)
    if n > _MOST_EXACT:
        return dict.fromkeys(units, 1 / n)
    sets = [frozenset(each) for each in enough]
    shares = dict.fromkeys(units, 0.0)
    for size in range(n):
        weight = 1 / (n * math.comb(n - 1, size))
        for kept in map(frozenset, itertools.combinations(units, size)):
            if not any(each <= kept for each in sets):
                for unit in units:
                    if unit not in kept and any(each <= kept | {unit} for each in sets):
                        shares[unit] += weight
    return shares
