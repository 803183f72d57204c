"""Train the toy `induction-trained` from a seed, measure it, and write its weights and figures.

The same seed gives the same weights on the same machine with the same torch. About a minute of one
thread.

    python scripts/train_induction.py --seed 0 --out induction-trained.safetensors
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from toy_training import make
from transformer_lens import HookedTransformer

from mechinterp.toys.trained import VOCABULARY, WEIGHTS, config

N_STEPS = 1_200
N_PROMPTS = 64
LEARNING_RATE = 3e-3
PERIODS = range(6, 21)
N_PROMPTS_MEASURED = 2_000


def train(model: HookedTransformer, *, seed: int) -> HookedTransformer:
    """Train on what can be predicted only: the tokens from the second repetition on."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=N_STEPS)
    for step in range(N_STEPS):
        tokens, periods = repeated_blocks(N_PROMPTS, generator)
        loss_nats = -next_token_log_probs(model(tokens), tokens)[
            predictable(tokens, periods)
        ].mean()
        optimizer.zero_grad()
        loss_nats.backward()
        optimizer.step()
        decay.step()
        if step % 200 == 0:
            print(f"step {step:5}  loss {loss_nats.item():.4f} nats")
    return model


def repeated_blocks(
    n_prompts: int, generator: torch.Generator
) -> tuple[Int[Tensor, "prompt pos"], Int[Tensor, " prompt"]]:
    """Prompts of one block of distinct tokens over and over after <bos>, and the block lengths."""
    shortest, longest = min(PERIODS), max(PERIODS)
    periods = torch.randint(shortest, longest + 1, (n_prompts,), generator=generator)
    shuffled = torch.rand(n_prompts, len(VOCABULARY) - 1, generator=generator).argsort(dim=1) + 1
    places = torch.arange(config()["n_ctx"] - 1) % periods[:, None]
    bos = torch.zeros(n_prompts, 1, dtype=torch.long)
    return torch.cat([bos, shuffled.gather(1, places)], dim=1), periods


def predictable(tokens: Int[Tensor, "prompt pos"], periods: Int[Tensor, " prompt"]) -> Tensor:
    """Which positions have a next token that the prompt has shown after the same token before."""
    return torch.arange(tokens.shape[1] - 1) > periods[:, None]


def next_token_log_probs(
    logits: Float[Tensor, "prompt pos vocab"], tokens: Int[Tensor, "prompt pos"]
) -> Float[Tensor, "prompt next"]:
    """Log-probability in nats of each token after the first."""
    return logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None]).squeeze(2)


@torch.no_grad()
def measure(model: HookedTransformer, *, seed: int) -> dict[str, float]:
    """Figures on fresh prompts, over the second repetition of the block only.

    The scores are mean attention: of L0H0 to the position before, of L1H0 to the position after the
    earlier occurrence. Mean ablation replaces z by its mean over prompts and positions.
    """
    tokens, periods = repeated_blocks(N_PROMPTS_MEASURED, torch.Generator().manual_seed(seed))
    places = torch.arange(tokens.shape[1])
    second = (places > periods[:, None]) & (places < 2 * periods[:, None])
    prompts, queries = second.nonzero(as_tuple=True)

    def accuracy(logits: Tensor) -> float:
        right = logits[prompts, queries].argmax(-1) == tokens[prompts, queries + 1]
        return right.float().mean().item()

    logits, cache = model.run_with_cache(tokens)
    previous = cache["pattern", 0][prompts, 0, queries, queries - 1]
    induction = cache["pattern", 1][prompts, 0, queries, queries - periods[prompts] + 1]
    figures = {
        "accuracy": accuracy(logits),
        "previous_token_score": previous.mean().item(),
        "induction_score": induction.mean().item(),
    }
    for layer in range(model.cfg.n_layers):
        name = f"blocks.{layer}.attn.hook_z"
        mean = cache[name].mean(dim=(0, 1))
        zeroed = model.run_with_hooks(tokens, fwd_hooks=[(name, lambda z, hook: z * 0)])
        averaged = model.run_with_hooks(
            tokens, fwd_hooks=[(name, lambda z, hook, mean=mean: mean.expand_as(z))]
        )
        figures[f"accuracy_zero_L{layer}H0"] = accuracy(zeroed)
        figures[f"accuracy_mean_L{layer}H0"] = accuracy(averaged)
    return figures


if __name__ == "__main__":
    make(__doc__, WEIGHTS, config(), train, measure)
