"""A program that may take little memory (RLIMIT_DATA), and gathers more than fits.

On disk it ends, in memory it does not. Prints the bytes gathered, and the name of that error.
"""

import resource
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":  # the tests, which also look for examples here, import nothing
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import torch
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    from mechinterp import Prompts
    from mechinterp.probing import gather


def main():
    torch.set_num_threads(1)
    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=3,
            d_model=512,
            n_ctx=4,
            d_head=32,
            n_heads=2,
            d_vocab=100,
            act_fn="gelu",
            attn_only=True,
            device="cpu",
        )
    )
    prompts = Prompts.from_ids([[i % 100, i // 100 % 100] for i in range(18000)])
    gather(model, prompts.rows(torch.arange(500)))  # what a first pass loads is loaded
    taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (taken + (100 << 20),) * 2)
    with tempfile.TemporaryDirectory() as folder:
        kept = gather(model, prompts, out=folder)
    try:
        gather(model, prompts)
        error = "none"
    except (MemoryError, RuntimeError) as raised:
        error = type(raised).__name__
    print(kept.size * 4, error)


if __name__ == "__main__":
    main()
