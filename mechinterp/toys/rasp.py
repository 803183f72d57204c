"""RASP, a language whose programs are transformers: what a model computes, not yet how.

A program is an expression of s-ops, each a value at every position. `compiler` gives each s-op a
block of directions in the residual stream, and a head or neurons that write it:

    tokens = Tokens("tokens", ("a", "b", "c"))
    same = Select(tokens, tokens, lambda key, query: key == query)
    count = selector_width("count", same, most=5)

A categorical s-op has a direction for each value that it can take, a numerical one has one
direction. Words and indices are no values of <bos>, which stands before every prompt.

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
        """All that a categorical s-op can be; empty for a numerical one."""
        return ()

    @property
    def sources(self) -> tuple["SOp", ...]:
        """The s-ops that it is computed from."""
        return ()

    @property
    def size(self) -> int:
        return len(self.values) or 1

    def written(self, value: Value | None) -> dict[int, float]:
        """What stands for a value in the block; nothing does for None."""
        if value is None:
            return {}
        if self.values:
            return {self.values.index(value): 1.0}
        assert isinstance(value, int | float), value
        return {0: float(value)}


@dataclass(frozen=True, eq=False)
class Tokens(SOp):
    """The word that stands here."""

    words: tuple[str, ...]

    @property
    def values(self) -> tuple[Value, ...]:
        return self.words


@dataclass(frozen=True, eq=False)
class Indices(SOp):
    """How many words stand before this one, of at most `n` words in all."""

    n: int

    @property
    def values(self) -> tuple[Value, ...]:
        return tuple(range(self.n))


@dataclass(frozen=True, eq=False)
class Map(SOp):
    """A function of one categorical s-op or of two: a neuron for each combination of values."""

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
        """One for each combination whose output is not 0."""
        neurons = []
        for combination in self._combinations():
            # 1 where every value stands in full, 0 where a direction holds less than half.
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
    """A function of a weighted sum of numerical s-ops that is flat but for a few ramps.

    terms: (s-op, weight) pairs.
    ramps: from where to where the sum lies between one output and the next, in ascending order.
    outputs: the output below the first ramp, that after it, and so on; None writes nothing.
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
        """Two for each ramp: one that rises from its start, one that takes that off from its end.

        Where they write 1, the output below the ramp has gone and that above it is there.
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
    """Which keys a query looks at: `predicate(key, query)` on the values of two s-ops."""

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
        return any(row != self.table()[0] for row in self.table())

    @property
    def needs_key(self) -> bool:
        return any(len(set(row)) > 1 for row in self.table())

    @property
    def is_constant(self) -> bool:
        return (is_constant(self.keys) or not self.needs_key) and (
            is_constant(self.queries) or not self.needs_query
        )


@dataclass(frozen=True, eq=False)
class Aggregate(SOp):
    """The mean over the keys that are selected; of a categorical s-op, of its directions.

    Where no key is selected, what stands at <bos> if that has no value as a key, else the mean.
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
    """What <bos> gets of the attention if it is selected too: 1 / (1 + keys that are selected)."""

    select: Select

    @property
    def sources(self) -> tuple[SOp, ...]:
        return (self.select.keys, self.select.queries)


Mapped = TypeVar("Mapped", Map, Steps)


def numerical(mapped: Mapped) -> Mapped:
    """The same, written as a number in one direction."""
    return replace(mapped, form="numerical")


def selector_width(name: str, select: Select, *, most: int) -> Steps:
    """How many keys are selected, 0 to `most`; a head finds the share of <bos>, neurons the count.

    Nothing is written where the share is 0, as it is at <bos> itself if queries matter.
    """
    shares = [0.0, *(1 / (1 + count) for count in range(most, -1, -1))]
    gaps = itertools.pairwise(shares)
    ramps = tuple((low + (high - low) / 4, high - (high - low) / 4) for low, high in gaps)
    counts = (None, *range(most, -1, -1))
    return Steps(name, ((StartShare(f"{name}_share", select), 1.0),), ramps, counts)


def is_constant(sop: SOp) -> bool:
    """Whether it is the same in all prompts of one length."""
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
