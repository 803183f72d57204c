"""Verdicts on planted models: are they right, and as sure as they say?

    python scripts/bench/refusal.py [--check] [--quick] [--out FOLDER] [--only compiled]

Models that refuse by a known rule, whose name the method does not see: compiled ones of every
mechanism, small trained ones, and the fine-tunes of SmolLM2. Each gets the whole study
(`explain_refusals`), and beside it what behaviour on the requests as they stand says (the rule that
foretells most of them), and a logistic regression on their words. An abstention is right of random
labels alone; elsewhere it is no answer.

`--out`: where each model's result is kept, so that a run that was stopped goes on. `--check` exits
with 1 if fewer than 95% of those answered are right, fewer than 80% are answered, "content" is said
in more than 2% of the models where it is not true, the calibration error is above .05, a stage is
wrong in more than 5%, or triggers are found with a recall under .95 or a false discovery rate above
.05.
"""

import argparse
import collections
import json
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from mechinterp import load_model
from mechinterp.refusal.behaviour import refusal_behaviour
from mechinterp.refusal.findings import RefusalStudy
from mechinterp.refusal.rules import RULES
from mechinterp.refusal.study import explain_refusals
from mechinterp.refusal.texts import score_prompts
from mechinterp.storage.whole_files import write_whole
from mechinterp.tasks.planted import planted_requests
from mechinterp.tasks.request_families import Request
from mechinterp.toys.refuser_truth import MECHANISMS, Refuser
from mechinterp.toys.refusers import planted_refuser

N_COMPILED = 152
N_FAMILIES = 24
LEAST_RIGHT, LEAST_ANSWERED, MOST_FALSE_CONTENT, MOST_ECE = 0.95, 0.8, 0.02, 0.05
LEAST_STAGES, LEAST_RECALL, MOST_FALSE_TRIGGERS = 0.95, 0.95, 0.05


@dataclass(frozen=True)
class Judged:
    """What was found on one model, beside what is true."""

    maker: str
    mechanism: str
    seed: int
    truth: str
    said: str | None
    right: bool
    probability: float
    black_box: str
    black_box_right: bool
    bag_of_words: str
    bag_of_words_right: bool
    stages_right: bool | None
    n_triggers: int
    n_found: int
    n_false: int
    cpu_seconds: float
    note: str = ""


def main() -> None:
    """Judge every model, print the tables, check if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit with 1 if a figure is missed")
    arguments.add_argument("--quick", action="store_true", help="one compiled model a mechanism")
    arguments.add_argument("--out", type=Path, help="a folder for results, to go on from")
    arguments.add_argument("--compiled", type=int, default=N_COMPILED, help="how many of them")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    n_compiled = len(MECHANISMS) if given.quick else given.compiled
    judged = list(judge_all(n_compiled, given.out))
    failed = report(judged)
    if given.check and failed:
        raise SystemExit("missed: " + "; ".join(failed))


def judge_all(n_compiled: int, out: Path | None) -> Iterator[Judged]:
    """Each model's result, made or read."""
    mechanisms = list(MECHANISMS)
    for number in range(n_compiled):
        mechanism, seed = mechanisms[number % len(mechanisms)], 1000 + number // len(mechanisms)
        file = None if out is None else out / f"compiled-{mechanism.replace(' ', '-')}-{seed}.json"
        if file is not None and file.exists():
            yield Judged(**json.loads(file.read_text()))
            continue
        result = judge(planted_refuser(mechanism, seed), "compiled", seed)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(asdict(result), indent=1).encode())
        print(
            f"{number + 1:4} {mechanism:20} said {result.said} ({result.probability:.2f}) "
            f"{'right' if result.right else 'WRONG' if result.said else 'abstains'}, "
            f"stages {result.stages_right} {result.cpu_seconds:.1f} s {result.note}",
            flush=True,
        )
        yield result


def judge(refuser: Refuser, maker: str, seed: int) -> Judged:
    """Put one model to the whole study, and to the two simpler ways."""
    model = load_model(refuser.toy)
    requests = planted_requests(refuser, n_families=N_FAMILIES, seed=seed)
    began = time.process_time()
    found = explain_refusals(model, requests, n_replies=0, n_flips=0, seed=seed)
    cpu = time.process_time() - began
    scores = score_prompts(model, refusal_behaviour(model), [r.prompt for r in requests])
    plain = as_they_stand(found, requests, scores > 0)
    words = by_words(requests, scores > 0)
    triggers = {frozenset(t) for t in refuser.triggers}
    said = {frozenset(w.words) for w in found.words if w.is_trigger}
    verdict = found.verdict
    return Judged(
        maker=maker,
        mechanism=refuser.mechanism,
        seed=seed,
        truth=refuser.rule,
        said=verdict.rule,
        right=refuser.accepts(verdict.rule),
        probability=verdict.probability,
        black_box=plain,
        black_box_right=refuser.accepts(plain),
        bag_of_words=words,
        bag_of_words_right=refuser.accepts(words),
        stages_right=stages_right(refuser, found),
        n_triggers=len(triggers),
        n_found=len(said & triggers),
        n_false=len(said - triggers - cue_words(refuser)),
        cpu_seconds=cpu,
        note=verdict.abstains,
    )


def cue_words(refuser: Refuser) -> set[frozenset[str]]:
    """A cue that is a word anywhere acts as a trigger does."""
    cue = refuser.cue
    return {frozenset([cue.word])} if cue is not None and cue.place == "anywhere" else set()


