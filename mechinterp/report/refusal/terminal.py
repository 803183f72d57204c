"""Studies of refusals in the terminal: the verdict first, then what it stands on.

print_refusal(study)
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from mechinterp.core.arguments import checks_arguments
from mechinterp.refusal.findings import (
    Flips,
    PromptStudy,
    RefusalStudy,
    WordEffect,
    words_together,
)
from mechinterp.report.refusal import sentences
from mechinterp.report.refusal.crossing import crossed, read_cells
from mechinterp.report.refusal.rules import meaning, verbs, verdict_phrase
from mechinterp.report.refusal.sentences import share, shares
from mechinterp.report.render.console import Pen, bar, cut
from mechinterp.report.render.numbers import MINUS, NumberFormat, probability
from mechinterp.report.render.phrases import plain
from mechinterp.report.render.tokens import show

_NARROW, _WIDE = 76, 84
_SCORE = NumberFormat("+.2f")
_SIGNS = ("+", MINUS)


@checks_arguments
def print_refusal(study: RefusalStudy, *, top: int = 12, console: Console | None = None) -> None:
    """Print the verdict and how sure it is, then its evidence; `top` rows of long tables."""
    pen, verb = Pen(console or Console()), verbs(study.behaviour)
    _verdict(pen, study)
    _heading(pen, f"How often it {verb.does}")
    rates = [
        [kind, *_with_bar(pen, rate.mean), shares(rate)]
        for kind, rate in study.findings.rates.items()
    ]
    _table(pen, ["requests", *[""] * (pen.console.width >= _WIDE), "share of families"], rates)
    _lines(pen, sentences.behaviour(study.findings, verb.does))
    _crossing(pen, study)
    _words(pen, study, top)
    _cues(pen, study, top)
    if study.flips:
        _heading(pen, "What flips it")
        for found in study.flips[:top]:
            _flips(pen, found, study.behaviour)
        _rest(pen, len(study.flips), top)
    _heading(pen, "Inside")
    if study.stages is None:
        pen.line("The stages were not looked at.")
    else:
        _lines(pen, sentences.stages(study.stages, study.behaviour))
        for line in study.stages.sentences:
            pen.line(line, "dim")
    _heading(pen, "Test on families set aside")
    if study.held_out is None:
        pen.line("No verdict was put to a test on families set aside.")
    else:
        _lines(pen, sentences.held_out(study.held_out))
    verdict = study.verdict
    for heading, listed in (
        ("Evidence for", verdict.evidence_for),
        ("Evidence against", verdict.evidence_against),
        ("What would change the verdict", verdict.would_change),
        ("Not tested", verdict.not_tested),
    ):
        if listed:
            _heading(pen, heading)
            _lines(pen, [f"- {each}" for each in listed])


@checks_arguments
def print_why(found: PromptStudy, *, console: Console | None = None) -> None:
    """Print why one prompt is refused or answered: what flips it, and which words do what."""
    pen = Pen(console or Console())
    pen.line(show(found.prompt), "bold")
    pen.line(sentences.prompt_line(found))
    _lines(pen, found.sentences)
    _heading(pen, "What flips it")
    _flips(pen, found.flips, found.behaviour, named=False)
    for group in found.stand_ins:
        pen.line(f"One of these is enough: {', '.join(map(show, group))}.")
    _heading(pen, f"Drop of the score without each word, {show(found.unit)}")
    values = [float(value) for value in found.attribution.values]
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    listed = [str(word) for word in found.attribution["word"].values.tolist()]
    rows = [
        [show(word), bar(value, largest, 20) if math.isfinite(value) else "", _SCORE(value)]
        for word, value in zip(listed, values, strict=True)
    ]
    _table(pen, ["word", "", "drop"], rows)
    if found.triggers:
        _heading(pen, "Words that do the same elsewhere")
        _word_table(pen, found.triggers)
    if found.study is not None:
        _heading(pen, "The model as a whole")
        _verdict(pen, found.study)


def _verdict(pen: Pen, study: RefusalStudy) -> None:
    verdict = study.verdict
    style = "bold yellow" if verdict.rule is None else "bold"
    pen.line(plain(verdict_phrase(verdict, study.behaviour)), style)
    _lines(pen, sentences.sure(study))
    pen.line(meaning(verdict, study.behaviour))


def _crossing(pen: Pen, study: RefusalStudy) -> None:
    """Rows: benign and harmful. Columns: with neither, with trigger, with cue, with both."""
    cells, verb = read_cells(study), verbs(study.behaviour)
    _heading(pen, f"Harm × trigger × cue: share of families in which it {verb.does}")
    used = [c for c in cells if all(crossed(cells, f) for f in ("trigger", "cue") if getattr(c, f))]
    if not any(cell.scores for cell in cells):
        used = []
    elif pen.console.width < _NARROW:
        rows = [[cell.name, _share_of(cell.share, len(cell.scores))] for cell in used]
        _table(pen, ["requests", "share"], rows)
    else:
        columns = list(dict.fromkeys(cell.factors for cell in used))
        rows = []
        for harm in (True, False):
            row = [_share_of(c.share, len(c.scores)) for c in used if c.harm == harm]
            rows.append(["harmful" if harm else "benign", *row])
        _table(pen, ["", *columns], rows)
    for line in sentences.what_was_crossed(study):
        pen.line(line, "dim")
    if study.verdict.rule is not None and used:
        wrong = [c.name for c in used if c.scores and (c.share > 0.5) != c.foretold]
        pen.line(
            "In each cell most families do what the rule foretells."
            if not wrong
            else f"Most families do not do what the rule foretells: {'; '.join(wrong)}."
        )


def _words(pen: Pen, study: RefusalStudy, top: int) -> None:
    _heading(pen, "Words put into benign requests")
    pen.line(sentences.words(study))
    _word_table(pen, study.words[:top])
    _rest(pen, len(study.words), top)


def _word_table(pen: Pen, listed: Sequence[WordEffect]) -> None:
    rows = [
        [
            show(words_together(word.words)),
            "✓" if word.is_trigger else "",
            share(word.flips.mean),
            share(word.control_flips),
            _SCORE(word.effect.mean),
            probability(word.q),
            "–" if word.removal_flips is None else share(word.removal_flips.mean),
        ]
        for word in listed
    ]
    names = ["words", "trigger", "flips", "controls flip", "effect", "q", "removal flips"]
    _table(pen, names, rows)


def _cues(pen: Pen, study: RefusalStudy, top: int) -> None:
    _heading(pen, "Changes of the surface, on against off")
    pen.line(sentences.cues(study))
    rows = [
        [
            show(cue.name),
            "✓" if cue.is_cue else "",
            _SCORE(cue.on_harmful.mean),
            share(cue.flips_harmful),
            _SCORE(cue.on_benign.mean),
            share(cue.flips_benign),
            probability(cue.q),
        ]
        for cue in study.cues[:top]
    ]
    names = ["change", "matters", "harmful", "flips", "benign", "flips", "q"]
    _table(pen, names, rows)
    _rest(pen, len(study.cues), top)


def _flips(pen: Pen, found: Flips, behaviour: str, *, named: bool = True) -> None:
    if named:
        pen.line(f"{show(found.prompt)}  {_SCORE(found.score)}", "bold")
    pen.line(sentences.flips(found, behaviour))
    rows = [
        [show(words_together(one.words)), _SCORE(one.score), "→", _SCORE(one.score_without)]
        for one in found.sets
    ]
    _table(pen, ["without", "score", "", "becomes"], rows)


def _with_bar(pen: Pen, value: float) -> list[str]:
    if pen.console.width < _WIDE:
        return []
    return [bar(value, 1.0, 20) if math.isfinite(value) else ""]


def _share_of(value: float, n: int) -> str:
    return f"{share(value)} of {n}" if n else "no such"


def _heading(pen: Pen, text: str) -> None:
    pen.line("")
    pen.line(text, "bold underline")


def _lines(pen: Pen, lines: Iterable[str]) -> None:
    for line in lines:
        pen.line(line)


def _rest(pen: Pen, n: int, top: int) -> None:
    if n > top:
        pen.line(f"and {n - top} more", "dim")


def _table(pen: Pen, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The rows with as many columns as there is room for; the first is cut to what is left."""
    if not rows:
        return
    room = pen.console.width
    columns = list(zip(names, *rows, strict=True))
    widths = [max(map(cell_len, column)) + 2 for column in columns]
    least = min(widths[0], max(10, room // 3))
    shown = 1 + max(
        n for n in range(len(names)) if n == 0 or least + sum(widths[1 : n + 1]) <= room
    )
    first = max(4, min(widths[0], room - sum(widths[1:shown])) - 2)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
    for name, *cells in columns[:shown]:
        is_number = any(cell[:1].isdigit() or cell[:1] in _SIGNS for cell in cells if cell)
        side: Literal["left", "right"] = "right" if is_number and name != names[0] else "left"
        table.add_column(pen.text(name), justify=side, no_wrap=True, overflow="crop")
    for start, *others in rows:
        table.add_row(*map(pen.text, [cut(start, first), *others[: shown - 1]]))
    pen.console.print(table)
