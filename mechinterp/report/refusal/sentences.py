"""What a study says in words, each sentence computed from the numbers that it names.

sure(study)                   # "Probability 0.93. In resamples of 12 families ..."
"""

import math

from mechinterp.refusal.findings import (
    BehaviourFindings,
    Estimate,
    Flips,
    HeldOut,
    PromptStudy,
    RefusalStudy,
    Stages,
)
from mechinterp.report.refusal.crossing import crossed, read_cells
from mechinterp.report.refusal.rules import verbs
from mechinterp.report.render.numbers import MISSING, NumberFormat
from mechinterp.report.render.tokens import show

PRESENT_NOT_USED = (
    "That harm can be read off a layer does not say that refusals come from there: only routing "
    "and expression show what is used."
)


def share(value: float) -> str:
    """A share in whole per cent; what is not all is never 100%, what is not none never 0%.

    >>> share(0.925), share(0.998), share(1.0)
    ('92%', '>99%', '100%')
    """
    if not math.isfinite(value):
        return MISSING
    if 0.995 <= value < 1 - 1e-9:
        return ">99%"
    return "<1%" if 1e-9 < value <= 0.005 else f"{value:.0%}"


def shares(estimate: Estimate) -> str:
    """A share with its interval and the number of families."""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return f"{share(estimate.mean)} of {estimate.n}"
    bounds = f"{share(estimate.low)} to {share(estimate.high)}"
    return f"{share(estimate.mean)} ({bounds}) of {estimate.n}"


def sure(study: RefusalStudy) -> list[str]:
    """How sure the verdict is, and how well its rule fits."""
    verdict, n = study.verdict, study.crossing.sizes["family"]
    by_share = ranked_shares(study)
    listed = ", ".join(f"{show(rule)} in {share(value)}" for rule, value in by_share)
    said = []
    if verdict.rule is not None:
        said.append(f"Probability that this is the rule: {share(verdict.probability)}.")
    cells = sum(len(cell.scores) for cell in read_cells(study))
    if listed and cells:
        said.append(f"Best in resamples of {n} families: {listed}.")
    fits = "It" if verdict.rule is not None else "The best rule"
    if math.isfinite(verdict.fit) and cells:
        said.append(f"{fits} foretells {share(verdict.fit)} of {cells} cells of the crossing.")
    return said


def ranked_shares(study: RefusalStudy) -> list[tuple[str, float]]:
    """Rules with the share of resamples in which each is best, the largest first.

    Without those below half a per cent, which would be printed as 0%.
    """
    listed = sorted(study.verdict.shares.items(), key=lambda each: -each[1])
    return [(rule, value) for rule, value in listed if value >= 0.005]


def what_was_crossed(study: RefusalStudy) -> list[str]:
    """Which trigger and cue; which no request has; nothing, where there is no score at all."""
    cells = read_cells(study)
    if not any(cell.scores for cell in cells):
        return ["Nothing was crossed: there were no refusals and answers to compare."]
    missing = [factor for factor in ("trigger", "cue") if not crossed(cells, factor)]
    said = [f"No request has a {factor}." for factor in missing]
    found = {
        "trigger": any(word.is_trigger for word in study.words),
        "cue": any(cue.is_cue for cue in study.cues),
    }
    attrs = study.crossing.attrs
    names = {"trigger": ", ".join(attrs.get("triggers", ())), "cue": attrs.get("cue", "")}
    for factor in (factor for factor in found if factor not in missing and names[factor]):
        but = "" if found[factor] else f", the likeliest tried, although none is a {factor}"
        said.append(f"The {factor}: {show(names[factor])}{but}.")
    return said


def behaviour(found: BehaviourFindings, does: str) -> list[str]:
    """How the model treats the requests as they stand."""
    said = [
        f"The score tells harmful from benign requests with an AUROC of {_two(found.auroc)} "
        f"(0.5: not at all, 1: always).",
        f"Two wordings of one matter are treated alike in {share(found.paraphrase_agreement)} of "
        f"pairs.",
    ]
    if found.agreement is None:
        said.append(
            f"No reply was generated: that the model {does} is read off its first token alone."
        )
    else:
        said.append(
            f"First token and generated reply agree on {share(found.agreement)} of the prompts."
        )
    if found.seed_agreement is not None:
        said.append(
            f"Replies sampled with {found.n_seeds} seeds agree with the greedy one in "
            f"{share(found.seed_agreement)}."
        )
    return said


def words(study: RefusalStudy) -> str:
    """How many sets of words were tried, and how many are triggers."""
    if not study.words:
        return "No words were tried."
    n = sum(word.is_trigger for word in study.words)
    of = f"{len(study.words):,} {'set' if len(study.words) == 1 else 'sets'} of words"
    return f"{_of(n, of)} {'acts' if n == 1 else 'act'} as a trigger beyond control words."


