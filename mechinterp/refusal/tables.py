"""A study as tables: `to_dataframe` for pandas.

Of a study the scores of its crossing, a row for each request family and cell; of one prompt its
words. Of a part of a study the rows of that part:

>>> from mechinterp.refusal.findings import FlipSet, Flips
>>> from mechinterp.refusal.tables import to_dataframe
>>> alone = FlipSet(("bomb",), 1.5, -0.5)
>>> flips = Flips("make a bath bomb", 1.5, (alone,), 3, True, 10, 10, 500, 9000)
>>> to_dataframe([flips])[["prompt", "words", "score_without"]].values.tolist()
[['make a bath bomb', 'bomb', -0.5]]
"""

from collections.abc import Sequence
from dataclasses import fields

import pandas as pd

from mechinterp.core.arguments import checks_arguments
from mechinterp.refusal.findings import (
    CueEffect,
    DirectionTest,
    Estimate,
    Flips,
    PromptStudy,
    RefusalStudy,
    WordEffect,
    words_together,
)

Part = WordEffect | CueEffect | Flips | DirectionTest


@checks_arguments
def to_dataframe(found: RefusalStudy | PromptStudy | Sequence[Part]) -> pd.DataFrame:
    """One row for each thing that was measured.

    Of a `RefusalStudy`: `harm`, `trigger`, `cue`, `family`, `score` and whether it is over the
    threshold, `does`. Of a `PromptStudy`: `word` and `drop`, how much lower the score is without
    it. Of `study.words`, `study.cues` or the directions of its stages: a row each, a mean with its
    bounds in three columns. Of `study.flips`: a row for each set of words.
    """
    if isinstance(found, RefusalStudy):
        crossing = found.crossing.reset_coords(drop=True).rename("score")
        frame = crossing.to_dataframe().dropna().reset_index()
        return frame.assign(does=frame["score"] > found.over)
    if isinstance(found, PromptStudy):
        drops = found.attribution
        return pd.DataFrame({"word": drops["word"].values, "drop": drops.values})
    return pd.DataFrame([row for part in found for row in _rows(part)])


def _rows(part: Part) -> list[dict[str, object]]:
    if isinstance(part, Flips):
        return [
            {
                "prompt": part.prompt,
                "words": words_together(one.words),
                "n_words": len(one.words),
                "score": one.score,
                "score_without": one.score_without,
            }
            for one in part.sets
        ]
    row: dict[str, object] = {}
    for each in fields(part):
        value = getattr(part, each.name)
        if isinstance(value, Estimate):
            row |= {
                each.name: value.mean,
                f"{each.name}_low": value.low,
                f"{each.name}_high": value.high,
            }
        else:
            row[each.name] = words_together(value) if each.name == "words" else value
    return [row]
