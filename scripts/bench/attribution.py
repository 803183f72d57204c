"""Token attribution: `attribute` beside the naive loop, one full pass per input token and output.

    python scripts/bench/attribution.py [--check] [--quick]

Random weights of a GPT-2-small shape, 39 prompt tokens, 5 greedy outputs, one thread. Both are
timed in CPU seconds, alternately, and the medians compared; both include finding the outputs. The
scores must agree to 1e-4 nats. `--check` exits with 1 if they do not, or if the naive loop takes
less than 13 times as long. `--quick` runs a small shape once and checks the equality alone.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp import attribute

WANTED_RATIO = 13.0
TOLERANCE_NATS = 1e-4
N_OUTPUTS = 5


def main() -> None:
    """Run both, print the table, check if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--check", action="store_true", help="exit with 1 if a figure falls short"
    )
    arguments.add_argument("--quick", action="store_true", help="a small shape, once")
    arguments.add_argument("--repeats", type=int, default=3)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    model, n_tokens = gpt2_shape(given.quick), 12 if given.quick else 39
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.cfg.d_vocab, (1, n_tokens), generator=generator)

    slow, fast, difference = [], [], 0.0
    for _ in range(1 if given.quick else given.repeats):
        expected, slow_seconds = timed(lambda: naive(model, tokens))
        scores, fast_seconds = timed(lambda: attribute(model, tokens, N_OUTPUTS).values)
        difference = max(difference, float(np.abs(expected - scores).max()))
        slow.append(slow_seconds)
        fast.append(fast_seconds)
    ratio = statistics.median(slow) / statistics.median(fast)
    n_passes = N_OUTPUTS * (n_tokens + 1)
    print(f"| {n_tokens} tokens, {N_OUTPUTS} outputs | CPU s (median) | ratio |")
    print("|---|---|---|")
    print(f"| naive loop, {n_passes} passes | {statistics.median(slow):.2f} | 1 |")
    print(f"| attribute | {statistics.median(fast):.2f} | {ratio:.1f} |")
    print(f"\nlargest difference {difference:.1e} nats")
    too_slow = ratio < WANTED_RATIO and not given.quick
    if given.check and (difference > TOLERANCE_NATS or too_slow):
        raise SystemExit(
            f"wanted: difference at most {TOLERANCE_NATS} nats, ratio at least {WANTED_RATIO}"
        )


def gpt2_shape(quick: bool, n_ctx: int = 64) -> HookedTransformer:
    """Random weights in the shape of GPT-2 small, or of a model a hundred times smaller."""
    small = {"n_layers": 3, "d_model": 48, "d_head": 12, "n_heads": 4, "d_mlp": 80}
    full = {"n_layers": 12, "d_model": 768, "d_head": 64, "n_heads": 12, "d_mlp": 3072}
    sizes = {**small, "d_vocab": 101} if quick else {**full, "d_vocab": 50257}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cfg = HookedTransformerConfig(
            **sizes,
            n_ctx=n_ctx,
            act_fn="gelu_new",
            normalization_type="LNPre",
            seed=0,
            device="cpu",
        )
        return HookedTransformer(cfg)


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


def timed(function: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """The result, and the CPU seconds that it took."""
    began = time.process_time()
    result = function()
    return result, time.process_time() - began


if __name__ == "__main__":
    main()
