"""A token-attribution result as one HTML file: offline, no server, nothing fetched.

All numbers are in the markup, so the page can be read without JavaScript; the script only adds the
choice of an output and the details on hover and focus. Tokens are text everywhere: the template
escapes them, and a Content-Security-Policy lets this page's own script and style run, nothing else.

    Path("report.html").write_text(attribution_page(scores), encoding="utf-8")
"""

from collections.abc import Sequence
from typing import Any

import xarray as xr

from mechinterp.report import numbers, tokens
from mechinterp.report.colours import colour_class
from mechinterp.report.comparisons import (
    AS_EXPECTED,
    NOT_AS_EXPECTED,
    PARTLY,
    Comparison,
    split_for_show,
)
from mechinterp.report.costs import costs
from mechinterp.report.reading import InputToken, Reading, Row, read_scores
from mechinterp.report.shell import bar_shape, page
from mechinterp.report.summary import headline, sentence

_BADGES = {AS_EXPECTED: ("good", "✓"), PARTLY: ("partly", "◐"), NOT_AS_EXPECTED: ("bad", "✕")}
_MOST_SENTENCES = 8
_LONGEST_RUN = 24  # characters of the prompt that are kept on one line


def attribution_page(
    scores: xr.DataArray,
    comparisons: Sequence[Comparison] = (),
    *,
    title: str = "Token attribution",
) -> str:
    """The whole page: summary, verdicts, prompt, heat map, all scores, BOS control, cost.

    Raises:
        ValueError: if `scores` lacks a dimension or a coordinate, or is empty.
    """
    reading = read_scores(scores)
    shown_first, shown_on_demand = split_for_show(comparisons)
    return page(
        "page.html",
        ["page.css"],
        "page.js",
        title=title,
        payload=_payload(reading),
        reading=reading,
        badges=_BADGES,
        unbroken=_unbroken(reading.inputs),
        comparisons=comparisons,
        shown_first=shown_first,
        shown_on_demand=shown_on_demand,
        headline=headline(reading),
        sentences=[sentence(reading, row) for row in reading.rows[:_MOST_SENTENCES]],
        short=numbers.NumberFormat.of(reading.largest),
        exact=numbers.NumberFormat.of(reading.largest, extra=3),
        costs=costs(reading.attrs),
    )


def _unbroken(inputs: Sequence[InputToken]) -> list[list[int]]:
    """Indices of the input tokens in runs that one line should hold: a word and what clings to it.

    A token that breaks the line is a run of its own.
    """
    runs: list[list[int]] = []
    n_chars = 0
    for index, found in enumerate(inputs):
        previous = inputs[index - 1] if index else found
        clings = not found.token.startswith(" ") and found.role == previous.role == "text"
        breaks = "\n" in found.token or "\n" in previous.token
        n_chars += len(found.token)
        if runs and clings and not breaks and n_chars <= _LONGEST_RUN:
            runs[-1].append(index)
        else:
            runs.append([index])
            n_chars = len(found.token)
    return runs


def _payload(reading: Reading) -> dict[str, Any]:
    """What the script needs to show another output: everything printed, nothing left to compute."""
    return {
        "unit": reading.unit,
        "n_outputs": len(reading.rows),
        "inputs": [
            {"token": tokens.show(i.token), "pos": i.pos, "id": i.token_id, "role": i.role}
            for i in reading.inputs
        ],
        "rows": [_row_payload(reading, row) for row in reading.all_rows],
    }


def _row_payload(reading: Reading, row: Row) -> dict[str, Any]:
    largest = reading.largest
    exact = numbers.NumberFormat.of(largest, extra=3)
    return {
        "token": tokens.show(row.token) if row.token else "",
        "exact": [exact(score) for score in row.scores],
        "colour": [colour_class(score, largest) for score in row.scores],
        "bar": [bar_shape(score, largest) for score in row.scores],
        "rank": row.ranks,
        "n_ranked": row.n_ranked,
        "share": [numbers.percent(share) for share in row.shares],
        "flips": row.n_flips,
        "order": row.order,
    }
