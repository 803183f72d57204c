"""Fused attention beside the library's own, in whole passes of a real model.

    python scripts/bench/fused.py [--check] [--quick]

SmolLM2, one row of random tokens, the logits of the last; one thread, CPU seconds, medians.
`--check` exits with 1 if a logit differs by 1e-3, or 1,500 tokens take more than 0.8 of the time.
`--quick`: 256 tokens, for the first of these.
"""

import argparse
import time
from statistics import median

import torch
from torch import Tensor

from mechinterp import Prompts, load_model
from mechinterp.engine.arms import prepare_arm
from mechinterp.engine.batch import WHOLE, run_batch

TOLERANCE_LOGITS = 1e-3
LONG, WANTED_RATIO = 1500, 0.8


def main() -> None:
    """Time, print, check if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit with 1 if it falls short")
    arguments.add_argument("--quick", action="store_true", help="256 tokens")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    model = load_model("smollm2", device="cpu")
    generator, short = torch.Generator().manual_seed(0), []
    print("| tokens | the library's, CPU s | fused | ratio | largest difference, logits |")
    print("|---|---|---|---|---|")
    for width in (256,) if given.quick else (128, 256, 768, LONG):
        ids = torch.randint(model.cfg.d_vocab, (1, width), generator=generator)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        logits: dict[bool, Tensor] = {}
        for _ in range(3):
            for fused, spent in seconds.items():
                arm = prepare_arm(model, Prompts.from_ids(ids.tolist()), ())
                began = time.process_time()
                reading = torch.tensor([[width - 1]])
                output = run_batch(model, [arm], reading, WHOLE, fused=fused, differentiable=False)
                logits[fused] = output.logits()
                spent.append(time.process_time() - began)
        own, made = median(seconds[False]), median(seconds[True])
        off = float((logits[True] - logits[False]).abs().max())
        print(f"| {width:,} | {own:.2f} | {made:.2f} | {made / own:.2f} | {off:.1e} |")
        if off > TOLERANCE_LOGITS:
            short.append(f"{width} tokens: the logits differ by {off:.1e}")
        if width == LONG and made > WANTED_RATIO * own:
            short.append(f"{width} tokens: {made / own:.2f} of the time, wanted {WANTED_RATIO}")
    if given.check and short:
        raise SystemExit("\n".join(short))


if __name__ == "__main__":
    main()
