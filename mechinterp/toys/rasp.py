"""RASP, a language whose programs can be compiled to transformers.

A program is an expression of s-ops; each has a value at every position. `compiler` gives each s-op
a block of directions in the residual stream, and a head or neurons that write it:

    tokens = Tokens("tokens", ("a", "b", "c"))
    same = Select(tokens, tokens, lambda key, query: key == query)
    count = selector_width("count", same, most=5)

A categorical s-op has one direction per value, a numerical one has a single direction. <bos>, which
stands before every prompt, has no word and no index.

Source: Weiss et al. 2021, arXiv 2106.06981; the compilation, Lindner et al. 2023 (Tracr), arXiv
2301.05062.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

Value = Any  # hashable, and a number where an s-op is numerical
Form = Literal["categorical", "numerical"]


@dataclass(frozen=True)
class Neuron:
    """relu(bias + weighted sum of directions), times a vector in the block of the s-op it serves.

    reads: (s-op, direction in its block, weight) triples.
    """

    reads: tuple[tuple["SOp", int, float], ...]
    bias: float
    writes: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class SOp:
    """A value at every position, under a name. Two s-ops are never equal."""

    name: str

    @property
    def values(self) -> tuple[Value, ...]:
        """All values of a categorical s-op; empty for a numerical one."""
        return ()

    @property
    def sources(self) -> tuple["SOp", ...]:
        """The s-ops from which it is computed."""
        return ()

    @property
    def size(self) -> int:
        """The number of directions of its block."""
        return len(self.values) or 1

    def written(self, value: Value | None) -> dict[int, float]:
        """Direction in the block -> what it holds for a value; empty for None."""
        if value is None:
            return {}
        if self.values:
            return {self.values.index(value): 1.0}
        assert isinstance(value, int | float), value
        return {0: float(value)}


@dataclass(frozen=True, eq=False)
class Tokens(SOp):
    """The word at this position."""

    words: tuple[str, ...]

    @property
    def values(self) -> tuple[Value, ...]:
        return self.words


@dataclass(frozen=True, eq=False)
class Indices(SOp):
    """The number of words before this one, in prompts of at most `n` words."""

    n: int

    @property
    def values(self) -> tuple[Value, ...]:
        return tuple(range(self.n))


@dataclass(frozen=True, eq=False)
class Map(SOp):
    """A function of one or two categorical s-ops: one neuron per combination of values."""

    function: Callable[..., Value]
    of: tuple[SOp, ...]
    form: Form = "categorical"

    @property
    def sources(self) -> tuple[SOp, ...]:
        return self.of

    @property
    def values(self) -> tuple[Value, ...]:
        if self.form == "numerical":
            return ()
        return tuple(dict.fromkeys(itertools.starmap(self.function, self._combinations())))

    def neurons(self) -> list[Neuron]:
        """One neuron for each combination whose output is not 0."""
        neurons = []
        for combination in self._combinations():
            # 1 if every direction holds 1, and 0 if one of them holds less than half.
            at = zip(self.of, combination, strict=True)
            reads = tuple((source, source.values.index(value), 2.0) for source, value in at)
            neurons.append(
                Neuron(reads, 1.0 - 2 * len(reads), self.written(self.function(*combination)))
            )
        return [neuron for neuron in neurons if any(neuron.writes.values())]

    def _combinations(self) -> Iterator[tuple[Value, ...]]:
        return itertools.product(*(source.values for source in self.of))


@dataclass(frozen=True, eq=False)
class Steps(SOp):
    """A function of a weighted sum of numerical s-ops: constant except on a few ramps.

    terms: (s-op, weight) pairs.
    ramps: the intervals of the sum between one output and the next, in ascending order.
    outputs: the output below the first ramp, the one above it, and so on; None writes nothing.
    """

    terms: tuple[tuple[SOp, float], ...]
    ramps: tuple[tuple[float, float], ...]
    outputs: tuple[Value | None, ...]
    form: Form = "categorical"

    @property
    def sources(self) -> tuple[SOp, ...]:
        return tuple(source for source, _ in self.terms)

    @property
    def values(self) -> tuple[Value, ...]:
        if self.form == "numerical":
            return ()
        return tuple(dict.fromkeys(value for value in self.outputs if value is not None))

    def neurons(self) -> list[Neuron]:
        """Two neurons per ramp: one rises from its start, the other stops the rise at its end.

        Above the ramp, together, they replace the output below it by the output above it.
        """
        neurons = []
        for (low, high), outputs in zip(self.ramps, itertools.pairwise(self.outputs), strict=True):
            reads = tuple((source, 0, weight / (high - low)) for source, weight in self.terms)
            below, above = (self.written(output) for output in outputs)
            change = {at: above.get(at, 0.0) - below.get(at, 0.0) for at in {**below, **above}}
            back = {at: -by for at, by in change.items()}
            neurons.append(Neuron(reads, -low / (high - low), change))
            neurons.append(Neuron(reads, -high / (high - low), back))
        return neurons


@dataclass(frozen=True, eq=False)
class Select:
    """Which keys a query selects: `predicate(key, query)` on the values of two s-ops."""

    keys: SOp
    queries: SOp
    predicate: Callable[[Any, Any], bool] = field(repr=False)

    def table(self) -> list[list[bool]]:
        """A row for each query, a column for each key."""
        return [
            [bool(self.predicate(key, query)) for key in self.keys.values]
            for query in self.queries.values
        ]

    @property
    def needs_query(self) -> bool:
        """True if queries of different values select different keys."""
        return any(row != self.table()[0] for row in self.table())

    @property
    def needs_key(self) -> bool:
        """True if some query selects some keys and not others."""
        return any(len(set(row)) > 1 for row in self.table())

    @property
    def is_constant(self) -> bool:
        """True if the selection is the same in all prompts of one length."""
        return (is_constant(self.keys) or not self.needs_key) and (
            is_constant(self.queries) or not self.needs_query
        )


@dataclass(frozen=True, eq=False)
class Aggregate(SOp):
    """The mean over the selected keys; for a categorical s-op, the mean of its directions.

    If no key is selected: the value at <bos> if <bos> is no key, else the mean over all keys.
    """

    select: Select
    of: SOp

    @property
    def sources(self) -> tuple[SOp, ...]:
        return (self.select.keys, self.select.queries, self.of)

    @property
    def values(self) -> tuple[Value, ...]:
        return self.of.values


@dataclass(frozen=True, eq=False)
class StartShare(SOp):
    """The attention to <bos> if <bos> is selected too: 1 / (1 + number of selected keys)."""

    select: Select

    @property
    def sources(self) -> tuple[SOp, ...]:
        return (self.select.keys, self.select.queries)


Mapped = TypeVar("Mapped", Map, Steps)


def numerical(mapped: Mapped) -> Mapped:
    """The same s-op, written as a number in one direction."""
    return replace(mapped, form="numerical")


def selector_width(name: str, select: Select, *, most: int) -> Steps:
    """How many keys are selected, 0 to `most`: a head gives the share of <bos>, neurons the count.

    Nothing is written where the share is 0, as at <bos> itself if the predicate reads queries.
    """
    shares = [0.0, *(1 / (1 + count) for count in range(most, -1, -1))]
    gaps = itertools.pairwise(shares)
    ramps = tuple((low + (high - low) / 4, high - (high - low) / 4) for low, high in gaps)
    counts = (None, *range(most, -1, -1))
    return Steps(name, ((StartShare(f"{name}_share", select), 1.0),), ramps, counts)


def is_constant(sop: SOp) -> bool:
    """True if it is the same in all prompts of one length."""
    match sop:
        case Tokens():
            return False
        case Indices():
            return True
        case Aggregate(select=select, of=of):
            return select.is_constant and is_constant(of)
        case StartShare(select=select):
            return select.is_constant
        case _:
            return all(is_constant(source) for source in sop.sources)
