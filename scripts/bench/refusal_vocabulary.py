"""Every token of the vocabulary in one slot of a benign request: SmolLM2, one thread.

    python scripts/bench/refusal_vocabulary.py [--check] [--quick]

Prints CPU seconds and the largest difference from a loop of whole passes on a sample of tokens.
`--check` exits with 1 if the whole vocabulary takes more than 15 CPU minutes, or a score differs by
1e-5 nats relative to its size. `--quick`: a fiftieth of the vocabulary, and its time as if it were
the whole.
"""

import argparse
import time

import numpy as np
import torch

from mechinterp import load_model, progress_bar, run, tokenize
from mechinterp.core.specs import replace_token
from mechinterp.refusal.behaviour import refusal_behaviour
from mechinterp.refusal.texts import as_prompt
from mechinterp.refusal.vocabulary import whole_vocabulary

CARRIER, SLOT = "Tell me about", 3
MOST_CPU_SECONDS = 15 * 60
TOLERANCE = 1e-5
N_SAMPLE = 8


def main() -> None:
    """Run, print, check if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit with 1 if it falls short")
    arguments.add_argument("--quick", action="store_true", help="a fiftieth of the vocabulary")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    model = load_model("smollm2", device="cpu")
    behaviour = refusal_behaviour(model)
    step = 50 if given.quick else 1
    tokens = range(0, model.cfg.d_vocab, step)
    began = time.process_time()
    with progress_bar("tokens") as tick:
        found = whole_vocabulary(model, behaviour, [CARRIER], SLOT, tokens=tokens, progress=tick)
    seconds = (time.process_time() - began) * step
    # The same by hand: the carrier with a token more, and one whole pass for each token.
    prompts = tokenize(model, as_prompt(model, f"{CARRIER} bread"))
    at = prompts.token_text[0].index(" bread")
    sample = np.random.default_rng(0).choice(len(tokens), N_SAMPLE, replace=False)
    off = 0.0
    for number in sample:
        alone = float(behaviour.metric(run(model, prompts, replace_token(at, tokens[number]))))
        off = max(off, abs(float(found[number, 0]) - alone) / max(1.0, abs(alone)))
    print(f"| tokens | CPU s{' (of all, estimated)' if step > 1 else ''} | difference |")
    print("|---|---|---|")
    print(f"| {len(tokens):,} | {seconds:.0f} | {off:.1e} |")
    top = np.argsort(-found.values[:, 0])[:8]
    print("highest:", [(found.text.values[i], round(float(found[i, 0]), 2)) for i in top])
    short = []
    if seconds > MOST_CPU_SECONDS:
        short.append(f"{seconds:.0f} CPU s, at most {MOST_CPU_SECONDS}")
    if off > TOLERANCE:
        short.append(f"a difference of {off:.1e}, at most {TOLERANCE}")
    if given.check and short:
        raise SystemExit("wanted: " + "; ".join(short))


if __name__ == "__main__":
    main()
