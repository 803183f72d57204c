"""How numbers are printed: signed scores, shares, counts, bytes, times.

Results are not rounded: only what is printed is cut.

    NumberFormat.of(7.91)(-2.44) == "−2.4"
"""

import math
from dataclasses import dataclass

MINUS = "−"
MISSING = "–"


@dataclass(frozen=True)
class NumberFormat:
    """How a signed score is printed: `spec` is a Python format, the same for a whole table."""

    spec: str

    @classmethod
    def of(cls, largest: float, *, extra: int = 0) -> "NumberFormat":
        """The format in which the largest |score| shows two digits, plus `extra` ones.

        Below 100 at least one digit follows the point, so that 0.4 beside +10 is not shown as 0.
        """
        if not math.isfinite(largest) or largest <= 0:
            return cls(f"+.{1 + extra}f")
        magnitude = math.floor(math.log10(largest))
        if not -3 <= magnitude < 5:
            return cls(f"+.{1 + extra}e")
        return cls(f"+.{max(1 - magnitude, int(magnitude < 2)) + extra}f")

    def __call__(self, value: float) -> str:
        """The number with its sign; `–` for NaN, and no sign on what rounds to zero."""
        if math.isnan(value):
            return MISSING
        if math.isinf(value):
            return "+∞" if value > 0 else f"{MINUS}∞"
        text = format(value, self.spec)
        if float(text) == 0:
            text = text.lstrip("+-")
        return text.replace("-", MINUS)


def plus_minus(form: NumberFormat, error: float) -> str:
    """A standard error in the format of the scores; nothing if there is none."""
    return f"± {form(abs(error)).lstrip('+')}" if math.isfinite(error) else ""


def percent(share: float) -> str:
    """A share from 0 to 1 in per cent, one digit after the point."""
    return f"{100 * share:.1f}%" if math.isfinite(share) else MISSING


def times(ratio: float) -> str:
    """A ratio in whole per cent; from ten times on, as times."""
    if not math.isfinite(ratio):
        return MISSING
    text = f"{ratio:,.0f} times" if abs(ratio) >= 10 else f"{round(100 * ratio)}%"
    return text.replace("-", MINUS)


def probability(p: float) -> str:
    """A p value to two significant digits, `< 0.0001` below that."""
    if not math.isfinite(p):
        return MISSING
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def count(number: float) -> str:
    """A whole number with a comma every three digits."""
    return f"{number:,.0f}" if math.isfinite(number) else MISSING


def n_bytes(number: float) -> str:
    """Bytes in the unit of 1024 that leaves one to four digits."""
    if not math.isfinite(number):
        return MISSING
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def seconds(duration: float) -> str:
    """A duration in ms, s or min."""
    if not math.isfinite(duration):
        return MISSING
    if duration < 1:
        return f"{1000 * duration:.0f} ms"
    if duration < 120:
        return f"{duration:.1f} s"
    return f"{duration // 60:.0f} min {duration % 60:.0f} s"
