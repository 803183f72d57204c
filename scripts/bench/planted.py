"""Attribution against planted truths: do methods find the words that make a toy refuse?

    python scripts/bench/planted.py [--check] [--quick]

Toys refuse on a single trigger, on either of two (both present), on two together, and on a repeated
trigger: compiled ones, whose mechanism is exact, and `toy:refusal`, which was trained. Prompts are
random words with the triggers at random places; the score is of the log-probability of REFUSE.

Printed for each method: precision@k (k the number of trigger tokens) and the share of the absolute
scores that lies on them, as means over prompts; and how often the redundancy warning comes, also on
prompts that are answered. Where either copy of a repeated trigger is enough, that is redundancy and
the warning is right: it is expected there as for either of two. `--check` exits with 1 if the
hybrid's precision is not 1.00, its share below 0.94, or the warning is missing in a redundant case
or comes in 5% of the others.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import xarray as xr

from mechinterp import ask, load_model
from mechinterp.attribution.methods.attention import attention_rollout
from mechinterp.attribution.methods.gradient import gradient_x_input, integrated_gradients
from mechinterp.attribution.methods.redundancy import pair_removals
from mechinterp.attribution.methods.single_removal import RedundancyWarning, leave_one_out
from mechinterp.attribution.methods.subsets import kernel_shap, sparse_surrogate
from mechinterp.attribution.question.definition import Question
from mechinterp.models import Model

WANTED_SHARE = 0.94
MOST_FALSE_ALARMS = 0.05
HYBRID = "single and pair deletions"


@dataclass(frozen=True)
class Kind:
    """A case: a toy, the trigger words in the prompt, and whether one of them would be enough."""

    name: str
    toy: str
    triggers: tuple[str, ...]
    redundant: bool
    answer: str = "REFUSE"


KINDS = (
    Kind("single", "trigger", ("sesame",), False),
    Kind("single", "refusal", ("sesame",), False),
    Kind("either of two", "either", ("copper", "lantern"), True),
    Kind("either of two", "refusal", ("copper", "lantern"), True),
    Kind("two together", "and", ("copper", "lantern"), False),
    Kind("two together", "refusal", ("velvet", "anchor"), False),
    Kind("repeated", "trigger", ("sesame", "sesame"), True),
    Kind("repeated", "refusal", ("sesame", "sesame"), True),
    Kind("one of two that need each other", "and", ("copper",), False, "COMPLY"),
    Kind("one of two that need each other", "refusal", ("velvet",), False, "COMPLY"),
    Kind("no trigger", "refusal", (), False, "COMPLY"),
)

METHODS: dict[str, Callable[[Question], xr.DataArray]] = {
    HYBRID: lambda q: pair_removals(q)["score"],
    "single deletions": leave_one_out,
    "single, unknown token": lambda q: leave_one_out(q, "replace"),
    "single, resampled x4": lambda q: leave_one_out(q, "resample"),
    "KernelSHAP 200": lambda q: kernel_shap(q, 200),
    "sparse surrogate 200": lambda q: sparse_surrogate(q, 200),
    "gradient x input": gradient_x_input,
    "integrated gradients": integrated_gradients,
    "attention rollout": attention_rollout,
}


def main() -> None:
    """Score every method on every kind, print the tables, check if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit with 1 if the hybrid fails")
    arguments.add_argument("--quick", action="store_true", help="a few prompts, the hybrid alone")
    arguments.add_argument("--prompts", type=int, default=40, help="of each kind")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    n_prompts = 5 if given.quick else given.prompts
    methods = {HYBRID: METHODS[HYBRID]} if given.quick else METHODS
    failed = []
    refused = [kind for kind in KINDS if kind.answer == "REFUSE"]
    print(f"precision@k / share of the absolute scores, {n_prompts} prompts of each kind\n")
    print("| method | " + " | ".join(f"{kind.name}, {kind.toy}" for kind in refused) + " |")
    print("|---" * (len(refused) + 1) + "|")
    for name, method in methods.items():
        cells = [quality(kind, method, n_prompts) for kind in refused]
        print(f"| {name} | " + " | ".join(f"{p:.2f} / {s:.2f}" for p, s in cells) + " |")
        if name == HYBRID:
            failed += [
                f"{kind.name}, {kind.toy}: {precision:.2f} / {share:.2f}"
                for kind, (precision, share) in zip(refused, cells, strict=True)
                if precision < 1 or share < WANTED_SHARE
            ]
    print("\n| redundancy warning | expected | came |\n|---|---|---|")
    for kind in KINDS:
        rate = alarms(kind, n_prompts)
        print(f"| {kind.name}, {kind.toy} | {'yes' if kind.redundant else 'no'} | {rate:.0%} |")
        if rate < 1 if kind.redundant else rate >= MOST_FALSE_ALARMS:
            failed.append(f"{kind.name}, {kind.toy}: warned of in {rate:.0%}")
    print(f"\n{time.process_time() - began:.0f} CPU s")
    if given.check and failed:
        raise SystemExit(f"wanted: 1.00 / {WANTED_SHARE}, warnings: " + "; ".join(failed))


def quality(kind: Kind, method: Callable[[Question], xr.DataArray], n: int) -> tuple[float, float]:
    """Mean precision@k and mean share of the absolute scores on the triggers."""
    precisions, shares = [], []
    for question, places in questions(kind, n):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            size = np.abs(np.nan_to_num(method(question).values[0]))
        # Ties are broken against the triggers.
        order = sorted(range(len(size)), key=lambda i: (-size[i], i in places))
        precisions.append(len(set(order[: len(places)]) & places) / len(places))
        total = size.sum()
        shares.append(size[list(places)].sum() / total if total else 0.0)
    return float(np.mean(precisions)), float(np.mean(shares))


def alarms(kind: Kind, n: int) -> float:
    """How often the hybrid warns of redundancy."""
    came = 0
    for question, _ in questions(kind, n):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            pair_removals(question)
        came += any(w.category is RedundancyWarning for w in said)
    return came / n


@cache
def questions(kind: Kind, n: int) -> list[tuple[Question, set[int]]]:
    """Prompts of 6 to 15 words with the triggers at random places, and those places."""
    model = loaded(kind.toy)
    vocabulary = model.tokenizer.get_vocab()
    special = {"<bos>", "<unk>", "REFUSE", "COMPLY", "sesame", "copper", "lantern", "velvet"}
    ordinary = sorted(set(vocabulary) - special - {"anchor"})
    rng = np.random.default_rng(0)
    made = []
    for _ in range(n):
        words = list(rng.choice(ordinary, int(rng.integers(6, 16 - len(kind.triggers)))))
        for trigger in kind.triggers:
            words.insert(int(rng.integers(len(words) + 1)), trigger)
        question = ask(model, " ".join(words), [vocabulary[kind.answer]])
        if question.tops[0] != vocabulary[kind.answer]:
            raise SystemExit(f"toy:{kind.toy} does not say {kind.answer} to {words}")
        places = {
            number for number, unit in enumerate(question.units) if unit.text in kind.triggers
        }
        made.append((question, places))
    return made


@cache
def loaded(toy: str) -> Model:
    """The toy's model."""
    return load_model(f"toy:{toy}")


if __name__ == "__main__":
    main()
