"""Why one prompt is refused or answered, as one HTML page: what flips it, then each word.

Path("report.html").write_text(why_page(why(model, prompt)), encoding="utf-8")
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.refusal.findings import PromptStudy
from mechinterp.report.refusal import rows, sentences
from mechinterp.report.refusal.html import verdict_view
from mechinterp.report.refusal.rules import verbs, words_phrase
from mechinterp.report.render.colours import colour_class
from mechinterp.report.render.costs import costs
from mechinterp.report.render.numbers import NumberFormat
from mechinterp.report.render.page_shell import page
from mechinterp.report.render.tokens import show


@dataclass(frozen=True)
class WordView:
    """A word in its place: what stands before it, its drop, its colour; whether it flips alone."""

    before: str
    text: str
    drop: float
    score: str
    colour: str
    flips: bool


@checks_arguments
def why_page(found: PromptStudy, *, title: str | None = None, notes: Sequence[str] = ()) -> str:
    """The whole page of one prompt, with the model's verdict at the end if there is one."""
    verb = verbs(found.behaviour)
    does = found.score > found.over
    words, rest = _words(found)
    ranked = sorted(words, key=lambda word: -_size(word.drop))
    return page(
        "refusal_prompt.html",
        ["page.css", "refusal.css"],
        [],
        title=title or f"Why does {found.model} {verb.do if does else f'not {verb.do}'} this?",
        payload={},
        model=found.model,
        verb=verb,
        does=does,
        unit=found.unit,
        over=f"{found.over:g}",
        line=sentences.prompt_line(found),
        sentences=[escape(each) for each in found.sentences],
        words=words,
        rest=rest,
        ranked=ranked,
        scale=max((_size(word.drop) for word in words), default=0.0),
        flips=rows.flip_view(found.flips, found.behaviour, found.over),
        stand_ins=[words_phrase(tuple((word,) for word in group)) for group in found.stand_ins],
        triggers=rows.word_rows(found.triggers),
        trigger_scale=rows.largest([word.effect for word in found.triggers]),
        said=None if found.study is None else verdict_view(found.study),
        sure=[] if found.study is None else sentences.sure(found.study),
        costs=costs(found.attrs),
        notes=[escape(note) for note in notes],
    )


def _words(found: PromptStudy) -> tuple[list[WordView], str]:
    """The words that were removed, each in its place in the prompt, and what follows the last."""
    listed = [str(word) for word in found.attribution["word"].values.tolist()]
    drops = [float(drop) for drop in found.attribution.values]
    largest, end, views = max(map(_size, drops), default=0.0), 0, []
    form = NumberFormat.of(largest, extra=1)
    alone = {one.words[0].strip().lower() for one in found.flips.sets if len(one.words) == 1}
    for word, drop in zip(listed, drops, strict=True):
        text = word.strip() or word
        start = found.prompt.find(text, end)
        before, shown = " ", show(text)
        if start >= 0:
            before, shown = found.prompt[end:start], found.prompt[start : start + len(text)]
            end = start + len(text)
        colour = colour_class(drop, largest)
        views.append(WordView(before, shown, drop, form(drop), colour, text.lower() in alone))
    return views, found.prompt[end:]


def _size(value: float) -> float:
    return abs(value) if math.isfinite(value) else 0.0
