"""The attributes of a comparison with the user's expectation that a view needs.

`mechinterp.attribution` makes the comparisons; a view accepts any value that has these attributes.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

AS_EXPECTED = "as expected"
PARTLY = "partly as expected"
NOT_AS_EXPECTED = "not as expected"


@runtime_checkable
class RankedInput(Protocol):
    """One input token with its rank, its score and its share (0 to 1) of the absolute scores."""

    @property
    def input(self) -> int: ...
    @property
    def token(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def share(self) -> float: ...


@runtime_checkable
class Comparison(Protocol):
    """Do the expected tokens drive this output? `output` None stands for all outputs together."""

    @property
    def output(self) -> int | None: ...
    @property
    def output_token(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def expected(self) -> tuple[RankedInput, ...]: ...
    @property
    def unexpected_above(self) -> tuple[RankedInput, ...]: ...
    @property
    def k(self) -> int: ...
    @property
    def precision_at_k(self) -> float: ...
    @property
    def average_precision(self) -> float: ...
    @property
    def share_of_mass(self) -> float: ...
    @property
    def p_value(self) -> float: ...


def split_for_show(
    comparisons: Sequence[Comparison],
) -> tuple[Sequence[Comparison], Sequence[Comparison]]:
    """The comparisons to show in full and in brief: of more than two, only the first in full."""
    n_full = len(comparisons) if len(comparisons) <= 2 else 1
    return comparisons[:n_full], comparisons[n_full:]
