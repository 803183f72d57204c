"""Attention as one HTML file: a grid of heads, the pattern of each, and the table of links.

>>> from mechinterp import load_model
>>> from mechinterp.attention import find_links, patterns, sink_share, top_k
>>> from mechinterp.report import attention_page
>>> found = patterns(load_model("toy:trigger"), "please bring the sesame").isel(prompt=0)
>>> html = attention_page(
...     {"prompt": found},
...     {"prompt": find_links(found, top_k(1))},
...     {"to the first token": sink_share(found)},
...     title="The trigger",
... )
>>> "L1H0" in html, html.count("<script")
(True, 2)
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.report.attention.link_rows import link_sentences, read_links
from mechinterp.report.attention.patterns import read_patterns
from mechinterp.report.render.colours import neutral_class
from mechinterp.report.render.costs import costs
from mechinterp.report.render.page_shell import page
from mechinterp.report.render.support import Sign, sign_sentence, supporting_sign
from mechinterp.report.render.tables import Rows, captioned

_MOST_WEIGHTS = 500_000
"""How many weights a page holds, over all its prompts."""
_MOST_LINKS = 100


@checks_arguments
def attention_page(
    patterns: Mapping[str, xr.DataArray],
    links: Mapping[str, xr.Dataset],
    scores: Mapping[str, xr.DataArray],
    *,
    title: str,
    notes: Sequence[str] = (),
    tables: Mapping[str, Rows] | None = None,
    attrs: Mapping[str, object] | None = None,
) -> str:
    """The whole page: the grid of heads, a head's pattern, the links, tables, notes, cost.

    `patterns` and `links` by the name of the prompt: dims (layer, head, pos, src), as one prompt or
    a mean over prompts has them, and what `find_links` or `confirm` gave. `scores`: what the grid
    can be coloured by, dims (layer, head), the same for all prompts; the first is shown at first.

    Raises:
        ValueError: if the names differ, there is no score, or a score has other dims.
    """
    if list(patterns) != list(links) or not patterns:
        raise ValueError(
            f"patterns of {list(patterns)}, links of {list(links)}: give both of each."
        )
    if not scores or any(set(score.dims) != {"layer", "head"} for score in scores.values()):
        raise ValueError("scores: at least one, each with the dims layer and head.")
    first = next(iter(scores.values())).transpose("layer", "head")
    grids = [_grid(name, score, first) for name, score in scores.items()]
    every = [(int(n), int(h)) for n in first["layer"].values for h in first["head"].values]
    room = _MOST_WEIGHTS // len(patterns)
    cases = [_case(patterns[name], links[name], name, every, grids, room) for name in patterns]
    is_checked = any("confirmed" in each for each in links.values())
    return page(
        "attention.html",
        ["page.css", "grid.css", "circuit.css", "pattern.css", "attention.css"],
        ["words.js", "pattern.js", "attention.js"],
        rules=f":root {{ --columns: {first.sizes['head']}; }}",
        title=title,
        payload={
            "layers": first["layer"].values.tolist(),
            "heads": first["head"].values.tolist(),
            "scores": grids,
            "cases": [case["payload"] for case in cases],
        },
        layers=first["layer"].values.tolist(),
        heads=first["head"].values.tolist(),
        grids=grids,
        cases=cases,
        n_prompts=sum(int(each.attrs.get("n_prompts", 1)) for each in patterns.values()),
        most=_MOST_LINKS,
        is_checked=is_checked,
        has_intervals=is_checked
        and any(each.sizes.get("prompt", 1) > 1 for each in links.values()),
        attrs=attrs or {},
        sign=sign_sentence(_supports(links), "what is measured", "the link"),
        tables=captioned(tables),
        notes=[escape(note) for note in notes],
        costs=costs(attrs or {}),
    )


def _supports(links: Mapping[str, xr.Dataset]) -> Sign:
    """The sign of the effects that support what is measured; one metric measures all links."""
    return supporting_sign(next(iter(links.values())).attrs)


def _grid(name: str, score: xr.DataArray, like: xr.DataArray) -> dict[str, object]:
    """A score as the classes and the texts of its cells, row by row."""
    values = score.transpose("layer", "head").values.astype(float)
    if values.shape != like.shape:
        raise ValueError(f"the score {name!r} has the shape {values.shape}, another {like.shape}.")
    size = np.nanmax(np.abs(values), initial=0.0)
    largest = 1.0 if 0.25 < size <= 1 else float(size)
    return {
        "name": escape(name),
        "largest": f"{largest:.2g}",
        "classes": [[neutral_class(v, largest) for v in row] for row in values.tolist()],
        "texts": [[_text(v) for v in row] for row in values.tolist()],
        "order": np.argsort(-np.nan_to_num(values), axis=None, kind="stable").tolist(),
    }


def _text(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}".replace("-", "−")


def _case(
    patterns: xr.DataArray,
    links: xr.Dataset,
    name: str,
    every: Sequence[tuple[int, int]],
    grids: Sequence[Mapping[str, object]],
    room: int,
) -> dict[str, object]:
    """What is shown for one prompt; heads that carry links are first to get room for a pattern."""
    rows = read_links(links.isel(link=slice(_MOST_LINKS)))
    wanted = dict.fromkeys((row.layer, row.head_number) for row in rows)
    best = zip(*(grid["order"] for grid in grids), strict=True)
    wanted |= dict.fromkeys(every[place] for several in best for place in several)
    shown = read_patterns(patterns, None, list(wanted), most_weights=room)
    heads = {f"L{layer}H{head}": lines for (layer, head), lines in shown.heads.items()}
    return {
        "name": escape(name),
        "links": rows,
        "n_links": links.sizes["link"],
        "n_confirmed": int(links["confirmed"].sum()) if "confirmed" in links else 0,
        "said": link_sentences(links),
        "left_out": shown.n_left_out,
        "rule": links.attrs.get("confirmed", ""),
        "unit": links.attrs.get("unit", ""),
        "payload": {
            "tokens": shown.tokens,
            "heads": heads,
            "links": [[row.query, row.key, row.head] for row in rows],
        },
    }
