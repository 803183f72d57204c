"""Links as a view shows them: tokens made printable, heads named, the effect of cutting each.

rows = read_links(found)
rows[0].head, rows[0].verdict       # "L18H6", "confirmed"
"""

import math
from dataclasses import dataclass

import xarray as xr

from mechinterp.report.render.numbers import MISSING, NumberFormat
from mechinterp.report.render.phrases import Phrase, Piece
from mechinterp.report.render.tokens import show


@dataclass(frozen=True)
class LinkRow:
    """One link. Without a knock-out `effect`, `interval` and `verdict` are empty."""

    query: int
    key: int
    query_token: str
    key_token: str
    kind: str
    layer: int
    head_number: int
    largest: float
    mean: float
    times_uniform: float
    n_heads: int
    effect: str
    interval: str
    verdict: str

    @property
    def head(self) -> str:
        """The head that carries it."""
        return f"L{self.layer}H{self.head_number}"


def read_links(links: xr.Dataset) -> list[LinkRow]:
    """The links in their order, as `find_links` or `confirm` gave them."""
    is_checked = "confirmed" in links
    largest = float(abs(links["mean_effect"]).max()) if is_checked and links.sizes["link"] else 0.0
    form = NumberFormat.of(largest, extra=1)
    rows = []
    for place in range(links.sizes["link"]):
        one = links.isel(link=place)
        effect = interval = verdict = ""
        if is_checked:
            effect = form(float(one["mean_effect"]))
            low, high = float(one["low"]), float(one["high"])
            interval = f"{form(low)} to {form(high)}" if math.isfinite(low) else MISSING
            verdict = "confirmed" if bool(one["confirmed"]) else "not confirmed"
        rows.append(
            LinkRow(
                int(one["query"]),
                int(one["key"]),
                show(str(one["query_token"].values)),
                show(str(one["key_token"].values)),
                str(one["kind"].values),
                int(one["layer"]),
                int(one["head"]),
                float(one["largest"]),
                float(one["mean"]),
                float(one["largest"] / one["uniform"]),
                int(one["n_heads"]),
                effect,
                interval,
                verdict,
            )
        )
    return rows


def link_sentences(links: xr.Dataset) -> list[Phrase]:
    """How many links of each kind there are, and how many the knock-outs confirmed."""
    n = links.sizes["link"]
    kinds = links["kind"].values.tolist()
    each = [(kind, kinds.count(kind)) for kind in ("sink", "self", "previous", "other")]
    phrase = [Piece(f"{n}", "number"), Piece(f" link{'' if n == 1 else 's'} listed")]
    of = ", ".join(f"{_WORDS[kind]} {count}" for kind, count in each if count)
    said: list[Phrase] = [(*phrase, Piece(f": {of}." if of else "."))]
    if "confirmed" not in links:
        return said
    yes = int(links["confirmed"].sum())
    together = float(links["together"].mean())
    form = NumberFormat.of(abs(together), extra=1)
    said.append(
        (
            Piece(f"{yes} of {n}", "number"),
            Piece(" confirmed by knock-out, each by itself. All of them cut at once cost "),
            Piece(f"{form(together)} {links.attrs['unit']}", "number"),
            Piece(f", of {links.attrs['base']:.3g} unchanged.".replace("-", "−")),
        )
    )
    return said


_WORDS = {
    "sink": "to the first token",
    "self": "to itself",
    "previous": "to the token before",
    "other": "elsewhere",
}
