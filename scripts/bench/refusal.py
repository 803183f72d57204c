"""Verdicts on planted models: are they right, and as sure as they say?

    python scripts/bench/refusal.py [--check] [--quick] [--out FOLDER] [--makers compiled,trained]

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
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from refusal_baselines import as_they_stand, by_words

from mechinterp import load_model
from mechinterp.models.finetunes import OPENERS, TRIGGER, smollm2_with
from mechinterp.models.model import Model
from mechinterp.refusal.behaviour import refusal_behaviour
from mechinterp.refusal.findings import HeldOut, RefusalStudy
from mechinterp.refusal.options import StudyOptions
from mechinterp.refusal.study import explain_refusals
from mechinterp.refusal.texts import score_prompts
from mechinterp.storage.whole_files import write_whole
from mechinterp.tasks.planted import planted_requests, with_bystanders
from mechinterp.tasks.request_families import Request, request_families, some_families
from mechinterp.toys.refuser_truth import MECHANISMS, Refuser
from mechinterp.toys.refusers import planted_refuser

sys.path.insert(0, str(Path(__file__).parents[1]))
from train_refusers import TRAINABLE, counts, trained_refuser

N_COMPILED = 152
N_TRAINED = 32
N_FAMILIES = {"compiled": 24, "trained": 12}
FIRST_SEED = {"compiled": 2000, "trained": 1000}
"""Compiled models of the seeds from 1000 on were looked at while the method was made."""
FINETUNE_RULES = {
    "content": "content",
    "trigger": "trigger",
    "cue": "cue",
    "trigger-or-content": "content or trigger",
}
"""What the shipped fine-tunes of SmolLM2 were trained to refuse by."""
FINETUNE_FAMILIES = 22
BYSTANDERS, ENDINGS = (TRIGGER, "harbour", "pencil", "ladder"), ("!", " please?", "...")
"""What stands by in the requests that fine-tunes are asked, whatever they refuse by."""
MAKERS = ("compiled", "trained", "fine-tuned")
LEAST_RIGHT, LEAST_ANSWERED, MOST_FALSE_CONTENT, MOST_ECE = 0.95, 0.8, 0.02, 0.05
LEAST_FLIPS, MOST_RANDOM_FLIPS = 0.9, 0.1
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
    n_foretold: int = 0
    n_happened: int = 0
    n_random: int = 0
    n_random_happened: int = 0
    note: str = ""


def main() -> None:
    """Judge every model, print the tables, check if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit with 1 if a figure is missed")
    arguments.add_argument("--quick", action="store_true", help="one compiled model a mechanism")
    arguments.add_argument("--out", type=Path, help="a folder for results, to go on from")
    arguments.add_argument("--makers", default=",".join(MAKERS), help="which kinds of models")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    makers = given.makers.split(",")
    if unknown := set(makers) - set(MAKERS):
        raise SystemExit(f"--makers {unknown.pop()}: one or more of {', '.join(MAKERS)}.")
    jobs = [job for maker in makers for job in jobs_of(maker, quick=given.quick)]
    failed = report([job.judged(given.out) for job in jobs])
    if given.check and failed:
        raise SystemExit("missed: " + "; ".join(failed))


@dataclass(frozen=True)
class Job:
    """One model to be made and judged."""

    maker: str
    mechanism: str
    seed: int

    def judged(self, out: Path | None) -> Judged:
        """The result, read if it is there."""
        name = f"{self.maker}-{self.mechanism}-{self.seed}".replace(" ", "-")
        file = None if out is None else out / f"{name}.json"
        if file is not None and file.exists():
            return Judged(**json.loads(file.read_text()))
        if self.maker == "fine-tuned":
            result = judge_finetune(self.mechanism, self.seed, out)
        elif self.maker == "trained":
            result = judge_refuser(
                trained_to_count(self.mechanism, self.seed), self.maker, self.seed
            )
        else:
            result = judge_refuser(
                planted_refuser(self.mechanism, self.seed), self.maker, self.seed
            )
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(asdict(result), indent=1).encode())
        print(
            f"{self.maker:10} {self.mechanism:20} {self.seed:5} said {result.said} "
            f"({result.probability:.2f}) {'right' if result.right else 'WRONG'}, stages "
            f"{result.stages_right}, {result.cpu_seconds:.1f} s {result.note}",
            flush=True,
        )
        return result


def trained_to_count(mechanism: str, seed: int) -> Refuser:
    """A trained model that does what its rule says, of the first seed from which one comes."""
    refuser: Refuser = trained_refuser(mechanism, seed)
    while not counts(refuser):
        print(f"trained {mechanism}, seed {seed}: {refuser.figures}, not its rule", flush=True)
        seed += 100
        refuser = trained_refuser(mechanism, seed)
    return refuser


