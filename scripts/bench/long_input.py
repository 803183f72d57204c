"""A long input level by level: 1,500 tokens by sentence, then by the words of those that matter.

    python scripts/bench/long_input.py [--check] [--quick]

SmolLM2 is asked for a code that one of about ninety sentences holds. Printed: seconds, CPU seconds,
token-layers beside those of removing every word of the whole text, and what was found. `--check`
exits with 1 if the sentence with the code is not opened, a score differs by 1e-3 nats from whole
passes of the plain model, or it takes more than six minutes on two threads. `--quick`: 300 tokens.
"""

import argparse
import os
import time

import numpy as np
import torch
import xarray as xr

from mechinterp import (
    attribute_by_level,
    load_model,
    progress_bar,
    sequence_log_prob,
    tokenize,
)
from mechinterp.models import Model

MOST_SECONDS = 360
TOLERANCE_NATS = 1e-3
FACT = " The access code of the north gate is 7351."
QUESTION = " To open the north gate, type the access code of the north gate, which is"
ANSWER = " 7351"
WHO = ("The gardener", "A merchant", "My cousin", "The old captain", "Her neighbour", "A student")
DID = ("painted", "repaired", "sold", "carried home", "forgot about", "wrote a letter about")
WHAT = (
    "the wooden bridge",
    "a small boat",
    "two baskets of apples",
    "the market clock",
    "a red coat",
)
WHEN = ("on a quiet morning", "after the heavy rain", "before the harvest", "late in the evening")


def main() -> None:
    """Attribute, print, check if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit with 1 if it falls short")
    arguments.add_argument("--quick", action="store_true", help="300 tokens")
    given = arguments.parse_args()
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    model = load_model("smollm2")
    prompt = text_of(model, 300 if given.quick else 1500)
    n_tokens = tokenize(model, prompt).width
    began, cpu = time.perf_counter(), time.process_time()
    with progress_bar(f"{n_tokens} tokens") as tick:
        sentences, words = attribute_by_level(
            model, prompt, ANSWER, metric=sequence_log_prob(), progress=tick
        )
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu

    spent = sum(level.attrs["token_layers"] for level in (sentences, words))
    every_word = len(prompt.split()) * n_tokens * model.cfg.n_layers
    print(
        f"{n_tokens} tokens, {int(sentences.notnull().sum())} sentences: {seconds:.0f} s, "
        f"{cpu:.0f} CPU s, {spent:,} token-layers; a pass for every word: {every_word:,}\n"
    )
    for level, name in ((sentences, "sentence"), (words, "word")):
        print(f"| {name} | nats |\n|---|---|")
        for at in np.argsort(-np.abs(np.nan_to_num(level.values[0])))[:6]:
            print(f"| {level.input_token.values[at].strip()} | {level.values[0, at]:.2f} |")
        print()
    opened = {sentences.input_token.values[at] for at in words.parent.values if at >= 0}
    off = difference(model, prompt, words)
    print(f"largest difference from whole passes of the plain model: {off:.1e} nats")
    failed = []
    if FACT not in opened:
        failed.append("the sentence with the fact was not opened")
    if off > TOLERANCE_NATS:
        failed.append(f"a difference of at most {TOLERANCE_NATS} nats")
    if seconds > MOST_SECONDS and not given.quick:
        failed.append(f"at most {MOST_SECONDS} s")
    if given.check and failed:
        raise SystemExit("wanted: " + "; ".join(failed))


def text_of(model: Model, n_tokens: int) -> str:
    """Sentences about nothing in particular, the fact among them, and the question."""
    rng = np.random.default_rng(0)
    sentences = [f"{rng.choice(WHO)} {rng.choice(DID)} {rng.choice(WHAT)} {rng.choice(WHEN)}."]
    while True:
        parts = (rng.choice(WHO), rng.choice(DID), rng.choice(WHAT), rng.choice(WHEN))
        longer = [*sentences, f" {' '.join(parts)}."]
        middle = len(longer) // 2
        text = "".join([*longer[:middle], FACT, *longer[middle:], QUESTION])
        if tokenize(model, text).width > n_tokens:
            return text
        sentences = longer


def difference(model: Model, prompt: str, words: xr.DataArray) -> float:
    """Three of the word scores against a whole pass of the plain model each."""
    ids = tokenize(model, prompt).tokens[0]
    answer = torch.tensor(model.tokenizer(ANSWER, add_special_tokens=False)["input_ids"])

    def score(tokens: torch.Tensor) -> float:
        with torch.no_grad():
            logits = model(torch.cat([tokens, answer[:-1]])[None])[0, -len(answer) :]
        return float(logits.double().log_softmax(-1).gather(1, answer[:, None]).sum())

    whole, off = score(ids), 0.0
    for at in np.flatnonzero(words.notnull().values[0])[[0, 1, -1]]:
        first, last = int(words.input_first[at]), int(words.input_last[at])
        drop = whole - score(torch.cat([ids[:first], ids[last + 1 :]]))
        off = max(off, abs(drop - float(words[0, at])))
    return off


if __name__ == "__main__":
    main()
