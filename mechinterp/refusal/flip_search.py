"""The search for all smallest sets that flip a score, by fewer measurements than all sets.

It knows no model: a set of word numbers goes in, the score without those words comes out.

>>> from mechinterp.refusal.flip_search import FlipSearch
>>> refuses = lambda gone: 1.0 if not {2, 5} <= gone else -1.0  # either of two words is enough
>>> search = FlipSearch(lambda sets: [refuses(gone) for gone in sets], 12)
>>> [sorted(found) for found in search.run()], search.complete
([[2, 5]], True)
>>> search.n_measured, search.n_in_all
(31, 298)

Three things spare measurements. A set that holds a smaller one that flips is no smallest one. Words
that are idle are told by measuring: each removed alone, each left alone, and groups of them removed
in every context of words that matter. A change by more than `tolerance` times the score's distance
from the threshold is followed by halving to a word, which then matters too. And sets with idle
words are measured all the same if what their words do alone comes to half of that distance. Where
many words matter, as in most real prompts, all sets are measured.

So what is found is always right, and all is found where `tolerance` is 0; else if idle words are
not so made that they matter together and cancel each other in all these tests.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

Words = frozenset[int]
"""The numbers of words that are removed together."""

Measure = Callable[[Sequence[Words]], Sequence[float]]
"""The scores without each of these sets of words."""

SHARE = 0.05
"""Of the cost of all sets, what is spent before tests of idle words stop being repeated."""

TOO_MUCH = 0.2
"""Of the cost of all sets, what may be spent on telling idle words before all sets are measured."""


class FlipSearch:
    """Finds the smallest sets of up to `size` of `n` words that bring a score to the other side.

    over: the threshold. tolerance: of the score's distance from it, how far idle words may move it;
    0 takes no word for idle. most: sets measured before the search is cut short.
    widths: tokens of each word, which tell what a measurement costs; default 1 each.
    allowed: whether a set can be removed.
    """

    def __init__(
        self,
        measure: Measure,
        n: int,
        *,
        size: int = 3,
        over: float = 0.0,
        tolerance: float = 0.25,
        most: int = 5000,
        widths: Sequence[int] | None = None,
        allowed: Callable[[Words], bool] = lambda words: True,
    ) -> None:
        self._measure, self._allowed = measure, allowed
        self._size, self._over, self._tolerance, self._most = size, over, tolerance, most
        self._widths = [1] * n if widths is None else list(widths)
        self._all = frozenset(range(n))
        self._values: dict[Words, float] = {}
        self._rng = random.Random(0)
        self.found: list[Words] = []
        self.active: Words = frozenset()
        self.complete = True

    @property
    def n_measured(self) -> int:
        """How many sets were measured, those of the tests of idle words among them."""
        return len(self._values) - 1

    @property
    def n_in_all(self) -> int:
        """How many sets of up to `size` words there are."""
        return _n_subsets(len(self._all), self._size)

    @property
    def idle(self) -> Words:
        """The words that were found to do nothing."""
        return self._all - self.active

    def value(self, words: Iterable[int]) -> float:
        """The score measured without these words."""
        return self._values[frozenset(words)]

    def run(self) -> list[Words]:
        """All smallest sets found."""
        singles = [frozenset({word}) for word in sorted(self._all)]
        self._run([frozenset(), *singles])
        self.active = frozenset(self._all if self._tolerance == 0 else self._moved_alone())
        if self.idle and not self._should_measure_all():
            self._run([self._all, *(self._all - single for single in singles)])
            self.active |= self._moved_when_left()
            self._find_idle()
        else:
            self.active = self._all
        self._search_active()
        return self.found

    def _find_idle(self) -> None:
        """Test words taken for idle until no test moves the score."""
        n_tests = 1
        while self.idle:
            self._search_active()
            if not self.complete:
                return
            flips = self._flip_by_sums()
            moved = None if flips else self._contradiction(n_tests)
            if flips:
                self.active |= flips
            elif moved:
                self.active |= {self._culprit(*moved)}
            elif n_tests >= self._enough():
                return
            else:
                n_tests += 1
            if (flips or moved) and self._should_measure_all():
                self.active = self._all

    def _flip_by_sums(self) -> Words:
        """Words of sets with idle ones that flip, of those whose single effects reach halfway."""
        whole = self._values[frozenset()]
        alone = {
            word: abs(self._values.get(frozenset({word}), whole) - whole) for word in self.idle
        }
        sets = []
        for context in self._contexts():
            reach = abs(self._values.get(context, whole) - self._over) / 2
            for words in _subsets(self.idle, 1, self._size - len(context)):
                if sum(alone[word] for word in words) >= reach:
                    sets.append(context | words)
        room = max(self._most - self.n_measured, 0)
        self.complete = self.complete and len(sets) <= room
        self._run(sets[:room])
        flipping = (words for words in sets[:room] if words in self._values and self._flips(words))
        return next(flipping, frozenset())

    def _contradiction(self, n_tests: int) -> tuple[Words, Words] | None:
        """A set measured, after its active part, whose idle words move the score."""
        self._run(self._tests(n_tests))
        for words in list(self._values):
            part = words & self.active
            if part == words or self._holds_found(part):
                continue
            self._run([part])
            if self._differs(part, words):
                return part, words
        return None

    def _should_measure_all(self) -> bool:
        """Whether telling idle words has cost, or would cost, too much of what all sets cost."""
        affordable = self.n_in_all <= self._most
        too_much = self._spent() > TOO_MUCH * self._cost_of_all()
        return affordable and (too_much or self._is_cheaper_to_measure_all())

    def _enough(self) -> int:
        """How often idle words are to be tested: the more, the more there is to find."""
        least = 1 if len(self.active) <= 3 else 3
        return 8 if self._spent() < SHARE * self._cost_of_all() else least

    def _search_active(self) -> None:
        """Measure every set of active words that holds no smaller one that flips."""
        self.found = []
        words = self.active
        for size in range(1, self._size + 1):
            chosen = self._most_promising(words, size)
            sets = [
                words
                for words in _subsets(chosen, size, size)
                if self._allowed(words) and not self._holds_found(words)
            ]
            self._run(sets)
            self.found += [words for words in sets if self._flips(words)]
            if size == 1:  # all larger sets that hold one of these hold a smaller one that flips
                words = words.difference(*self.found)

    def _most_promising(self, words: Words, size: int) -> Words:
        """The words, or, where they make too many sets, those that move the score most alone."""
        room, n = max(self._most - self.n_measured, 0), len(words)
        if size == 1 or math.comb(n, size) <= room + sum(len(s) == size for s in self._values):
            return words
        self.complete = False
        whole = self._values[frozenset()]

        def moved(word: int) -> float:
            return abs(self._values.get(frozenset({word}), whole) - whole)

        kept = max(k for k in range(n + 1) if math.comb(k, size) <= room)
        return frozenset(sorted(words, key=lambda word: (-moved(word), word))[:kept])

    def _tests(self, n: int) -> list[Words]:
        """Groups of idle words, removed in every context in which they might matter."""
        idle, tests = sorted(self.idle), []
        for context in self._contexts():
            tests.append(context | self.idle)
            if self._size - len(context) > 1:
                for _ in range(n):
                    half = frozenset(self._rng.sample(idle, (len(idle) + 1) // 2))
                    tests += [context | half, context | (self.idle - half)][: 1 + (not context)]
        return tests

    def _contexts(self) -> Iterator[Words]:
        """The sets of active words that flip nothing and leave room for an idle word."""
        for context in _subsets(self.active, 0, self._size - 1):
            if not self._holds_found(context):
                yield context

    def _culprit(self, part: Words, words: Words) -> int:
        """An idle word that moves the score on the way from one set to the larger one."""
        added = sorted(words - part)
        while len(added) > 1:
            half = len(added) // 2
            middle = part | set(added[:half])
            self._run([middle])
            if not self._allowed(middle):
                return added[0]
            before = abs(self._values[middle] - self._values[part])
            behind = abs(self._values[words] - self._values[middle])
            if before >= behind:
                words, added = middle, added[:half]
            else:
                part, added = middle, added[half:]
        return added[0]

    def _moved_alone(self) -> list[int]:
        whole = frozenset[int]()
        return [word for word in self._all if self._differs(whole, frozenset({word}))]

    def _moved_when_left(self) -> Words:
        """The words that move the score where they alone are left."""
        if self._all not in self._values:
            return frozenset()
        others = {word: self._all - {word} for word in self._all}
        return frozenset(word for word, rest in others.items() if self._differs(self._all, rest))

    def _is_cheaper_to_measure_all(self) -> bool:
        """Whether the tests of idle words would cost more sets than measuring all of them."""
        single = sum(self._flips(frozenset({word})) for word in self.active)
        active = len(self.active) - single
        left = _n_subsets(active + len(self.idle), self._size) - _n_subsets(active, self._size)
        return left <= 2 * _n_subsets(active, self._size - 1) + 2 + len(self._all)

    def _differs(self, first: Words, second: Words) -> bool:
        """Whether two sets move the score apart; a set that cannot be removed tells nothing."""
        if first not in self._values or second not in self._values:
            return False
        one, other = self._values[first], self._values[second]
        return abs(other - one) > self._tolerance * abs(one - self._over)

    def _flips(self, words: Words) -> bool:
        return (self._values[words] > self._over) != (self._values[frozenset()] > self._over)

    def _holds_found(self, words: Words) -> bool:
        return any(found <= words for found in self.found)

    def _run(self, sets: Iterable[Words]) -> None:
        """Measure the sets that can be removed and were not measured."""
        new = [
            words
            for words in dict.fromkeys(sets)
            if words not in self._values and self._allowed(words)
        ]
        if new:
            self._values |= dict(zip(new, self._measure(new), strict=True))

    def _cost(self, words: Words) -> int:
        return 1 + sum(self._widths[word] for word in self._all - words)

    def _spent(self) -> int:
        return sum(self._cost(words) for words in self._values)

    def _cost_of_all(self) -> float:
        n, width = len(self._all), sum(self._widths)
        return sum(
            math.comb(n, size) * (1 + width * (1 - size / n)) for size in range(1, self._size + 1)
        )


def _subsets(words: Iterable[int], least: int, most: int) -> Iterator[Words]:
    ordered = sorted(words)
    for size in range(least, most + 1):
        yield from map(frozenset, itertools.combinations(ordered, size))


def _n_subsets(n: int, most: int) -> int:
    """How many sets of 1 to `most` of `n` there are."""
    return sum(math.comb(n, size) for size in range(1, most + 1))
