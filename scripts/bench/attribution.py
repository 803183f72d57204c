"""Token attribution: exact against brute force, beside the naive loop, beside captum, and its work.

    python scripts/bench/attribution.py [--check] [--quick]

"Exact": three architectures with random weights; every score beside one full pass of the Hugging
Face model for each input and output. "Fast": GPT-2 small's shape, 39 tokens, 5 outputs; beside the
naive loop, and beside captum on the same weights, which answers the same question (the same token
put in the place of each). "Token-layers": 128 and 256 tokens, beside one full pass a variant.

One thread, CPU seconds, medians, the sides by turns. `--check` exits with 1 if scores differ by
1e-4 nats or a figure falls short. `--quick` runs small shapes once, for the equality alone. Needs
captum: pip install captum==0.9.0.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import captum_side
import numpy as np
import torch
from random_models import as_the_library_keeps_it, random_gpt2, tiny_models, word_tokenizer
from random_models import gpt2_shape as gpt2_shape  # sweeps.py takes it from here
from transformer_lens import HookedTransformer

from mechinterp import attribute, load_model
from mechinterp.attribution.question.removals import replacement_token
from mechinterp.models import Model

TOLERANCE_NATS = 1e-4
N_OUTPUTS = 5
WANTED_OF_NAIVE = 14.0
WANTED_OF_CAPTUM = 2.5
WANTED_SHARE = 0.56
UNKNOWN = 0
"""The token that is put in the place of another: the tokenizer's unknown one."""

UNITS: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "tokens": ("token", [(j,) for j in range(12)]),
    "spans": ({"two": (1, 2), "apart": [4, 9], "three": (5, 7)}, [(1, 2), (4, 9), (5, 6, 7)]),
}
"""What is removed together of 12 tokens: as `attribute` takes it, and in positions."""


