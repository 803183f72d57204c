"""A token-attribution result as one HTML file: offline, no server, nothing fetched.

All numbers are in the markup, so the page can be read without JavaScript; the script only adds the
choice of an output and of a level, and the details on hover and focus. Tokens are text everywhere:
the template escapes them, and a Content-Security-Policy lets this page's own script and style run,
nothing else.

    Path("report.html").write_text(attribution_page(scores), encoding="utf-8")
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypedDict

import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.report.attribution.agreement import Beside, read_beside
from mechinterp.report.attribution.comparisons import (
    AS_EXPECTED,
    NOT_AS_EXPECTED,
    PARTLY,
    Comparison,
    split_for_show,
)
from mechinterp.report.attribution.faithfulness import CHANCE, Faithfulness, read_faithfulness
from mechinterp.report.attribution.inputs import fits_a_line, unbroken
from mechinterp.report.attribution.interactions import (
    NEED,
    STAND_IN,
    Interactions,
    Pair,
    meaning,
    read_interactions,
)
from mechinterp.report.attribution.levels import (
    Level,
    Scores,
    check_outputs,
    listed,
    read_levels,
    where_at,
)
from mechinterp.report.attribution.read import Reading, Row
from mechinterp.report.attribution.summary import additivity, headline, redundancies, sentence
from mechinterp.report.render import numbers, tokens
from mechinterp.report.render.chart import Dot, curves, scatter
from mechinterp.report.render.colours import colour_class
from mechinterp.report.render.costs import Cost, costs
from mechinterp.report.render.page_shell import bar_shape, page, whisker_shape
from mechinterp.report.render.phrases import plain
from mechinterp.report.render.support import legend_ends, sign_sentence

_BADGES = {AS_EXPECTED: ("good", "✓"), PARTLY: ("partly", "◐"), NOT_AS_EXPECTED: ("bad", "✕")}
_MOST_SENTENCES = 8
_MOST_PAIRS, _FEWEST_PAIRS = 10, 3
_MOST_PLACES = 6
_N_NAMED_FAR, _N_NAMED_LARGE = 4, 2  # dots of a scatter that carry their name


@checks_arguments
def attribution_page(
    scores: Scores | Mapping[str, Scores] | Sequence[Scores],
    comparisons: Sequence[Comparison] = (),
    *,
    interactions: xr.Dataset | None = None,
    faithfulness: xr.Dataset | None = None,
    beside: Scores | Mapping[str, Scores] | None = None,
    title: str = "Token attribution",
) -> str:
    """The whole page: summary, warnings, verdicts, prompt, heat map, all scores, controls, cost.

    `scores`: a result; or several of one question by the name of their level ("word", "token"), or
    in a sequence, as `attribute_by_level` gives them, between which the page switches.
    `interactions`: the dataset of `attribute_pairs`; if `scores` is such a dataset, its own.
    `faithfulness`: the dataset of that name for this prompt, or of `summarise` for several.
    `beside`: another result of the same prompt, units and outputs, or several by name.

    Raises:
        ValueError: if `scores` lacks a dimension or a coordinate, or is empty; if what is shown
            together is of other outputs or units.
    """
    levels = read_levels(scores)
    first = levels[0].reading
    pairs = _pairs(scores, interactions)
    if pairs:
        check_outputs(first, [row.token for row in pairs.reading.rows], "interactions")
    faithful = None if faithfulness is None else read_faithfulness(faithfulness)
    if faithful and not faithful.has_intervals:
        theirs = [row.token for row in faithful.rows if row.output is not None]
        check_outputs(first, theirs, "faithfulness")
    others = None if beside is None else read_beside(levels, beside)
    shown_first, shown_on_demand = split_for_show(comparisons)
    warned = [pairs.reading] if pairs else []
    return page(
        "page.html",
        ["page.css"],
        ["page.js"],
        title=title,
        payload=_payload(levels),
        reading=first,
        views=[_view(level) for level in levels],
        badges=_BADGES,
        comparisons=comparisons,
        shown_first=shown_first,
        shown_on_demand=shown_on_demand,
        where=lambda found: where_at(levels, found.input, found.token),
        headline=headline(first),
        sign=sign_sentence(first.supports, "the output", "the input"),
        sentences=[sentence(first, row) for row in first.rows[:_MOST_SENTENCES]],
        warnings=redundancies([*warned, *(level.reading for level in levels)]),
        pairs=pairs and _pairs_view(pairs),
        faithful=faithful and _faithful_view(faithful),
        beside=others and _beside_view(others, levels),
        costs=list(_all_costs(levels, pairs, others, faithful)),
        **_formats(first),
    )


def _pairs(
    scores: Scores | Mapping[str, Scores] | Sequence[Scores], interactions: xr.Dataset | None
) -> Interactions | None:
    """The given interactions, else the first that are part of a result."""
    for found in listed(scores).values():
        if interactions is None and isinstance(found, xr.Dataset) and "interaction" in found:
            interactions = found
    return None if interactions is None else read_interactions(interactions)


class _Formats(TypedDict):
    """How scores are printed: `short` in a cell, `exact` in a table."""

    short: numbers.NumberFormat
    exact: numbers.NumberFormat
    plus_minus: Callable[[float], str]


def _formats(reading: Reading) -> _Formats:
    exact = numbers.NumberFormat.of(reading.largest, extra=3)
    return {
        "short": numbers.NumberFormat.of(reading.largest),
        "exact": exact,
        "plus_minus": lambda error: numbers.plus_minus(exact, error),
    }


def _view(level: Level) -> dict[str, object]:
    """A level, and what the template needs to set its prompt."""
    return {"name": level.name, **_flow(level.reading), **_formats(level.reading)} | {
        "additivity": [additivity(level.reading, row) for row in level.reading.all_rows],
        "ends": legend_ends(level.reading.supports, "the output"),
    }


def _flow(reading: Reading) -> dict[str, object]:
    runs = unbroken(reading.segments)
    return {
        "reading": reading,
        "runs": [(run, fits_a_line(run, reading.segments)) for run in runs],
    }


def _pairs_view(pairs: Interactions) -> dict[str, object]:
    return {
        "found": pairs,
        "shown": [_worth_a_line(pairs, row.pairs) for row in pairs.rows],
        "meaning": lambda interaction: meaning(interaction, pairs.least),
        "short": numbers.NumberFormat.of(pairs.largest),
        "exact": numbers.NumberFormat.of(pairs.scale, extra=1),
    }


def _worth_a_line(pairs: Interactions, row: Sequence[Pair]) -> Sequence[Pair]:
    """The largest pairs that interact; if none do, a few of the others."""
    linked = [p for p in row if meaning(p.interaction, pairs.least) in (STAND_IN, NEED)]
    return linked[:_MOST_PAIRS] or row[:_FEWEST_PAIRS]


def _beside_view(beside: Beside, levels: Sequence[Level]) -> dict[str, object]:
    readings = [(beside.name, beside.level.reading)]
    readings += [(other.name, other.reading) for other in beside.others]
    return {
        "flows": [{"name": name, **_flow(r), **_formats(r)} for name, r in readings],
        "others": [
            {
                "name": other.name,
                "exact": numbers.NumberFormat.of(other.reading.largest, extra=3),
                "agreements": other.agreements,
                "charts": [_chart(beside, i, r) for r in range(len(other.agreements))],
            }
            for i, other in enumerate(beside.others)
        ],
        "name": beside.name,
        "v": levels.index(beside.level),
        "most": _MOST_PLACES,
    }


def _chart(beside: Beside, number: int, r: int) -> str:
    """The scores of one output in two results, against each other."""
    other = beside.others[number]
    places = other.agreements[r].places
    large = sorted(places, key=lambda place: -abs(place.one))[:_N_NAMED_LARGE]
    named = {place.index for place in [*large, *places[:_N_NAMED_FAR]]}
    dots = [
        Dot(p.one, p.other, tokens.shorten(tokens.show(p.shown.label), 16), p.index in named)
        for p in places
    ]
    ours, theirs = beside.level.reading.unit, other.reading.unit
    axes = [
        f"{name}, {unit}" if unit else name
        for name, unit in (
            (beside.name, escape(ours)),
            (escape(other.name), escape(theirs)),
        )
    ]
    return scatter(dots, x=axes[0], y=axes[1])


def _faithful_view(found: Faithfulness) -> dict[str, object]:
    figures = [f for row in found.rows for p in row.panels for fs in p.figures.values() for f in fs]
    sizes = [abs(f.value) for f in figures if math.isfinite(f.value)]
    drop = f"drop of the score, {escape(found.unit)}".removesuffix(", ")
    x = "share of the inputs removed"
    return {
        "found": found,
        "form": numbers.NumberFormat.of(max(sizes, default=0.0), extra=1),
        "ratio": numbers.NumberFormat("+.2f"),
        "chance": CHANCE,
        "charts": [
            [
                (curves(p.most_first, x=x, y=drop), curves(p.least_first, x=x, y=drop))
                for p in row.panels
            ]
            for row in found.rows
        ],
    }


def _all_costs(
    levels: Sequence[Level],
    pairs: Interactions | None,
    beside: Beside | None,
    faithful: Faithfulness | None,
) -> Iterator[tuple[str, tuple[Cost, ...]]]:
    """What each result cost, under its name where there are several."""
    for level in levels:
        yield level.name, costs(level.reading.attrs)
    if pairs and all(pairs.attrs.get("seconds") != x.reading.attrs.get("seconds") for x in levels):
        yield "pairs", costs(pairs.attrs)
    for other in beside.others if beside else ():
        yield other.name, costs(other.reading.attrs)
    if faithful:
        yield "faithfulness", costs(faithful.attrs)


def _payload(levels: Sequence[Level]) -> dict[str, object]:
    """What the script shows for each output: everything as text, nothing left to compute."""
    return {
        "n_outputs": len(levels[0].reading.rows),
        "outputs": [
            tokens.shorten(tokens.show(row.token)) if row.output is not None else ""
            for row in levels[0].reading.all_rows
        ],
        "levels": [
            {
                "unit": escape(level.reading.unit),
                "inputs": [
                    {
                        "label": tokens.show(i.label),
                        "where": i.where,
                        "id": i.token_id,
                        "role": i.role,
                    }
                    for i in level.reading.inputs
                ],
                "rows": [_row_payload(level.reading, row) for row in level.reading.all_rows],
            }
            for level in levels
        ],
    }


def _row_payload(reading: Reading, row: Row) -> dict[str, object]:
    largest = reading.largest
    exact = numbers.NumberFormat.of(largest, extra=3)
    return {
        "exact": [exact(score) for score in row.scores],
        "error": [numbers.plus_minus(exact, error) for error in row.errors],
        "colour": [colour_class(score, largest, reading.supports) for score in row.scores],
        "bar": [bar_shape(score, largest, reading.supports) for score in row.scores],
        "whisker": [
            whisker_shape(score - error, score + error, largest)
            for score, error in zip(row.scores, row.errors, strict=True)
        ],
        "rank": row.ranks,
        "n_ranked": row.n_ranked,
        "share": [numbers.percent(share) for share in row.shares],
        "flips": row.n_flips,
        "order": row.order,
        "adds_up": plain(additivity(reading, row)),
    }
