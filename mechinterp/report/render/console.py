"""How a view writes to the terminal: plain text, in the characters that the console has.

It is the door of all views: an escape sequence in a label is shown as its code, and rich markup in
one as it is written. What is not a view goes through `commands.terminal`.

    Pen(console).line("␣Mary", "bold")
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from mechinterp.core.printable import printable
from mechinterp.report.render.costs import Cost

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_TO_ASCII = str.maketrans(
    {"␣": "_", "↵": "\\n", "⇥": "\\t", "−": "-", "–": "-", "…": "~", "◆": "*", "×": "x", "·": ";"}
    | {"✓": "+", "✗": "x", "∞": "inf", "█": "#", "▒": "-", "±": "+-", "↑": "^", "↓": "v"}
    | dict.fromkeys("▋▊▉▌", "#")
    | dict.fromkeys("▏▎▍", " ")
)


@dataclass(frozen=True)
class Pen:
    """Prints text with nothing hidden in it, in the characters that the console's encoding has."""

    console: Console

    def text(self, text: str, style: str = "") -> Text:
        text, encoding = printable(text), self.console.encoding
        if not encoding.lower().startswith("utf"):
            text = text.translate(_TO_ASCII).encode(encoding, "backslashreplace").decode(encoding)
        return Text(text, style=style)

    def line(self, text: str, style: str = "") -> None:
        self.console.print(self.text(text, style), highlight=False)


def bar(score: float, largest: float, width: int) -> str:
    """A bar of at most `width` columns: solid, to an eighth, if positive; shaded if negative."""
    if largest <= 0:
        return ""
    length = width * abs(score) / largest
    if score < 0:
        return "▒" * round(length)
    full, eighth = divmod(round(8 * length), 8)
    return ("█" * full + _EIGHTHS[eighth]).rstrip()


def cut(text: str, width: int) -> str:
    """The text, or its start and `…`, at most `width` columns wide."""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def costs_line(costs: Iterable[Cost]) -> str:
    """All costs on one line."""
    return " · ".join(
        f"{cost.label}: {cost.value}" + (f" ({cost.note})" if cost.note else "") for cost in costs
    )
