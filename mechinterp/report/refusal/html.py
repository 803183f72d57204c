"""A study of refusals as one HTML page for readers who know nothing of it: verdict, then evidence.

    Path("report.html").write_text(refusal_page(study), encoding="utf-8")

It begins with the verdict in one sentence and how sure it is; an abstention is shown as plainly.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.refusal.findings import RefusalStudy, Stages
from mechinterp.report.layers.chart import LayerLine, layer_chart
from mechinterp.report.refusal import rows, sentences
from mechinterp.report.refusal.crossing import Cell, crossed, read_cells
from mechinterp.report.refusal.crossing_chart import crossing_chart
from mechinterp.report.refusal.rules import meaning, verbs, verdict_phrase
from mechinterp.report.refusal.stage_chart import stage_chart
from mechinterp.report.render.chart import N_COLOURS
from mechinterp.report.render.costs import costs
from mechinterp.report.render.page_shell import page
from mechinterp.report.render.tables import table

MOST_ROWS, MOST_PROMPTS = 24, 4
"""Rows of a table, and prompts in full, before the rest folds away."""

_SAID_ELSEWHERE = ("kind", "command", "complete", "seed")

_LINES = {"auroc": "harm", "bag_of_words": "bag of words", "random_weights": "random weights"}


@checks_arguments
def refusal_page(
    study: RefusalStudy, *, title: str | None = None, notes: Sequence[str] = ()
) -> str:
    """The whole page. `notes`: how the study was made, in sentences; at the end."""
    verb = verbs(study.behaviour)
    cells = read_cells(study)
    return page(
        "refusal.html",
        ["page.css", "layers.css", "refusal.css"],
        [],
        title=title or f"Why does {study.model} {verb.do}?",
        payload={},
        eyebrow=_eyebrow(study),
        verb=verb,
        unit=study.unit,
        over=f"{study.over:g}",
        said=verdict_view(study),
        rates=[(kind, rate, sentences.shares(rate)) for kind, rate in study.findings.rates.items()],
        behaviour=sentences.behaviour(study.findings, verb.does),
        flips=[rows.flip_view(each, study.behaviour, study.over) for each in study.flips],
        most_prompts=MOST_PROMPTS,
        crossings=_charts(cells, study, verb.does),
        against_rule=_against(cells),
        crossed_by=sentences.what_was_crossed(study),
        cells=table(rows.cell_rows(cells, study.unit, verb.does)),
        words=rows.word_rows(study.words),
        word_sentence=sentences.words(study),
        word_scale=rows.largest([word.effect for word in study.words]),
        cues=rows.cue_rows(study.cues),
        cue_sentence=sentences.cues(study),
        cue_scale=rows.largest([e for cue in study.cues for e in (cue.on_harmful, cue.on_benign)]),
        most_rows=MOST_ROWS,
        stages=None if study.stages is None else _stages(study.stages, study),
        held_out=_held_out(study),
        tables={name: table(each) for name, each in rows.other_tables(study).items() if each},
        verdict=study.verdict,
        costs=costs({k: v for k, v in study.attrs.items() if k not in _SAID_ELSEWHERE}),
        notes=[escape(note) for note in notes],
    )


def verdict_view(study: RefusalStudy) -> dict[str, object]:
    """The verdict as its card shows it, on this page and on that of one prompt."""
    ranked = sentences.ranked_shares(study)
    total, left, bars = sum(value for _, value in ranked), 0.0, []
    for place, (rule, value) in enumerate(ranked):
        width = 100 * value / total
        bars.append((f"c{place % N_COLOURS}", round(left, 2), round(width, 2), rule, value))
        left += width
    probability = study.verdict.probability
    return {
        "rule": study.verdict.rule,
        "phrase": verdict_phrase(study.verdict, study.behaviour),
        "meaning": meaning(study.verdict, study.behaviour),
        "probability": sentences.share(probability) if math.isfinite(probability) else None,
        "sure": sentences.sure(study),
        "bars": [(*bar[:4], sentences.share(bar[4])) for bar in bars],
    }


def _eyebrow(study: RefusalStudy) -> list[str]:
    n = study.crossing.sizes["family"]
    seed = study.attrs.get("seed")
    return [
        escape(study.model),
        f"{n} {'family' if n == 1 else 'families'} of requests",
        *([f"seed {seed}"] if isinstance(seed, int) else []),
    ]


def _charts(cells: Sequence[Cell], study: RefusalStudy, does: str) -> list[tuple[str, Markup]]:
    """A picture without the cue, and one with it if any request has it."""
    drawn = []
    cue = f" ({study.verdict.cue})" if study.verdict.cue else ""
    for with_cue in (False, True):
        here = [cell for cell in cells if cell.cue == with_cue]
        if any(cell.scores for cell in here):
            name = escape(f"With the cue{cue}" if with_cue else "Without the cue")
            if not crossed(cells, "cue"):
                name = "No request has a cue"
            drawn.append((name, crossing_chart(here, over=study.over, does=does, name=name)))
    return drawn


def _against(cells: Sequence[Cell]) -> list[str]:
    """The cells in which most families do not do what the rule foretells."""
    there = [cell for cell in cells if cell.scores and cell.foretold is not None]
    return [cell.name for cell in there if cell.foretold != (cell.share > 0.5)]


def _stages(found: Stages, study: RefusalStudy) -> dict[str, object]:
    layers = tuple(int(layer) for layer in found.detection["layer"].values.tolist())
    there = [name for name in _LINES if name in found.detection]
    values = {
        str(name): tuple(map(float, found.detection[name].values))
        for name in (*there, "low", "high")
        if name in found.detection
    }
    band = (values["low"], values["high"]) if {"low", "high"} <= values.keys() else ((), ())
    lines = [LayerLine(_LINES["auroc"], layers, values["auroc"], *band)]
    for name in there:
        if name != "auroc":
            lines.append(LayerLine(_LINES[name], layers, values[name], is_chance=True))
    tables = {
        name: table(each) for name, each in rows.stage_tables(found, study.unit).items() if each
    }
    return {
        "chart": stage_chart(found),
        "detection": layer_chart(lines, y="AUROC", y_range=(0.0, 1.0)),
        "sentences": sentences.stages(found, study.behaviour),
        "more": [escape(each) for each in found.sentences],
        "cut": found.cut,
        "tables": tables,
        "caution": sentences.PRESENT_NOT_USED,
    }


def _held_out(study: RefusalStudy) -> dict[str, object] | None:
    """What was foretold beside what happened, as shares."""
    if (test := study.held_out) is None:
        return None
    compared = (
        ("edits that the verdict says flip it", test.n_happened, test.n_predicted),
        ("random edits of the same size", test.n_random_happened, test.n_random),
    )
    return {
        "sentences": sentences.held_out(test),
        "bars": [(name, hits, n, hits / n) for name, hits, n in compared if n],
        "families": ", ".join(map(escape, test.families)),
    }
