"""The tables of a page: rows as column to value, every cell made printable.

table([{"circuit": "ours", "ratio": 0.87123}])    # [["circuit", "ratio"], ["ours", "0.8712"]]
"""

from collections.abc import Mapping, Sequence

from mechinterp.core.printable import escape
from mechinterp.report.render.numbers import MINUS
from mechinterp.report.render.tokens import show

Rows = Sequence[Mapping[str, object]]


def captioned(tables: Mapping[str, Rows] | None) -> list[tuple[str, list[list[str]]]]:
    """Each caption with its table."""
    return [(escape(caption), table(rows)) for caption, rows in (tables or {}).items()]


def table(rows: Rows) -> list[list[str]]:
    """The columns' names, then the rows; a number has four digits, a missing value is empty."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [[escape(column) for column in columns]] + [
        [_printed(row.get(column, "")) for column in columns] for row in rows
    ]


def _printed(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", MINUS)
    return show(str(value)) if value != "" else ""
