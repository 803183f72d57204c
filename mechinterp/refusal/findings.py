"""What a study of refusals finds, as values: no model is needed to read, print or store them.

Scores are a behaviour's, one number a prompt, in the metric's unit (nats for refusals); the model
does it (refuses) where the score is above the behaviour's threshold. A flip is a change of side.

>>> from mechinterp.refusal.findings import Estimate
>>> Estimate(0.93, 0.81, 0.99, 24)
0.93 [0.81, 0.99] of 24
"""

from dataclasses import dataclass, field
from typing import Literal

import xarray as xr

from mechinterp.core.metrics import Metric
from mechinterp.core.printable import escape

WordSet = tuple[str, ...]
"""Words that act together: one, or several that are all needed."""

Rule = Literal[
    "content",
    "trigger",
    "cue",
    "content or trigger",
    "content or cue",
    "trigger or cue",
    "content and trigger",
    "content and cue",
    "trigger and cue",
    "always",
    "never",
]
"""By which of three factors a model refuses: harm in the content, trigger words, a cue."""


@dataclass(frozen=True)
class Behaviour:
    """What is explained: one number for each prompt; the model does it where that is over `over`.

    name: a verb, as sentences use it: "refuse". `openers`: what the first token is read as.
    """

    metric: Metric
    name: str = "refuse"
    over: float = 0.0
    openers: tuple[tuple[str, ...], tuple[str, ...]] | None = None


@dataclass(frozen=True, repr=False)
class Estimate:
    """A mean over families with the bounds of its interval of 95%; n families."""

    mean: float
    low: float
    high: float
    n: int

    def __repr__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}] of {self.n}"


@dataclass(frozen=True)
class BehaviourFindings:
    """How the model behaves on the requests as they stand.

    rates: kind of request ("harmful", "benign with the telling word", "benign without") -> share
        refused, over families. `by_topic`: topic -> share of harmful requests refused.
    auroc: how well the score tells harmful from benign requests.
    agreement: share of prompts on which first token and generated reply agree; None if no reply
        was generated. `seed_agreement`: share of (prompt, seed) whose sampled reply agrees with the
        greedy one. `paraphrase_agreement`: share of pairs of wordings of one family that agree.
    replies: some prompts with the beginning of their greedy replies and the score.
    """

    rates: dict[str, Estimate]
    by_topic: dict[str, float]
    auroc: float
    paraphrase_agreement: float
    agreement: float | None = None
    seed_agreement: float | None = None
    n_seeds: int = 0
    replies: tuple[tuple[str, str, float], ...] = ()


@dataclass(frozen=True)
class WordEffect:
    """What words do, put into benign requests (sufficiency) and taken out of refused ones.

    effect, flips: mean change of the score, and share of benign carriers that become refused.
    control_flips: the share of flips by control words of as many tokens in the same slots.
    removal_flips: the share of refused requests holding them that become answered without them;
        None where none holds them. p, q: permutation p against the controls, and false discovery
        rate. n_families: those with a refused request that holds all of the words. is_trigger: q at
        most .05 and flips at least half of the carriers, while no part of it does; a set of several
        words besides stands in three families or more, and its words cannot be exchanged for those
        of other sets that flip. note: what was not met.
    """

    words: WordSet
    effect: Estimate
    flips: Estimate
    control_flips: float
    removal_flips: Estimate | None
    p: float
    q: float
    is_trigger: bool
    n_families: int = 0
    note: str = ""


@dataclass(frozen=True)
class CueEffect:
    """What a change of the surface does, switched on against off.

    on_benign, on_harmful: mean change of the score. flips_benign: share of benign requests, without
    it answered, that are refused with it; flips_harmful: share of harmful ones refused with it that
    are answered without it. q: false discovery rate over the battery. is_cue: it matters for what
    the model does. flips_elsewhere: of a word at a place, the share of its flips that happen with
    the word at another place too: most of them of a trigger, few of a cue. explained_by: a stronger
    cue that it puts on or takes off as well, without which it flips nothing.
    """

    name: str
    what: str
    on_benign: Estimate
    on_harmful: Estimate
    flips_benign: float
    flips_harmful: float
    p: float
    q: float
    is_cue: bool
    flips_elsewhere: float | None = None
    explained_by: str = ""


@dataclass(frozen=True)
class FlipSet:
    """A smallest set of words whose removal flips one prompt: no proper subset of it does."""

    words: WordSet
    score: float
    score_without: float


@dataclass(frozen=True)
class Flips:
    """All smallest sets of up to `size` words that flip a prompt.

    complete: every set was run, holds a smaller one that flips, or differs from such a set by
    `idle` words alone: removed alone, alone left, and in groups, these hardly moved the score.
    n_sets_run: all removals that were run. token_layers_brute_force: of one sweep over all sets.
    """

    prompt: str
    score: float
    sets: tuple[FlipSet, ...]
    size: int
    complete: bool
    n_sets_run: int
    n_sets_in_all: int
    token_layers: int
    token_layers_brute_force: int
    idle: tuple[str, ...] = ()


@dataclass(frozen=True)
class DirectionTest:
    """A direction in the residual stream, against random ones of the same norm.

    contrast: "matched" (harmful and benign requests of one family) or "unmatched". `effect`: mean
    change of the score of refused prompts when it is taken out (necessity), and of answered ones
    when it is added (sufficiency). `p_norm`, `p_covariance`: permutation p against at least 100
    random directions, isotropic and with the activations' own covariance. kl: nats, on benign
    prompts, when it is taken out. driver: what the refused prompts have and the answered lack.
    """

    contrast: Literal["matched", "unmatched"]
    layer: int
    taken_out: float
    added: float
    flips_out: float
    flips_in: float
    p_norm: float
    p_covariance: float
    kl: float
    n_random: int
    works: bool
    driver: str = "content"


