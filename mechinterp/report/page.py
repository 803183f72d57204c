"""A token-attribution result as one HTML file: offline, no server, nothing fetched.

All numbers are in the markup, so the page can be read without JavaScript; the script only adds the
choice of an output and the details on hover and focus. Tokens are text everywhere: the template
escapes them, and a Content-Security-Policy lets this page's own script and style run, nothing else.

    Path("report.html").write_text(attribution_page(scores), encoding="utf-8")
"""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import xarray as xr
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mechinterp.report import numbers, tokens
from mechinterp.report.colours import colour_class, scale_classes, scale_css
from mechinterp.report.comparisons import (
    AS_EXPECTED,
    NOT_AS_EXPECTED,
    PARTLY,
    Comparison,
    split_for_show,
)
from mechinterp.report.costs import costs
from mechinterp.report.reading import InputToken, Reading, Row, read_scores
from mechinterp.report.summary import headline, sentence

_TEMPLATES = Path(__file__).parent / "templates"
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
    style = f"{_read('page.css')}\n{scale_css()}\n"
    script = _read("page.js")
    shown_first, shown_on_demand = split_for_show(comparisons)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=tokens.escape(title),
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            payload=_json(_payload(reading)),
            reading=reading,
            unbroken=_unbroken(reading.inputs),
            comparisons=comparisons,
            shown_first=shown_first,
            shown_on_demand=shown_on_demand,
            headline=headline(reading),
            sentences=[sentence(reading, row) for row in reading.rows[:_MOST_SENTENCES]],
            short=numbers.NumberFormat.of(reading.largest),
            exact=numbers.NumberFormat.of(reading.largest, extra=3),
            costs=costs(reading.attrs),
            scale=scale_classes(),
        )
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


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "token": _token,
        "flow": tokens.flow,
        "printable": tokens.escape,
        "percent": numbers.percent,
        "probability": numbers.probability,
    }
    environment.globals |= {
        "colour_class": colour_class,
        "bar": _bar,
        "badges": _BADGES,
        "marked": _marked,
    }
    return environment


def _token(token: str) -> Markup:
    """A token made printable, isolated from the text around it, its end spaces set paler."""
    return _marked(tokens.show(token))


def _marked(shown: str) -> Markup:
    core = shown.strip(tokens.SPACE)
    before, _, after = shown.partition(core) if core else (shown, "", "")
    spaces = [Markup('<span class="ws">{}</span>').format(s) if s else "" for s in (before, after)]
    return Markup('<bdi class="tok">{}{}{}</bdi>').format(spaces[0], core, spaces[1])


def _bar(score: float, largest: float) -> Markup:
    """A bar from the middle: to the right for a positive score, to the left for a negative one."""
    x, width, side = _bar_shape(score, largest)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="axis" x="49.75" width="0.5" height="8"/>'
        '<rect class="{}" x="{}" y="1" width="{}" height="6"/></svg>'
    ).format(side, x, width)


def _bar_shape(score: float, largest: float) -> tuple[float, float, str]:
    if not math.isfinite(score) or largest <= 0:
        return 50.0, 0.0, "zero"
    width = round(50 * abs(score) / largest, 2)
    return (50.0, width, "positive") if score >= 0 else (round(50 - width, 2), width, "negative")


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
        "bar": [_bar_shape(score, largest) for score in row.scores],
        "rank": row.ranks,
        "n_ranked": row.n_ranked,
        "share": [numbers.percent(share) for share in row.shares],
        "flips": row.n_flips,
        "order": row.order,
    }


def _json(value: object) -> Markup:
    """JSON that cannot end its script element, in ASCII: U+2028 and lone surrogates are escaped."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
