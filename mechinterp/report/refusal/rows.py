"""The tables of a study's page, as rows of what is shown in each cell.

word_rows(study.words)[0].flips            # "92% (72% to 100%) of 24"
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import xarray as xr

from mechinterp.refusal.findings import (
    CueEffect,
    Estimate,
    Flips,
    RefusalStudy,
    Stages,
    WordEffect,
)
from mechinterp.report.refusal.crossing import Cell
from mechinterp.report.refusal.marked import Marked, marked_words
from mechinterp.report.refusal.rules import verbs, words_phrase
from mechinterp.report.refusal.sentences import flips, share, shares
from mechinterp.report.render.numbers import MISSING, NumberFormat, probability
from mechinterp.report.render.phrases import Phrase
from mechinterp.report.render.tables import Rows
from mechinterp.report.render.tokens import show

SCORE = NumberFormat("+.2f")


@dataclass(frozen=True)
class WordRow:
    """Words that were put into benign requests, beside their control words."""

    words: Phrase
    share: Estimate
    flips: str
    controls: str
    controls_share: float
    effect: Estimate
    score: str
    removal: str
    q: str
    is_trigger: bool


def word_rows(words: Sequence[WordEffect]) -> list[WordRow]:
    """A row for each set of words, triggers first, then by what they flip."""
    order = sorted(words, key=lambda word: (not word.is_trigger, -_number(word.flips.mean)))
    return [
        WordRow(
            words_phrase((word.words,)),
            word.flips,
            share(word.flips.mean),
            share(word.control_flips),
            word.control_flips,
            word.effect,
            SCORE(word.effect.mean),
            MISSING if word.removal_flips is None else shares(word.removal_flips),
            probability(word.q),
            word.is_trigger,
        )
        for word in order
    ]


@dataclass(frozen=True)
class CueRow:
    """A change of the surface, on against off."""

    name: str
    what: str
    harmful: Estimate
    on_harmful: str
    flips_harmful: str
    benign: Estimate
    on_benign: str
    flips_benign: str
    q: str
    is_cue: bool


def cue_rows(cues: Sequence[CueEffect]) -> list[CueRow]:
    """A row for each cue, those that matter first."""
    order = sorted(cues, key=lambda cue: (not cue.is_cue, -_number(abs(cue.on_harmful.mean))))
    return [
        CueRow(
            show(cue.name),
            show(cue.what),
            cue.on_harmful,
            SCORE(cue.on_harmful.mean),
            share(cue.flips_harmful),
            cue.on_benign,
            SCORE(cue.on_benign.mean),
            share(cue.flips_benign),
            probability(cue.q),
            cue.is_cue,
        )
        for cue in order
    ]


def largest(estimates: Sequence[Estimate]) -> float:
    """The largest end of any interval, for bars of one scale."""
    ends = [abs(end) for one in estimates for end in (one.mean, one.low, one.high)]
    return max((end for end in ends if math.isfinite(end)), default=0.0)


@dataclass(frozen=True)
class FlipView:
    """A prompt with its marked words, what is said of it, and a row for each smallest set."""

    pieces: list[Marked]
    score: str
    does: str
    sentence: str
    sets: list[tuple[Phrase, str, str]]


def flip_view(found: Flips, study_behaviour: str, over: float) -> FlipView:
    """What flips a prompt, as its card shows it."""
    verb = verbs(study_behaviour)
    sets = [
        (
            words_phrase((one.words,)),
            SCORE(one.score_without),
            verb.does if one.score_without > over else verb.does_not,
        )
        for one in found.sets
    ]
    does = verb.does if found.score > over else verb.does_not
    pieces = marked_words(found.prompt, found.sets)
    return FlipView(pieces, SCORE(found.score), does, flips(found, study_behaviour), sets)


def cell_rows(cells: Sequence[Cell], unit: str, does: str) -> Rows:
    """A row for each cell of the crossing."""
    return [
        {
            "requests": cell.name,
            f"{does}": share(cell.share),
            "families": str(len(cell.scores)),
            f"mean score, {unit}": SCORE(cell.mean),
            **({} if cell.foretold is None else {"rule": does if cell.foretold else "does not"}),
        }
        for cell in sorted(cells, key=lambda one: not one.harm)
        if cell.scores
    ]


def stage_tables(found: Stages, unit: str) -> dict[str, Rows]:
    """Detection by layer, the parts that were exchanged, and the directions."""
    by_layer = [n for n, values in found.detection.data_vars.items() if values.dims == ("layer",)]
    detection = [
        {"layer": str(layer)} | {str(name).replace("_", " "): _cell(row[name]) for name in by_layer}
        for layer in found.detection["layer"].values.tolist()
        for row in [found.detection.sel(layer=layer)]
    ]
    directions = [
        {
            "refusals driven by": show(test.driver),
            "contrast": test.contrast,
            "layer": str(test.layer),
            f"taken out, {unit}": SCORE(test.taken_out),
            "flips": share(test.flips_out),
            f"added, {unit}": SCORE(test.added),
            "flips ": share(test.flips_in),
            "p, same norm": probability(test.p_norm),
            "p, same covariance": probability(test.p_covariance),
            "KL, nats": _two(test.kl),
            "random": str(test.n_random),
            "works": "yes" if test.works else "no",
        }
        for test in found.directions
    ]
    return {
        "Parts exchanged": _part_rows(found),
        "Directions": directions,
        "Detection by layer": detection,
    }


def _part_rows(found: Stages) -> Rows:
    """A row for each part and driver that were measured, those that pass first."""
    routing = found.routing
    if not routing.sizes.get("part"):
        return []
    shown = [n for n in ("necessity", "sufficiency", "direct") if n in routing.data_vars]
    rows = [
        {
            "part": str(part),
            "refusals driven by": str(driver),
            "passes": "yes" if _passes(found, one, str(part)) else "no",
            **{name: share(float(one[name])) for name in shown},
            "p": probability(float(one["p"])),
        }
        for part in routing["part"].values.tolist()
        for driver in routing["driver"].values.tolist()
        for one in [routing.sel(part=part, driver=driver)]
        if math.isfinite(float(one["necessity"]))
    ]
    return sorted(rows, key=lambda row: row["passes"] == "no")


def _passes(found: Stages, one: xr.Dataset, part: str) -> bool:
    """Whether a part is on the route of a driver; of any, if that was not told apart."""
    return bool(one["is_on_route"]) if "is_on_route" in one else part in found.routed_by


def other_tables(study: RefusalStudy) -> dict[str, Rows]:
    """Replies, and edits of families set aside."""
    score = f"score, {study.unit}"
    replies: Rows = [
        {"prompt": prompt, "the reply begins": reply, score: SCORE(value)}
        for prompt, reply, value in study.findings.replies
    ]
    topics: Rows = [
        {"topic": topic, f"{verbs(study.behaviour).does}, of harmful requests": share(value)}
        for topic, value in study.findings.by_topic.items()
    ]
    edits: Rows = []
    if study.held_out is not None:
        edits = [
            {"request": before, "edited": after, score: SCORE(old), "score edited": SCORE(new)}
            for before, after, old, new in study.held_out.examples
        ]
    return {"replies": replies, "topics": topics, "edits": edits}


def _number(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _two(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else MISSING


def _cell(value: xr.DataArray) -> str:
    return _two(float(value)) if value.dtype.kind == "f" else str(value.item())