def main() -> None:
    """Run the three parts, print their tables, check if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--check", action="store_true", help="exit with 1 if a figure falls short"
    )
    arguments.add_argument("--quick", action="store_true", help="small shapes, once")
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    captum_side.imported()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="redundancy:")  # random models have some
    repeats = 1 if given.quick else given.repeats
    short = [*exact(), *fast(given.quick, repeats), *long(given.quick, repeats)]
    if given.check and short:
        raise SystemExit("\n".join(short))


# Exact


def exact() -> list[str]:
    """Each architecture, removal and kind of unit beside brute force; what falls short."""
    print("| architecture | removal | units | largest score, nats | largest difference, nats |")
    print("|---|---|---|---|---|")
    short: list[str] = []
    for name, hf in tiny_models().items():
        model = load_model(hf, device="cpu")
        ids = torch.randint(1, 59, (12,), generator=torch.Generator().manual_seed(0)).tolist()
        for removal, how in (("delete", "delete"), ("replace", replacement_token(model, UNKNOWN))):
            for kind, (units, sets) in UNITS.items():
                found = attribute(model, torch.tensor([ids]), N_OUTPUTS, how, units=units)
                answers, expected = brute_force(hf, ids, sets, removal)
                scores = found.values[:, ~np.isnan(found.values[0])]
                apart = largest(expected - scores)
                print(f"| {name} | {removal} | {kind} | {largest(expected):.2f} | {apart:.1e} |")
                if found.output_token_id.values.tolist() != answers:
                    short.append(f"{name}, {removal}, {kind}: other outputs than greedy ones")
                short += too_far(f"{name}, {removal}, {kind}", apart)
    return short


def brute_force(
    hf: Any, ids: list[int], sets: Sequence[tuple[int, ...]], removal: str
) -> tuple[list[int], np.ndarray]:
    """The greedy outputs, and the score of each set for each by one full pass of the model."""

    def log_probs(tokens: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return hf(torch.tensor([tokens]), use_cache=False).logits[0, -1].log_softmax(-1)

    answers: list[int] = []
    scores = np.zeros((N_OUTPUTS, len(sets)))
    for output in range(N_OUTPUTS):
        sequence = ids + answers
        whole = log_probs(sequence)
        answer = int(whole.argmax())
        for column, removed in enumerate(sets):
            if removal == "delete":
                without = [t for j, t in enumerate(sequence) if j not in removed]
            else:
                without = [UNKNOWN if j in removed else t for j, t in enumerate(sequence)]
            scores[output, column] = whole[answer] - log_probs(without)[answer]
        answers.append(answer)
    return answers, scores


# Fast


def fast(quick: bool, repeats: int) -> list[str]:
    """Beside the naive loop and beside captum, on the same weights; what falls short."""
    hf, n_tokens = random_gpt2(quick), 12 if quick else 39
    tokenizer = word_tokenizer(hf.config.vocab_size)
    model = load_model(hf, tokenizer=tokenizer, device="cpu")
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, hf.config.vocab_size, (1, n_tokens), generator=generator)
    targets = torch.randint(1, hf.config.vocab_size, (N_OUTPUTS,), generator=generator).tolist()
    plain = as_the_library_keeps_it(model)
    attribute(model, tokens, 1)  # whether passes may begin late is found out once a model

    made, seconds = by_turns(
        {
            "naive": lambda: naive(plain, tokens),
            "ours": lambda: attribute(model, tokens, N_OUTPUTS).values,
        },
        repeats,
    )
    ratio, apart = seconds["naive"] / seconds["ours"], largest(made["naive"] - made["ours"])
    print(f"\n| {n_tokens} tokens, {N_OUTPUTS} greedy outputs, deletion | CPU s | ratio |")
    print("|---|---|---|")
    print(f"| naive loop, {N_OUTPUTS * (n_tokens + 1)} passes | {seconds['naive']:.2f} | 1 |")
    print(f"| attribute | {seconds['ours']:.2f} | {ratio:.1f} |")
    print(
        f"\nMedian of {repeats}. Largest score {largest(made['naive']):.2f} nats, largest "
        f"difference {apart:.1e}.",
        flush=True,
    )
    short = too_far("the naive loop", apart)
    if ratio < WANTED_OF_NAIVE and not quick:
        short.append(f"{ratio:.1f} times faster than the naive loop, wanted {WANTED_OF_NAIVE}")
    question = captum_side.Question(hf, tokenizer, tokens[0].tolist(), targets, UNKNOWN)
    return short + beside_captum(question, model, quick, repeats)


def beside_captum(
    question: captum_side.Question, model: Model, quick: bool, repeats: int
) -> list[str]:
    """Each setting of captum once, then the fastest exact ones and ours by turns."""

    def ours() -> np.ndarray:
        removal = replacement_token(model, UNKNOWN)
        return attribute(model, question.text, question.targets, removal).values

    expected = question.one_pass_a_variant()
    tried = captum_side.tried(question, expected, timed)
    best = captum_side.fastest_exact(tried, "llm", TOLERANCE_NATS)
    own = captum_side.fastest_exact(tried, "own", TOLERANCE_NATS)
    sides = {"captum": best.run, "own": own.run, "ours": ours}
    made, seconds = by_turns(sides, repeats)
    again = {best: (seconds["captum"], repeats), own: (seconds["own"], repeats)}
    apart, both = largest(expected - made["ours"]), largest(made["captum"] - made["ours"])
    together = largest(best.together() - made["ours"].sum(0))
    print("\n" + captum_side.table(tried, again, seconds["ours"]))
    print(f"| attribute | {seconds['ours']:.2f} | {repeats} | 1 | {apart:.1e} |")
    print(
        f"\nMedians. Largest score {largest(expected):.2f} nats. {best.name} and attribute differ "
        f"by {both:.1e} nats, in the sums over the outputs by {together:.1e}."
    )
    print(captum_side.remarks(tried, expected, TOLERANCE_NATS), flush=True)
    ratio = seconds["captum"] / seconds["ours"]
    short = too_far("replacement, brute force", apart)
    short += too_far("replacement, captum", both)
    if ratio < WANTED_OF_CAPTUM and not quick:
        short.append(f"{ratio:.2f} times faster than captum, wanted {WANTED_OF_CAPTUM}")
    return short


def naive(model: HookedTransformer, tokens: torch.Tensor, n_outputs: int = N_OUTPUTS) -> np.ndarray:
    """For each output its token by one pass, then one pass without each input token."""
    n_tokens = tokens.shape[1]
    scores = np.zeros((n_outputs, n_tokens))
    sequence = tokens
    with torch.no_grad():
        for output in range(n_outputs):
            whole = model(sequence)[0, -1].log_softmax(-1)
            answer = int(whole.argmax())
            for j in range(n_tokens):
                without = torch.cat([sequence[:, :j], sequence[:, j + 1 :]], 1)
                score = model(without)[0, -1].log_softmax(-1)[answer]
                scores[output, j] = whole[answer] - score
            sequence = torch.cat([sequence, torch.tensor([[answer]])], 1)
    return scores


# Token-layers


def long(quick: bool, repeats: int) -> list[str]:
    """Beside full passes of the teacher-forced variants in batches, and their token-layers."""
    hf = random_gpt2(quick)
    model = load_model(hf, device="cpu")
    attribute(model, torch.tensor([[1, 2, 3]]), 1)
    print("\n| tokens | token-layers | of full passes | batched full passes, CPU s |", end="")
    print(" attribute, CPU s | of its seconds | largest difference, nats |")
    print("|---|---|---|---|---|---|---|")
    short: list[str] = []
    for n_tokens, n_times in ((24, 1),) if quick else ((128, repeats), (256, 1)):
        generator = torch.Generator().manual_seed(n_tokens)
        ids = torch.randint(1, hf.config.vocab_size, (n_tokens + N_OUTPUTS,), generator=generator)
        ids, targets = ids[:n_tokens], ids[n_tokens:].tolist()
        costs: list[int] = []

        def ours(ids: Any = ids, targets: Any = targets, costs: Any = costs) -> np.ndarray:
            found = attribute(model, ids[None], targets)
            costs.append(found.attrs["token_layers"])
            return found.values

        def reference(ids: Any = ids, targets: Any = targets) -> np.ndarray:
            return batched_passes(hf, ids, targets)

        made, seconds = by_turns({"reference": reference, "ours": ours}, n_times)
        # A variant has one token less than the prompt and the outputs that are fed.
        naive_cost = n_tokens * (n_tokens + N_OUTPUTS - 2) * model.cfg.n_layers
        share, apart = costs[-1] / naive_cost, largest(made["reference"] - made["ours"])
        print(
            f"| {n_tokens} | {costs[-1]:,} | {share:.3f} | {seconds['reference']:.1f} | "
            f"{seconds['ours']:.1f} | {seconds['ours'] / seconds['reference']:.2f} | {apart:.1e} |",
            flush=True,
        )
        short += too_far(f"{n_tokens} tokens", apart)
        if share > WANTED_SHARE and not quick:
            short.append(f"{n_tokens} tokens: {share:.3f} of the token-layers, at most 0.56")
    return short


def batched_passes(hf: Any, ids: torch.Tensor, targets: list[int], n_rows: int = 12) -> np.ndarray:
    """Every variant once, in batches, whole; the unembedding only where an output is read."""
    sequence = torch.cat([ids, torch.tensor(targets[:-1])])
    answers = torch.tensor(targets)[:, None]

    def scores(rows: Sequence[torch.Tensor], first: int) -> np.ndarray:
        hidden = hf.transformer(torch.stack(list(rows)), use_cache=False).last_hidden_state
        found = hf.lm_head(hidden[:, first:]).log_softmax(-1)
        return found.gather(2, answers.expand(len(rows), -1, 1))[..., 0].numpy()

    variants = [torch.cat([sequence[:j], sequence[j + 1 :]]) for j in range(len(ids))]
    with torch.no_grad():
        whole = scores([sequence], len(ids) - 1)
        starts = range(0, len(ids), n_rows)
        each = [scores(variants[start : start + n_rows], len(ids) - 2) for start in starts]
    return (whole - np.concatenate(each)).T


# Measuring


def by_turns(
    sides: Mapping[str, Callable[[], np.ndarray]], repeats: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """What each side gives, and the median of its CPU seconds; all meet the same load."""
    made: dict[str, np.ndarray] = {}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            made[name], taken = timed(side)
            seconds[name].append(taken)
    return made, {name: statistics.median(taken) for name, taken in seconds.items()}


def timed(function: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """The result, and the CPU seconds that it took."""
    began = time.process_time()
    result = function()
    return result, time.process_time() - began


def largest(values: np.ndarray) -> float:
    """The largest size; NaN if one of them is."""
    return float(np.abs(values).max())


def too_far(what: str, apart: float) -> Iterable[str]:
    """Says so, if a difference is too large, or NaN."""
    return [] if apart <= TOLERANCE_NATS else [f"{what}: {apart:.1e} nats apart"]


if __name__ == "__main__":
    main()
