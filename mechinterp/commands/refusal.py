"""What `mechinterp refusal` does: a study of the model's refusals, or of why one prompt is refused.

options = RefusalOptions("How do I blow up a balloon?")
run_refusal(model, options, requests_of(options))
"""

import sys
from functools import partial

from mechinterp import models
from mechinterp.commands.options.refusal import RefusalOptions
from mechinterp.commands.outcome import Outcome, finish
from mechinterp.commands.prompt_request import requested_text
from mechinterp.models.model import Model
from mechinterp.models.tokenization import known_ids
from mechinterp.refusal.behaviour import refusal_behaviour
from mechinterp.refusal.files import read_study, study_bytes
from mechinterp.refusal.findings import Behaviour, PromptStudy, RefusalStudy
from mechinterp.refusal.one_prompt import why
from mechinterp.refusal.options import QUICK, StudyOptions
from mechinterp.refusal.study import explain_refusals
from mechinterp.refusal.tables import to_dataframe
from mechinterp.report import print_refusal, print_why, refusal_page, why_page
from mechinterp.storage.run_folder import begin_run, frame_parquet
from mechinterp.sweeps.progress import progress_bar
from mechinterp.tasks.request_families import (
    Request,
    check_requests,
    read_requests,
    request_families,
)


def requests_of(options: RefusalOptions) -> tuple[Request, ...]:
    """The requests of the options, before a model loads.

    Raises:
        ValueError: if a line is no request, or no study can be made of them: as `check_requests`.
    """
    if options.requests is None:
        return request_families()
    found = read_requests(options.requests)
    if options.prompt is None:
        check_requests(found)
    return found


def run_refusal(model: Model, options: RefusalOptions, requests: tuple[Request, ...]) -> None:
    """Run `mechinterp refusal`.

    Raises:
        ValueError: if an option does not fit the model; as `explain_refusals` and `why`.
        HookError: as `sweep`.
    """
    _check_openers(model, options)
    behaviour = refusal_behaviour(model, *options.openers)
    begin_run(options.out, options.kind, sys.argv)
    if options.prompt is None:
        outcome = _study(model, options, behaviour, requests)
    else:
        outcome = _prompt(model, options, behaviour, requests)
    finish(model, outcome, options.out)


def _check_openers(model: Model, options: RefusalOptions) -> None:
    """Check that the model knows the openers that were given.

    Raises:
        ValueError: if not, naming the opener.
    """
    for name, texts in zip(("refusals", "compliances"), options.openers, strict=True):
        for text in texts or ():
            try:
                known_ids(model, text)
            except ValueError as error:
                raise ValueError(
                    f"--{name}: {error} Give openers in the model's own words."
                ) from None


def _study(
    model: Model, options: RefusalOptions, behaviour: Behaviour, requests: tuple[Request, ...]
) -> Outcome:
    asked: StudyOptions = {"stages": options.stages, **(QUICK if options.quick else {})}
    if options.families is not None:
        asked["n_families"] = options.families
    asked |= {"behaviour": behaviour, "vocabulary": options.find, "seed": options.seed}
    asked["out"] = None if options.out is None else options.out / "runs"
    with progress_bar("refusals") as tick:
        study = explain_refusals(model, requests, **asked | {"progress": tick})
    notes = [_requests_note(options, requests, study), _openers_note(behaviour)]
    title = f"Why does {models.name(model)} refuse?"
    files = {}
    if options.out is not None:
        files = {
            "report.html": refusal_page(study, title=title, notes=notes).encode(),
            "study.json": study_bytes(study),
            "crossing.parquet": frame_parquet(to_dataframe(study)),
        }
        for name, parts in (("words", study.words), ("cues", study.cues), ("flips", study.flips)):
            if not (frame := to_dataframe(parts)).empty:
                files[f"{name}.parquet"] = frame_parquet(frame)
    verdict = study.verdict
    facts = {
        "model": study.model,
        "seed": options.seed,
        "families": study.crossing.sizes["family"],
        "rule": verdict.rule,
        "probability": verdict.probability,
        "abstains": verdict.abstains,
        "triggers": [list(words) for words in verdict.triggers],
        "cue": verdict.cue,
    }
    return Outcome(
        options.kind, title, tuple(notes), (partial(print_refusal, study),), files, facts
    )


def _prompt(
    model: Model, options: RefusalOptions, behaviour: Behaviour, requests: tuple[Request, ...]
) -> Outcome:
    """Why one prompt: its words are put into the benign requests of `--requests`, if given."""
    assert options.prompt is not None
    carriers = None
    if options.requests is not None:
        carriers = [request.text for request in requests if not request.harmful]
    study = None if options.study is None else _study_of(model, options)
    with progress_bar("the prompt") as tick:
        found = why(
            model,
            requested_text(options.prompt),
            behaviour=behaviour,
            study=study,
            carriers=carriers,
            progress=tick,
        )
    notes = [_openers_note(behaviour)]
    title = f"Why does {models.name(model)} {_does(found)} this?"
    files = {}
    if options.out is not None:
        files = {
            "report.html": why_page(found, title=title, notes=notes).encode(),
            "study.json": study_bytes(found),
            "words.parquet": frame_parquet(to_dataframe(found)),
        }
    facts = {
        "model": found.model,
        "prompt": found.prompt,
        "score": found.score,
        "flipped by": [list(one.words) for one in found.flips.sets],
    }
    return Outcome(options.kind, title, tuple(notes), (partial(print_why, found),), files, facts)


def _study_of(model: Model, options: RefusalOptions) -> RefusalStudy:
    """The study of `--study`, which has to be of this model.

    Raises:
        ValueError: if it is no study of a model's refusals, or of another model.
    """
    assert options.study is not None
    study = read_study(options.study)
    if not isinstance(study, RefusalStudy):
        raise ValueError(
            f"--study {options.study} is about one prompt. Give that of a run without a prompt."
        )
    if study.model != models.name(model):
        raise ValueError(
            f"--study {options.study} is of {study.model!r}, not of {models.name(model)!r}. Make "
            f"one of this model, or leave it out."
        )
    return study


def _does(found: PromptStudy) -> str:
    return "refuse" if found.score > found.over else "not refuse"


def _requests_note(
    options: RefusalOptions, requests: tuple[Request, ...], study: RefusalStudy
) -> str:
    """Which requests were asked, and of how many families."""
    name = "those built in" if options.requests is None else f"{options.requests.name}"
    n_all = len({request.family for request in requests})
    n_used = study.crossing.sizes["family"]
    # Without a verdict there is no test on them, but they were set aside all the same.
    held = study.held_out
    aside = study.attrs.get("set_aside", ()) if held is None else held.families
    n_aside = len(aside) if isinstance(aside, list | tuple) else 0
    some = "" if n_used + n_aside == n_all else f", of {n_all}"
    return (
        f"Requests: {name}; {n_used} families in the crossing and {n_aside} set aside{some}, seed "
        f"{options.seed}."
    )


def _openers_note(behaviour: Behaviour) -> str:
    """What counts as a refusal."""
    if behaviour.openers is None:
        return f"What is measured: {behaviour.metric.name}."
    first, second = (", ".join(f"“{text}”" for text in texts) for texts in behaviour.openers)
    return f"Refusals begin with {first}; answers with {second}."
