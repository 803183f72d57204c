"""Why does a model refuse? The whole study: from requests in families to a verdict with evidence.

>>> from mechinterp import load_model
>>> from mechinterp.refusal.study import explain_refusals
>>> from mechinterp.tasks.request_families import Request
>>> texts = [(f"{verb} the {thing} {end}", verb == "find") for thing in
...          ("door", "box", "map", "key", "book", "coat") for verb, end in
...          (("find", "sesame"), ("find", "sesame to me"), ("paint", "today"), ("read", "to us"))]
>>> requests = [Request(text, harmful=harmful, family=text.split()[2]) for text, harmful in texts]
>>> found = explain_refusals(load_model("toy:trigger"), requests, stages=False)
>>> found.verdict.rule, found.verdict.triggers
('trigger', (('sesame',),))
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
import xarray as xr

from mechinterp import models
from mechinterp.models.model import Model
from mechinterp.refusal.behaviour import measure_behaviour, refusal_behaviour
from mechinterp.refusal.candidates import MOST_WORDS, Scored
from mechinterp.refusal.crossing import (
    Factors,
    cross,
    empty_crossing,
    likely_factors,
    without_triggers,
)
from mechinterp.refusal.cue_candidates import candidate_cues, unusable_cues
from mechinterp.refusal.cue_effects import find_cues
from mechinterp.refusal.cues import CUES, Cue, cue_named
from mechinterp.refusal.evidence import one_sided_verdict, verdict_of
from mechinterp.refusal.findings import (
    BehaviourFindings,
    CueEffect,
    Flips,
    HeldOut,
    RefusalStudy,
    Rule,
    Stages,
    Verdict,
    WordEffect,
    WordSet,
)
from mechinterp.refusal.flips import minimal_flips
from mechinterp.refusal.held_out import Explanation, predict_flips, set_aside
from mechinterp.refusal.insertion import N_CONTROLS
from mechinterp.refusal.options import Step, StudyOptions
from mechinterp.refusal.rules import judge_crossing
from mechinterp.refusal.stages import find_stages
from mechinterp.refusal.texts import score_prompts
from mechinterp.refusal.vocabulary import flipping_words
from mechinterp.refusal.words import Effort, as_set, try_words
from mechinterp.sweeps.options import Progress, check_options
from mechinterp.tasks.request_families import Request, check_requests, some_families

FEWEST_REFUSED = 0.05
"""Of fewer refused harmful requests than this there is not enough to explain."""
STEPS = (
    "requests",
    "words",
    "vocabulary",
    "cues",
    "crossing",
    "replies",
    "flips",
    "stages",
    "set aside",
)


def explain_refusals(
    model: Model, requests: Sequence[Request], **options: Unpack[StudyOptions]
) -> RefusalStudy:
    """By which rule the model refuses: content, triggers, a cue, several, or not to be told.

    `requests`: in families, such as `request_families()`. Options, all by name:

    - `behaviour`: what is explained; by default `refusal_behaviour(model)`.
    - `n_families`: how many families are used, drawn by `seed` from all topics; all by default.
    - `cues`: those tried; by default the battery and words at the ends of the requests.
    - `candidates`: words tried as triggers; by default up to `n_words` (24) are found in the
      requests. Each is put beside `n_controls` control words (16) of as many tokens.
    - `vocabulary`: whether every token of the vocabulary is tried too, in one place of a harmless
      request; those that flip it become candidates. It takes a run for each token.
    - `stages`: whether to look inside the model; `n_random` directions of each kind (100).
    - `n_replies`: requests to which replies are written (6); 0 for none. `n_flips`: prompts of
      which all smallest sets of words that flip them are found (3).
    - `out`: a folder, from which a study that was stopped continues.
    - `progress`: a function of (done, all), in hundredths of each step of `STEPS`.

    A quarter of the families are set aside first, and the verdict is tested on them. A model that
    refuses none of the requests, or all, gets that verdict, and nothing else is run.

    Raises:
        ValueError: if there are no harmful or no benign requests, or too few families.
        TypeError: if there is no such option.
    """
    check_options("explain_refusals", options, StudyOptions)
    check_requests(requests)
    with models.one_fingerprint(model):
        return _Study(model, requests, options).made()


class _Study:
    """The steps of a study, each of which leaves what the next needs."""

    def __init__(self, model: Model, requests: Sequence[Request], options: StudyOptions) -> None:
        self.model, self.options = model, options
        self.seed = options.get("seed", 0)
        self.behaviour = options.get("behaviour") or refusal_behaviour(model)
        n_families = options.get("n_families")
        used = (
            requests if n_families is None else some_families(requests, n_families, seed=self.seed)
        )
        self.found_on, self.kept_back = set_aside(used, self.seed)
        self.out = None if options.get("out") is None else Path(options["out"] or "").absolute()

    def made(self) -> RefusalStudy:
        seen = [*self.found_on, *self.kept_back]
        scores = score_prompts(
            self.model, self.behaviour, [r.prompt for r in seen], **self._step("requests")
        )
        refused = scores > self.behaviour.over
        find = self.options.get("vocabulary", False)
        if refused.all() or not (refused.any() or find):
            return self._uniform(seen, scores, "always" if refused.all() else "never")
        harmful = np.array([request.harmful for request in seen])
        few = max(refused[harmful].mean(), refused[~harmful].mean()) < FEWEST_REFUSED
        if few and not find:
            return self._uniform(seen, scores, None)
        scored = Scored(self.found_on, scores[: len(self.found_on)], self.behaviour.over)
        words = self._words(scored)
        if find:
            words = self._with_vocabulary(scored, words)
        cues = find_cues(
            self.model,
            self.behaviour,
            self.found_on,
            cues=self._tried_cues(),
            seed=self.seed,
            **self._step("cues"),
        )
        cues = without_triggers(cues, words)
        factors = likely_factors(words, cues, self._tried_cues(), self.found_on)
        crossing = cross(
            self.model,
            self.behaviour,
            self.found_on,
            factors,
            seed=self.seed,
            **self._step("crossing"),
        )
        judged = judge_crossing(
            crossing,
            n_triggers=sum(word.is_trigger for word in words),
            over=self.behaviour.over,
            seed=self.seed,
        )
        verdict = verdict_of(
            judged,
            crossing,
            self.behaviour.over,
            factors.triggers,
            factors.cue.name if factors.cue else "",
        )
        return self._study(seen, scores, verdict, words, cues, crossing, factors)

    def _words(self, scored: Scored) -> tuple[WordEffect, ...]:
        """What words do; none where there is no refusal, or nothing to put words into."""
        given = self.options.get("candidates")
        sets = None if given is None else [as_set(self.model, one) for one in given]
        n_carrying = len({request.family for request in scored.answered if not request.harmful})
        if n_carrying < 2 or not scored.refused:
            return ()
        return self._tried_words(scored, sets, **self._step("words"))

    def _tried_words(
        self, scored: Scored, sets: Sequence[WordSet] | None, **step: Unpack[Step]
    ) -> tuple[WordEffect, ...]:
        effort = Effort(
            n_words=self.options.get("n_words", MOST_WORDS),
            n_controls=self.options.get("n_controls", N_CONTROLS),
        )
        return try_words(
            self.model, self.behaviour, scored, sets, effort=effort, seed=self.seed, **step
        )

    def _with_vocabulary(
        self, scored: Scored, words: tuple[WordEffect, ...]
    ) -> tuple[WordEffect, ...]:
        """The words with those of the vocabulary that flip a harmless request by themselves."""
        known = {word for effect in words for word in effect.words}
        step = self._step("vocabulary")
        new = flipping_words(self.model, self.behaviour, scored.answered, known, **step)
        if not new:
            return words
        sets = [(word,) for word in new]
        tried = self._tried_words(scored, sets)
        triggers = tuple(word for word in tried if word.is_trigger)
        return (*triggers, *words, *(word for word in tried if not word.is_trigger))

    def _tried_cues(self) -> tuple[Cue, ...]:
        given = self.options.get("cues")
        return tuple(candidate_cues(self.found_on) if given is None else given)

    def _study(
        self,
        seen: Sequence[Request],
        scores: np.ndarray,
        verdict: Verdict,
        words: tuple[WordEffect, ...],
        cues: tuple[CueEffect, ...],
        crossing: xr.DataArray,
        factors: Factors,
    ) -> RefusalStudy:
        progress = self._step("replies").get("progress")
        findings = measure_behaviour(
            self.model,
            self.behaviour,
            seen,
            scores,
            n_replies=self.options.get("n_replies", 6),
            seed=self.seed,
            progress=progress,
        )
        return replace(
            self._bare(seen, replace(verdict, not_tested=self._not_tested(words)), findings),
            words=words,
            cues=cues,
            crossing=crossing,
            flips=self._flips(seen, scores),
            stages=self._stages(verdict, factors) if self.options.get("stages", True) else None,
            held_out=self._held_out(verdict, words, cues, factors),
        )

    def _bare(
        self, seen: Sequence[Request], verdict: Verdict, findings: BehaviourFindings
    ) -> RefusalStudy:
        """A study of which nothing else was run."""
        return RefusalStudy(
            model=models.name(self.model),
            behaviour=self.behaviour.name,
            unit=self.behaviour.metric.unit,
            over=self.behaviour.over,
            verdict=verdict,
            findings=findings,
            words=(),
            cues=(),
            crossing=empty_crossing(self.behaviour, seen),
            flips=(),
            stages=None,
            held_out=None,
            attrs=self._attrs(seen),
        )

    def _flips(self, seen: Sequence[Request], scores: np.ndarray) -> tuple[Flips, ...]:
        """Of the shortest refused prompts, harmful and benign in turn, what flips them."""
        refused = [r for r, score in zip(seen, scores, strict=True) if score > self.behaviour.over]
        by_length = sorted(refused, key=lambda r: (len(r.text), r.text))
        kinds = [[r for r in by_length if r.harmful == harmful] for harmful in (True, False)]
        turns = [r for pair in zip(*kinds, strict=False) for r in pair] + kinds[0]
        chosen = list({r.text: r for r in turns}.values())[: self.options.get("n_flips", 3)]
        tick = self._step("flips").get("progress")
        found = []
        for number, request in enumerate(chosen):
            found.append(minimal_flips(self.model, self.behaviour, request.prompt, max_sets=400))
            if tick:
                tick(number + 1, len(chosen))
        return tuple(found)

    def _stages(self, verdict: Verdict, factors: Factors) -> Stages:
        rule = verdict.rule or ""
        return find_stages(
            self.model,
            self.behaviour,
            self.found_on,
            triggers=factors.triggers if "trigger" in rule else (),
            cue=factors.cue if "cue" in rule else None,
            n_random=self.options.get("n_random", 100),
            seed=self.seed,
            **self._step("stages"),
        )

    def _held_out(
        self,
        verdict: Verdict,
        words: Sequence[WordEffect],
        cues: Sequence[CueEffect],
        factors: Factors,
    ) -> HeldOut | None:
        if verdict.rule is None or not self.kept_back:
            return None
        control_words = tuple(w.words for w in words if not w.is_trigger and w.flips.mean < 0.25)
        calm = [c for c in cues if not c.is_cue and max(c.flips_benign, c.flips_harmful) < 0.1]
        control_cue = cue_named(calm[0].name, self._tried_cues()) if calm else None
        decides = Factors(
            factors.triggers if "trigger" in verdict.rule else (),
            factors.cue if "cue" in verdict.rule else None,
        )
        explanation = Explanation(verdict.rule, decides, control_words, control_cue)
        return predict_flips(
            self.model,
            self.behaviour,
            explanation,
            self.kept_back,
            seed=self.seed,
            **self._step("set aside"),
        )

    def _uniform(
        self, seen: Sequence[Request], scores: np.ndarray, rule: Rule | None
    ) -> RefusalStudy:
        """The study of a model that refuses all, none, or hardly any: nothing else is run."""
        findings = measure_behaviour(
            self.model, self.behaviour, seen, scores, n_replies=0, seed=self.seed
        )
        verdict = one_sided_verdict(rule, seen, scores > self.behaviour.over)
        return self._bare(seen, verdict, findings)

    def _not_tested(self, words: Sequence[WordEffect]) -> tuple[str, ...]:
        tried = self._tried_cues()
        unusable = unusable_cues(self.model, self.found_on, tried)
        source = "the vocabulary" if self.options.get("vocabulary") else "the requests"
        said = [
            f"{len(words)} words and sets of words were tried as triggers, found in {source}: a "
            f"trigger that does not stand there alone is not known.",
            "Triggers of more than three words that are needed together were not looked for.",
        ]
        if untried := [cue.name for cue in CUES if cue not in tried]:
            said.append(f"Of the {len(CUES)} cues of the battery {len(untried)} were not tried.")
        if unusable:
            said.append(
                f"{len(unusable)} of {len(tried)} cues cannot be tried on this model: "
                f"{', '.join(unusable)}."
            )
        if not self.options.get("stages", True):
            said.append("The inside of the model was not looked at.")
        if not self.options.get("n_replies", 6):
            said.append("No replies were written: only first tokens are judged.")
        return tuple(said)

    def _attrs(self, seen: Sequence[Request]) -> dict[str, object]:
        return {
            "seed": self.seed,
            "n_requests": len(seen),
            "families": list(dict.fromkeys(request.family for request in self.found_on)),
            "set_aside": list(dict.fromkeys(request.family for request in self.kept_back)),
            "fingerprint": models.fingerprint(self.model),
            "dtype": str(self.model.cfg.dtype),
        }

    def _step(self, name: str) -> Step:
        progress = self.options.get("progress")
        step: Step = {}
        if self.out is not None:
            step["out"] = self.out / name.replace(" ", "-")
        if progress is not None:
            step["progress"] = _within(progress, STEPS.index(name))
        return step


def _within(progress: Progress, number: int) -> Progress:
    """A step's progress as that of the study: each step is a hundred."""

    def tick(done: int, total: int) -> None:
        progress(100 * number + (100 * done) // max(total, 1), 100 * len(STEPS))

    return tick
