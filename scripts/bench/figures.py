"""A line of a benchmark's table, which may fall short of what was wanted; and CPU seconds."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A line of the table: what was measured, and what was wanted of it."""

    name: str
    found: float
    wanted: float | None = None
    at_most: bool = True
    note: str = ""

    @property
    def falls_short(self) -> bool:
        if self.wanted is None:
            return False
        return not (self.found <= self.wanted if self.at_most else self.found >= self.wanted)

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        asked = "" if self.wanted is None else f"{sign} {self.wanted:g}"
        mark = "FALLS SHORT" if self.falls_short else ""
        return f"{self.name:64} {self.found:>12.5g} {asked:>10} {mark} {self.note}".rstrip()


def cpu_seconds(call: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """The median of CPU seconds, and what the last call gave."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        found = call()
        taken.append(time.process_time() - began)
    return statistics.median(taken), found