@dataclass(frozen=True)
class Stages:
    """Where harm is detected, how it travels to the answer, and where refusal is expressed.

    detection: Dataset over `layer`: `auroc` with `low`, `high` on topics (or families) left out,
        `bag_of_words`, `random_weights`. detected_at: the first layer that is better than both.
    routing: Dataset over `part` ("L3H2", "L3.mlp"): `necessity`, `sufficiency`, `direct`, `p`, for
        each `driver` ("content", "trigger") of refusals. routed_by: the parts that pass.
    directions: those tested; expressed_at: the first layer at which one works for a driver.
    expressed_by: the parts that write to the answer what decides.
    cut: "" or between which stages what was detected is lost: "detection and routing".
    sentences: what follows, each from the numbers it names.
    """

    detection: xr.Dataset
    detected_at: int | None
    routing: xr.Dataset
    routed_by: tuple[str, ...]
    directions: tuple[DirectionTest, ...]
    expressed_at: int | None
    cut: str
    sentences: tuple[str, ...] = ()
    expressed_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeldOut:
    """The verdict put to the test on families that were set aside.

    Edits that the verdict says flip the answer, and random edits of the same size.
    """

    families: tuple[str, ...]
    n_predicted: int
    n_happened: int
    n_random: int
    n_random_happened: int
    examples: tuple[tuple[str, str, float, float], ...] = ()


@dataclass(frozen=True)
class Verdict:
    """By which rule the model refuses, or why that is not to be told.

    rule: None if `abstains`, which then says why. probability: that the rule is right, from
    resampling families. shares: rule -> share of the resamples in which it is the best.
    fit: share of the crossing's cells that it foretells. triggers: sets of words, each enough.
    cue: name of the cue. sentences: evidence for and against, each from its number.
    """

    rule: Rule | None
    probability: float
    shares: dict[str, float]
    fit: float
    triggers: tuple[WordSet, ...] = ()
    cue: str = ""
    abstains: str = ""
    evidence_for: tuple[str, ...] = ()
    evidence_against: tuple[str, ...] = ()
    would_change: tuple[str, ...] = ()
    not_tested: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class RefusalStudy:
    """Everything that a study found; `verdict` is the answer, the rest its evidence.

    crossing: scores, dims (harm, trigger, cue, family), each factor False or True; the mean over
        wordings. NaN where a family has no such request.
    attrs: provenance and cost.
    """

    model: str
    behaviour: str
    unit: str
    over: float
    verdict: Verdict
    findings: BehaviourFindings
    words: tuple[WordEffect, ...]
    cues: tuple[CueEffect, ...]
    crossing: xr.DataArray
    flips: tuple[Flips, ...]
    stages: Stages | None
    held_out: HeldOut | None
    attrs: dict[str, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The verdict and how sure, then what it stands on, a line each."""
        verdict = self.verdict
        said = f"{self.behaviour} by {verdict.rule or 'no rule that can be told'}"
        lines = [f"RefusalStudy of {self.model}: {said}, probability {verdict.probability:.2f}"]
        if verdict.abstains:
            lines.append(f"abstains: {verdict.abstains}")
        lines.append(f"fits {verdict.fit:.0%} of {int(self.crossing.notnull().sum())} cells")
        if verdict.triggers:
            lines.append("triggers: " + ", ".join(map(words_together, verdict.triggers)))
        if verdict.cue:
            lines.append(f"cue: {verdict.cue}")
        lines += [f"{kind}: {rate}" for kind, rate in self.findings.rates.items()]
        if (test := self.held_out) is not None:
            lines.append(
                f"flips that were foretold: {test.n_happened} of {test.n_predicted} happened; "
                f"of random edits {test.n_random_happened} of {test.n_random}"
            )
        return "\n  ".join(map(escape, lines))


@dataclass(frozen=True, eq=False, repr=False)
class PromptStudy:
    """Why one prompt is refused or answered.

    attribution: the score's drop when each word is removed, dims ("word",), in the metric's unit.
    triggers: words of the prompt that flip benign requests too. `stand_ins`: groups of words of
    which one is enough. study: the model's verdict, if one was given.
    """

    model: str
    behaviour: str
    unit: str
    over: float
    prompt: str
    score: float
    attribution: xr.DataArray
    flips: Flips
    stand_ins: tuple[WordSet, ...]
    triggers: tuple[WordEffect, ...]
    sentences: tuple[str, ...]
    study: RefusalStudy | None = None
    attrs: dict[str, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Whether the model does it, how many sets of words flip that, and the verdict if any."""
        does = "does" if self.score > self.over else "does not"
        lines = [
            f"PromptStudy of {self.prompt!r}",
            f"{self.model} {does} {self.behaviour}: {self.score:+.2f} {self.unit} "
            f"(over {self.over:g}: it does)",
            f"sets of up to {self.flips.size} words that flip it: {len(self.flips.sets)}"
            + ("" if self.flips.complete else ", not all were tried"),
            *(
                f"without {words_together(s.words)}: {s.score_without:+.2f}"
                for s in self.flips.sets
            ),
        ]
        if self.study is not None:
            verdict = self.study.verdict
            lines.append(
                f"the model: by {verdict.rule or 'no rule that can be told'}, "
                f"probability {verdict.probability:.2f}"
            )
        return "\n  ".join(map(escape, lines))


def words_together(words: WordSet) -> str:
    """A set of words as a sentence names it.

    >>> words_together(("bath", "bomb"))
    'bath + bomb'
    """
    return " + ".join(words)
