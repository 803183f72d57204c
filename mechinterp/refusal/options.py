"""Options of a study of refusals, and those of a first look.

>>> from mechinterp.refusal.options import QUICK
>>> QUICK["n_families"], [cue.name for cue in QUICK["cues"]][:2]
(8, ['exclamation mark', 'please'])
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypedDict

from mechinterp.refusal.cues import Cue, cue_named
from mechinterp.refusal.findings import Behaviour
from mechinterp.sweeps.options import Progress


class Step(TypedDict, total=False):
    """Where a step of a study keeps what is done, and whom it tells."""

    out: Path
    progress: Progress


class StudyOptions(TypedDict, total=False):
    """Options of `explain_refusals`, which describes them."""

    behaviour: Behaviour | None
    n_families: int | None
    cues: Sequence[Cue] | None
    candidates: Sequence[str] | None
    n_words: int
    n_controls: int
    vocabulary: bool
    stages: bool
    n_random: int
    n_replies: int
    n_flips: int
    seed: int
    out: str | Path | None
    progress: Progress | None


QUICK: Final[StudyOptions] = {
    "n_families": 8,
    "cues": tuple(
        map(cue_named, ("exclamation mark", "please", "lower case", "quotes", "sentence after"))
    ),
    "n_words": 4,
    "n_controls": 6,
    "stages": False,
    "n_replies": 0,
    "n_flips": 1,
}
"""Options for a first look, in a minute on a small model: `explain_refusals(model, x, **QUICK)`."""