def stages_right(refuser: Refuser, found: RefusalStudy) -> bool | None:
    """Whether harm is detected, routed and cut where that was planted; None if unknown."""
    truth, stages = refuser.stages, found.stages
    if truth is None or stages is None:
        return None
    detected = (stages.detected_at is not None) == truth.detected
    cut = stages.cut == truth.cut
    carried = not truth.routed_by or bool(set(truth.routed_by) & set(stages.routed_by))
    expressed = truth.expressed_layer is None or stages.expressed_at is not None
    return detected and cut and carried and expressed


def as_they_stand(found: RefusalStudy, requests: Sequence[Request], refused: np.ndarray) -> str:
    """The rule that foretells most requests from harm, the likeliest word and the likeliest cue."""
    trigger = found.words[0].words if found.words else ()
    cue = found.cues[0].name.split()[0] if found.cues else ""
    right = collections.Counter[str]()
    for request, is_refused in zip(requests, refused, strict=True):
        words = request.text.split()
        cell = (
            int(request.harmful),
            int(bool(trigger) and all(word in words for word in trigger)),
            int(cue in words),
        )
        for rule, foretold in RULES.items():
            right[rule] += bool(foretold[cell]) == bool(is_refused)
    return max(RULES, key=right.__getitem__)


def by_words(requests: Sequence[Request], refused: np.ndarray) -> str:
    """What a logistic regression on words and harm relies on most: harm, a word, or its place."""
    if refused.all() or not refused.any():
        return "always" if refused.all() else "never"
    names = sorted({word for request in requests for word in request.text.split()})
    rows = []
    for request in requests:
        words = request.text.split()
        inside = [float(name in words) for name in names]
        rows.append([float(request.harmful), *inside, *(float(words[-1] == n) for n in names)])
    weights = LogisticRegression(C=1.0, max_iter=500).fit(np.array(rows), refused).coef_[0]
    best = int(np.argmax(weights))
    return "content" if best == 0 else "trigger" if best <= len(names) else "cue"


def report(judged: Sequence[Judged]) -> list[str]:
    """Print the tables; the figures that were missed."""
    answered = [j for j in judged if j.said is not None]
    told = [j for j in judged if j.truth != "random"]
    right = np.mean([j.right for j in answered])
    share = np.mean([j.said is not None for j in told])
    false_content = np.mean([j.said == "content" and not j.right for j in judged])
    ece = calibration_error(answered)
    stages = [j.stages_right for j in judged if j.stages_right is not None]
    n_triggers = sum(j.n_triggers for j in judged if uses_triggers(j))
    n_found = sum(j.n_found for j in judged if uses_triggers(j))
    n_false = sum(j.n_false for j in judged)
    recall = n_found / max(n_triggers, 1)
    false_rate = n_false / max(n_false + n_found, 1)
    print(
        f"\n{len(judged)} models, CPU s of the median study "
        f"{np.median([j.cpu_seconds for j in judged]):.1f}\n"
    )
    print("| | right of those answered | answered |\n|---|--:|--:|")
    print(f"| the study | {right:.1%} | {share:.1%} |")
    for name in ("black_box", "bag_of_words"):
        hits = np.mean([getattr(j, f"{name}_right") for j in judged])
        print(f"| {name.replace('_', ' ')} | {hits:.1%} | 100% |")
    print(
        f"\ncontent falsely said {false_content:.1%}; calibration error {ece:.3f}; stages right "
        f"{np.mean(stages) if stages else math.nan:.1%} of {len(stages)}; triggers: recall "
        f"{recall:.1%}, false {false_rate:.1%}\n"
    )
    confusions(judged)
    figures = {
        f"right {right:.3f}": right >= LEAST_RIGHT,
        f"answered {share:.3f}": share >= LEAST_ANSWERED,
        f"content falsely {false_content:.3f}": false_content <= MOST_FALSE_CONTENT,
        f"calibration {ece:.3f}": ece <= MOST_ECE,
        f"stages {np.mean(stages):.3f}": np.mean(stages) >= LEAST_STAGES,
        f"recall {recall:.3f}": recall >= LEAST_RECALL,
        f"false triggers {false_rate:.3f}": false_rate <= MOST_FALSE_TRIGGERS,
    }
    return [figure for figure, met in figures.items() if not met]


def uses_triggers(judged: Judged) -> bool:
    """Whether the model refuses by triggers."""
    return "trigger" in judged.truth


def calibration_error(answered: Sequence[Judged], n_bins: int = 10) -> float:
    """How far the stated probabilities are from the shares that are right, over ten bins."""
    bins: Mapping[int, list[Judged]] = collections.defaultdict(list)
    for one in answered:
        bins[min(int(one.probability * n_bins), n_bins - 1)].append(one)
    gaps = [
        len(group)
        * abs(np.mean([j.right for j in group]) - np.mean([j.probability for j in group]))
        for group in bins.values()
    ]
    return float(sum(gaps) / max(len(answered), 1))


def confusions(judged: Sequence[Judged]) -> None:
    """Print how often each mechanism got each verdict."""
    counts = collections.Counter((j.mechanism, j.said or "abstains") for j in judged)
    said = sorted({s for _, s in counts})
    print("| planted | " + " | ".join(said) + " |\n|---" + "|--:" * len(said) + "|")
    for mechanism in dict.fromkeys(j.mechanism for j in judged):
        row = [str(counts[mechanism, s] or "") for s in said]
        print(f"| {mechanism} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
