"""What every page is made of: one file, nothing fetched, text escaped, a strict policy.

A Content-Security-Policy lets the page's own style and script run and nothing else. The data go
in as JSON that no token can end; labels are printed with nothing hidden in them.

    html = page("page.html", ["page.css"], ["page.js"], title="A title", payload={"rows": []})
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mechinterp.core.printable import escape, printable
from mechinterp.report.render import numbers, tokens
from mechinterp.report.render.colours import (
    colour_class,
    neutral_class,
    neutral_scale,
    scale_classes,
    scale_css,
)
from mechinterp.report.render.support import Side, Sign, side
from mechinterp.stats.intervals import WHAT_INTERVALS_HOLD

_TEMPLATES = Path(__file__).parents[1] / "templates"


def page(
    template: str,
    styles: Iterable[str],
    scripts: Iterable[str],
    *,
    title: str,
    payload: object,
    rules: str = "",
    **values: object,
) -> str:
    """The template with its style sheets and scripts inside, and a policy that names their hashes.

    `rules` are further CSS, made by the page and never out of a label.
    """
    style = "\n".join([*(_read(name) for name in styles), rules, scale_css(), ""])
    code = "\n".join(_read(name) for name in scripts)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(code)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(
            title=escape(title),
            policy=policy,
            style=Markup(style),
            script=Markup(code),
            payload=_json(payload),
            **values,
        )
    )


def bar_shape(
    score: float, largest: float, supports: Sign = "positive"
) -> tuple[float, float, Side]:
    """Left edge and width of a bar from the middle, in per cent, and its class.

    A positive bar goes to the right; the class says whether the score supports.
    """
    if not math.isfinite(score) or largest <= 0:
        return 50.0, 0.0, "zero"
    width = round(50 * abs(score) / largest, 2)
    left = 50.0 if score >= 0 else round(50 - width, 2)
    return left, width, side(score, supports)


def whisker_shape(low: float, high: float, largest: float) -> tuple[float, float] | None:
    """Left edge and width of an interval, on the scale of `bar_shape`; None if there is none."""
    if largest <= 0 or not math.isfinite(low) or not math.isfinite(high):
        return None
    return round(50 + 50 * low / largest, 2), round(50 * (high - low) / largest, 2)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "token": _token,
        "label": _label,
        "flow": tokens.flow,
        "printable": escape,
        "percent": numbers.percent,
        "times": numbers.times,
        "probability": numbers.probability,
    }
    environment.globals |= {
        "colour_class": colour_class,
        "neutral_class": neutral_class,
        "scale_classes": scale_classes,
        "neutral_scale": neutral_scale,
        "bar": _bar,
        "marked": _marked,
        "what_intervals_hold": WHAT_INTERVALS_HOLD,
    }
    return environment


def _shown(value: object) -> object:
    """The door to a page: text with nothing hidden in it; markup was made by the filters below."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _token(token: str) -> Markup:
    """A token made printable, isolated from the text around it, its end spaces set paler."""
    return _marked(tokens.show(token))


def _label(token: str) -> Markup:
    """The same, with the middle of a long one left out."""
    return _marked(tokens.shorten(tokens.show(token)))


def _marked(shown: str) -> Markup:
    shown = printable(shown)
    core = shown.strip(tokens.SPACE)
    before, _, after = shown.partition(core) if core else (shown, "", "")
    spaces = [Markup('<span class="ws">{}</span>').format(s) if s else "" for s in (before, after)]
    return Markup('<bdi class="tok">{}{}{}</bdi>').format(spaces[0], core, spaces[1])


def _bar(
    score: float,
    largest: float,
    low: float = math.nan,
    high: float = math.nan,
    supports: Sign = "positive",
) -> Markup:
    """A bar from the middle, to the right if positive, its interval as a line upon it."""
    x, width, name = bar_shape(score, largest, supports)
    shape = whisker_shape(low, high, largest)
    whisker = Markup("")
    if shape:
        whisker = Markup('<rect class="whisker" x="{}" y="3.25" width="{}" height="1.5"/>').format(
            *shape
        )
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="axis" x="49.75" width="0.5" height="8"/>'
        '<rect class="{}" x="{}" y="1" width="{}" height="6"/>{}</svg>'
    ).format(name, x, width, whisker)


def _json(value: object) -> Markup:
    """JSON that cannot end its script element, in ASCII: U+2028 and lone surrogates are escaped."""
    text = json.dumps(_all_shown(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _all_shown(value: object) -> object:
    """A payload with nothing hidden in any of its texts."""
    if isinstance(value, Mapping):
        return {_shown(key): _all_shown(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_all_shown(one) for one in value]
    return _shown(value)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