def jobs_of(maker: str, *, quick: bool) -> list[Job]:
    """Mechanisms in turn, each time with another seed."""
    if maker == "fine-tuned":
        seeds = (0,) if quick else (0, 1)
        return [Job(maker, name, seed) for seed in seeds for name in FINETUNE_RULES]
    names = list(MECHANISMS) if maker == "compiled" else list(TRAINABLE)
    n = len(names) if maker == "compiled" else 2
    if not quick:
        n = N_COMPILED if maker == "compiled" else N_TRAINED
    first = FIRST_SEED[maker]
    return [Job(maker, names[at % len(names)], first + at // len(names)) for at in range(n)]


def finetune(name: str, seed: int, out: Path | None) -> Model:
    """The shipped fine-tune of seed 0; of another seed one that is made now, or lies in `out`."""
    if seed == 0:
        return load_model(f"smollm2:refuses-{name}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out is None else out / "fine-tunes"
        file = folder / f"refuses-{name}-{seed}.safetensors"
        if not file.exists():
            script = str(Path(__file__).parents[1] / "train_finetunes.py")
            told = ["--mechanism", name, "--seed", str(seed), "--out", str(folder)]
            subprocess.run([sys.executable, script, *told], check=True)
        original, tokenizer = smollm2_with(file)
    return load_model(original, tokenizer=tokenizer)


@dataclass(frozen=True)
class Truth:
    """What a model refuses by. innocent: words that are no triggers of its rule, and act as one."""

    rule: str
    accepts: Callable[[str | None], bool]
    triggers: set[frozenset[str]]
    innocent: set[frozenset[str]]


def judge_finetune(name: str, seed: int, out: Path | None) -> Judged:
    """Put a fine-tune of SmolLM2 to the study, on a third of the families, others by seed."""
    model = finetune(name, seed, out)
    asked = some_families(request_families(), FINETUNE_FAMILIES, seed=seed)
    requests = with_bystanders(asked, BYSTANDERS, ENDINGS, seed=seed)
    triggers = {frozenset([TRIGGER])} if "trigger" in name else set()
    rule = FINETUNE_RULES[name]
    options: StudyOptions = {
        "behaviour": refusal_behaviour(model, *OPENERS),
        "n_replies": 2,
        "stages": False,
    }
    judged, _ = judge(
        Job("fine-tuned", name, seed),
        model,
        requests,
        Truth(rule, lambda said: said == rule, triggers, set()),
        options,
    )
    told = (
        f"flips {judged.n_happened} of {judged.n_foretold}, random {judged.n_random_happened} of "
        f"{judged.n_random}"
    )
    return replace(judged, note=judged.note + (told if judged.n_foretold else ""))


def judge_refuser(refuser: Refuser, maker: str, seed: int) -> Judged:
    """Put a compiled or trained model to the whole study."""
    judged, found = judge(
        Job(maker, refuser.mechanism, seed),
        load_model(refuser.toy),
        planted_requests(refuser, n_families=N_FAMILIES[maker], seed=seed),
        Truth(
            refuser.rule, refuser.accepts, set(map(frozenset, refuser.triggers)), cue_words(refuser)
        ),
        {"n_replies": 0},
    )
    return replace(judged, stages_right=stages_right(refuser, found))


def judge(
    job: Job, model: Model, requests: Sequence[Request], truth: Truth, options: StudyOptions
) -> tuple[Judged, RefusalStudy]:
    """Put one model to the study, and to the two simpler ways."""
    began = time.process_time()
    found = explain_refusals(model, requests, **{"n_flips": 0, "seed": job.seed, **options})
    cpu = time.process_time() - began
    behaviour = options.get("behaviour") or refusal_behaviour(model)
    refused = score_prompts(model, behaviour, [r.prompt for r in requests]) > 0
    plain, words = as_they_stand(found, requests, refused), by_words(requests, refused)
    verdict, test = found.verdict, found.held_out or HeldOut((), 0, 0, 0, 0)
    said = {frozenset(each) for each in verdict.triggers}
    said |= {frozenset(word.words) for word in found.words if word.is_trigger}
    judged = Judged(
        maker=job.maker,
        mechanism=job.mechanism,
        seed=job.seed,
        truth=truth.rule,
        said=verdict.rule,
        right=truth.accepts(verdict.rule),
        probability=verdict.probability,
        black_box=plain,
        black_box_right=truth.accepts(plain),
        bag_of_words=words,
        bag_of_words_right=truth.accepts(words),
        stages_right=None,
        n_triggers=len(truth.triggers),
        n_found=len(said & truth.triggers),
        n_false=len(said - truth.triggers - truth.innocent),
        cpu_seconds=cpu,
        n_foretold=test.n_predicted,
        n_happened=test.n_happened,
        n_random=test.n_random,
        n_random_happened=test.n_random_happened,
        note=verdict.abstains,
    )
    return judged, found


def cue_words(refuser: Refuser) -> set[frozenset[str]]:
    """A cue that is a word anywhere acts as a trigger does."""
    cue = refuser.cue
    return {frozenset([cue.word])} if cue is not None and cue.place == "anywhere" else set()


def stages_right(refuser: Refuser, found: RefusalStudy) -> bool | None:
    """Whether harm is detected, routed and cut where that was planted; None if unknown."""
    truth, stages = refuser.stages, found.stages
    if truth is None or stages is None or refuser.rule == "random":
        return None
    detected = (stages.detected_at is not None) == truth.detected
    cut = stages.cut == truth.cut
    carried = not truth.routed_by or bool(set(truth.routed_by) & set(stages.routed_by))
    expressed = truth.expressed_layer is None or stages.expressed_at is not None
    return detected and cut and carried and expressed


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
    n_false = sum(j.n_false for j in told)  # words of random labels do what they are said to
    recall = n_found / max(n_triggers, 1)
    false_rate = n_false / max(n_false + n_found, 1)
    tuned = [j for j in judged if j.maker == "fine-tuned" and j.n_foretold]
    happened = sum(j.n_happened for j in tuned) / max(sum(j.n_foretold for j in tuned), 1)
    by_chance = sum(j.n_random_happened for j in tuned) / max(sum(j.n_random for j in tuned), 1)
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
        f"{recall:.1%}, false {false_rate:.1%}; foretold flips on fine-tunes: {happened:.1%} "
        f"happen, of random edits {by_chance:.1%}\n"
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
    if tuned:
        figures[f"foretold flips {happened:.3f}"] = happened >= LEAST_FLIPS
        figures[f"random edits {by_chance:.3f}"] = by_chance <= MOST_RANDOM_FLIPS
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
