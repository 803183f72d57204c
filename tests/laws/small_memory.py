"""A program that may take little memory (RLIMIT_AS), and sweeps more than fits at once.

By itself a sweep plans for what it may take; the same sweep in one pass ends in an error. Prints
the passes, the bytes planned, and the name of that error.
"""

import resource
import sys
from pathlib import Path

if __name__ == "__main__":  # the tests, which also look for examples here, import nothing
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    from mechinterp import Prompts, Site, log_prob, sweep, zero
    from mechinterp.sweeps import planner
    from mechinterp.sweeps.pass_plan import Savings


def main():
    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=3,
            d_model=128,
            n_ctx=64,
            d_head=32,
            n_heads=4,
            d_mlp=512,
            d_vocab=100,
            act_fn="gelu",
            device="cpu",
        )
    )
    prompts = Prompts.from_ids([[i % 100 for i in range(64)]])

    def swept(n_arms, **options):
        def arm(number):
            return zero(Site("z", number % 2, number % 4, pos=number % 3))

        return sweep(model, prompts, {"number": range(n_arms)}, arm, log_prob(3), **options)

    swept(2)
    planner.CPU_POSITIONS = 1 << 62  # or no pass would be large
    many = {"n_arms": 1500, "exact": Savings(repeats=False)}
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20),) * 2)
    found = swept(**many)
    try:
        swept(**many, budget_bytes=1 << 40)
        error = "none"
    except RuntimeError as raised:
        error = type(raised).__name__
    print(found.attrs["passes"], found.attrs["peak_bytes_planned"], error)


if __name__ == "__main__":
    main()
