"""Does the stated error of integrated gradients bound the true one?

    python scripts/proofs/integration_error.py [--check] [--quick]

200 random cases: a tiny model (Llama's or GPT-2's kind of layers, 1 to 3 of them, weights of three
sizes), a prompt of 4 to 8 tokens, two outputs, a baseline (zero, the mean, a token). The truth is a
midpoint rule of 2,000 gradients in float64. A case holds if every score of it is within its
`integration_error`. `--check` exits with 1 if fewer than 95% hold, the errors of an output add up
to less than its known `completeness_error`, or `steps` are not those taken. `--quick`: 40 cases.
"""

import argparse
import copy
import sys
import time
import warnings

import numpy as np
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp import ask
from mechinterp.attribution import integrated_gradients
from mechinterp.attribution.methods.gradient import CompletenessWarning
from mechinterp.attribution.question.definition import Question

CASES, QUICK_CASES, WANTED = 200, 40, 0.95
POINTS, AT_ONCE = 2000, 250
LLAMA = {
    "act_fn": "silu",
    "gated_mlp": True,
    "normalization_type": "RMS",
    "final_rms": True,
    "positional_embedding_type": "rotary",
    "rotary_dim": 6,
    "n_key_value_heads": 2,
}
GPT2 = {"act_fn": "gelu", "normalization_type": "LN"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    began, n_cases = time.process_time(), QUICK_CASES if options.quick else CASES
    warnings.simplefilter("ignore", CompletenessWarning)
    warnings.filterwarnings("ignore", "HookedTransformer is deprecated")
    ratios, over, steps = [], [], []
    for seed in range(n_cases):
        ratio, ratio_of_known, n_steps = case(np.random.default_rng(seed))
        ratios.append(ratio)
        over.append(ratio_of_known)
        steps.append(n_steps)
    held = float(np.mean(np.array(ratios) <= 1))
    print(f"{n_cases} cases, {min(steps)} to {max(steps)} steps")
    print(f"every score within its stated error: {held:.1%}")
    print("largest error of a case, as a share of the stated one: median", end=" ")
    print(f"{np.median(ratios):.2f}, 95% of cases below {np.quantile(ratios, 0.95):.2f}")
    print(f"known error of a sum, as a share of what is stated: {max(over):.3f} at most")
    taken = steps_taken()
    print("steps asked for and taken: " + ", ".join(f"{a} {b}" for a, b in taken.items()))
    print(f"{time.process_time() - began:.0f} CPU seconds")
    good = held >= WANTED and max(over) <= 1 and all(a == b for a, b in taken.items())
    if options.check and not good:
        sys.exit(1)


def case(rng: np.random.Generator) -> tuple[float, float, int]:
    """The largest error over stated error; the known error over the stated sum; steps."""
    model = random_model(rng)
    ids = torch.tensor(rng.integers(1, model.cfg.d_vocab, int(rng.integers(4, 9))))
    question = ask(model, ids, 2)
    baseline: str | int = ["zero", "mean", 5][int(rng.integers(3))]
    found = integrated_gradients(question, baseline)
    at = question.attributed
    truth = true_integral(model, question, baseline)[:, list(question.positions(at))]
    off = np.abs(found.values[:, at] - truth)
    stated = found.integration_error.values[:, at]
    known = np.abs(found.completeness_error.values) / stated.sum(1)
    return float((off / stated).max()), float(known.max()), int(found.attrs["steps"])


def random_model(rng: np.random.Generator) -> HookedTransformer:
    """A tiny model with random weights."""
    kind = LLAMA if rng.random() < 0.5 else GPT2
    sizes = {"n_layers": int(rng.integers(1, 4)), "d_model": 24, "n_heads": 4, "d_head": 6}
    config = HookedTransformerConfig(
        **sizes, **kind, d_mlp=40, d_vocab=61, n_ctx=32, device="cpu", seed=0
    )
    model = HookedTransformer(config)
    size = float(rng.choice([0.1, 0.3, 0.6]))
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() > 1:
                value.copy_(torch.from_numpy(rng.normal(size=value.shape) * size))
    return model


def true_integral(model: HookedTransformer, question: Question, baseline: str | int) -> np.ndarray:
    """The integral for each output and position, by a midpoint rule in float64."""
    exact = copy.deepcopy(model).double()
    exact.cfg.dtype = torch.float64
    ids = question.sequence.tokens
    own = exact.embed(ids).detach()
    goals = {"zero": torch.zeros(own.shape[-1]).double(), "mean": exact.W_E.detach().mean(0)}
    goal = goals[baseline] if isinstance(baseline, str) else exact.W_E.detach()[baseline]
    move = torch.zeros_like(own)
    at = list(question.positions(question.attributed))
    move[:, at] = own[:, at] - goal
    total = torch.zeros(len(question.rows), ids.shape[1]).double()
    for shares in torch.split((torch.arange(POINTS).double() + 0.5) / POINTS, AT_ONCE):
        leaf = (own - move + shares[:, None, None] * move).requires_grad_()
        with torch.enable_grad():
            hooks = [("hook_embed", lambda value, hook, leaf=leaf: leaf)]
            logs = exact.run_with_hooks(ids.expand(len(shares), -1), fwd_hooks=hooks).log_softmax(
                -1
            )
            for i, (row, token) in enumerate(zip(question.rows, question.output_ids, strict=True)):
                (slope,) = torch.autograd.grad(logs[:, row, token].sum(), leaf, retain_graph=True)
                total[i] += (slope * move).sum(-1).sum(0).detach()
    return (total / POINTS).numpy()


def steps_taken() -> dict[int, int]:
    """How many gradients were taken, by how many were asked for."""
    model = random_model(np.random.default_rng(0))
    question = ask(model, torch.tensor([3, 1, 4, 1, 5]), 1)
    asked = (2, 9, 40, 2000)
    return {n: int(integrated_gradients(question, "zero", n).attrs["steps"]) for n in asked}


if __name__ == "__main__":
    main()