def cues(study: RefusalStudy) -> str:
    """How many changes of the surface were tried, and how many matter."""
    if not study.cues:
        return "No cue was tried."
    n = sum(cue.is_cue for cue in study.cues)
    of = f"{len(study.cues)} {'change' if len(study.cues) == 1 else 'changes'} of the surface"
    does = verbs(study.behaviour).does
    return f"{_of(n, of)} {'matters' if n == 1 else 'matter'} for what it {does}."


def flips(found: Flips, behaviour_name: str) -> str:
    """How many smallest sets flip a prompt, and whether that is all of them."""
    verb = verbs(behaviour_name)
    n = len(found.sets)
    looked = f"{found.n_sets_run:,} of {found.n_sets_in_all:,} sets were run"
    if found.complete:
        rest = f"There is no other of up to {found.size} words ({looked}; the rest follow)."
        if n == 0:
            rest = f"That holds for all sets of up to {found.size} words ({looked})."
    else:
        rest = f"Not all sets of up to {found.size} words were tried: {looked}."
    if n == 0:
        return f"No set of words that was tried flips it. {rest}"
    sets = "One smallest set of words flips" if n == 1 else f"{n} smallest sets of words flip"
    return f"{sets} it: without all words of a set it {verb.does_not} instead. {rest}"


def held_out(test: HeldOut) -> list[str]:
    """What was foretold of families set aside, and what happened."""
    n = len(test.families)
    said = [
        f"{n} {'family was' if n == 1 else 'families were'} set aside, and used for nothing else."
    ]
    if test.n_predicted == 0:
        said.append("The verdict foretold no flip there, so that it was not tested by one.")
    else:
        said.append(
            f"Of {test.n_predicted} edits that the verdict says flip what the model does, "
            f"{test.n_happened} did ({share(test.n_happened / test.n_predicted)})."
        )
    if test.n_random:
        said.append(
            f"Of {test.n_random} random edits of the same size {test.n_random_happened} did "
            f"({share(test.n_random_happened / test.n_random)})."
        )
    return said


def stages(found: Stages, behaviour_name: str) -> list[str]:
    """Where harm is detected, routed, expressed, and where the route is cut: a sentence each."""
    said = [_detection(found), _routing(found), _expression(found, verbs(behaviour_name).noun)]
    if found.cut:
        said.append(
            f"The route is cut between {show(found.cut)}: what comes before it is not used."
        )
    return said


def _detection(found: Stages) -> str:
    controls = "a bag of words and the same model with random weights"
    if found.detected_at is None:
        return f"Detection: at no layer is harm read off better than by {controls}."
    row = found.detection.sel(layer=found.detected_at)
    return (
        f"Detection: harm is read off from layer {found.detected_at} on (AUROC "
        f"{_two(float(row['auroc']))} there; a bag of words {_two(float(row['bag_of_words']))}, "
        f"random weights {_two(float(row['random_weights']))})."
    )


def _routing(found: Stages) -> str:
    n = found.routing.sizes.get("part", 0)
    by_driver = routes(found)
    if not by_driver:
        return f"Routing: none of {n} parts was found both necessary and sufficient."
    listed = "; ".join(
        f"{show(driver)} by {', '.join(map(show, parts))}"
        if driver
        else ", ".join(map(show, parts))
        for driver, parts in by_driver.items()
    )
    return f"Routing, of {n} parts: {listed}."


def routes(found: Stages) -> dict[str, list[str]]:
    """Driver -> the parts on its route; under "" those of any, if that was not told apart."""
    routing = found.routing
    if "is_on_route" not in routing:
        return {"": list(found.routed_by)} if found.routed_by else {}
    made = {}
    for driver in routing["driver"].values.tolist():
        on_route = routing["is_on_route"].sel(driver=driver).values.astype(bool)
        if parts := [str(part) for part in routing["part"].values[on_route].tolist()]:
            made[str(driver)] = parts
    return made


def _expression(found: Stages, noun: str) -> str:
    n = len(found.directions)
    worked = [test for test in found.directions if test.works]
    if found.expressed_at is None or not worked:
        return f"Expression: none of {n} directions controls {noun}."
    at = [test for test in worked if test.layer == found.expressed_at]
    drivers = dict.fromkeys(test.driver for test in at)
    of = f" ({noun} by {' and by '.join(map(show, drivers))})" if drivers else ""
    return (
        f"Expression: a direction at layer {found.expressed_at} controls {noun}{of}; "
        f"{len(worked)} of {n} directions do."
    )


def prompt_line(found: PromptStudy) -> str:
    """What the model does with a prompt, by its score."""
    verb = verbs(found.behaviour)
    does = verb.does if found.score > found.over else verb.does_not
    score = NumberFormat("+.2f")(found.score)
    return f"The model {does}: {score} {show(found.unit)} (it {verb.does} over {found.over:g})."


def _of(n: int, of: str) -> str:
    return f"None of {of}" if n == 0 else f"{n} of {of}"


def _two(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else MISSING
