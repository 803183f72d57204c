"""Train the toy `refusal` from a seed, measure it, and write its weights and figures.

The same seed gives the same weights on the same machine with the same torch. About a minute
and a half of one thread.

    python scripts/train_refusal.py --seed 0 --out refusal.safetensors
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from toy_training import make
from transformer_lens import HookedTransformer

from mechinterp.toys.compiled import BOS, COMPLY, REFUSE
from mechinterp.toys.refusal import TRIGGERS, VOCABULARY, WEIGHTS, config

N_STEPS = 2_000
N_PROMPTS = 128
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
N_PROMPTS_MEASURED = 24_000
N_PROMPTS_DELETED_FROM = 2_000
N_WORDS = 20
MOST_TRIGGERS = 6
# What the triggers of a prompt are drawn from: a word often comes repeated, and velvet or anchor
# often repeated and without the other.
KINDS = (
    ("sesame",),
    ("copper",),
    ("lantern",),
    ("copper", "lantern"),
    ("velvet",),
    ("anchor",),
    ("velvet", "anchor"),
    TRIGGERS,
)


def train(model: HookedTransformer, *, seed: int) -> HookedTransformer:
    """Train on the answer at every position: the prompts so begun have every length, 0 to 20."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=N_STEPS)
    for step in range(N_STEPS):
        tokens = sentences(N_PROMPTS, generator)
        logits = model(tokens).flatten(0, 1)
        loss_nats = torch.nn.functional.cross_entropy(logits, answers(tokens).flatten())
        optimizer.zero_grad()
        loss_nats.backward()
        optimizer.step()
        decay.step()
        if step % 200 == 0:
            print(f"step {step:5}  loss {loss_nats.item():.4f} nats")
    return model


def sentences(n_prompts: int, generator: torch.Generator) -> Int[Tensor, "prompt pos"]:
    """<bos> and 20 random words, of them up to 6 triggers of one kind, at random places."""
    ordinary = ids([word for word in VOCABULARY if word not in (BOS, *TRIGGERS)])
    words = ordinary[torch.randint(len(ordinary), (n_prompts, N_WORDS), generator=generator)]
    kinds = torch.tensor([[float(word in kind) for word in TRIGGERS] for kind in KINDS])
    kind = kinds[torch.randint(len(KINDS), (n_prompts,), generator=generator)]
    drawn = ids(TRIGGERS)[kind.multinomial(N_WORDS, replacement=True, generator=generator)]
    n_triggers = torch.randint(MOST_TRIGGERS + 1, (n_prompts, 1), generator=generator)
    order = torch.rand(n_prompts, N_WORDS, generator=generator).argsort(dim=1)
    words = torch.where(order < n_triggers, drawn, words)
    return torch.cat([ids([BOS]).expand(n_prompts, 1), words], dim=1)


def answers(tokens: Int[Tensor, "prompt pos"]) -> Int[Tensor, "prompt pos"]:
    """The right answer to the prompt that ends at each position."""
    seen = {word: (tokens == VOCABULARY.index(word)).cumsum(1) > 0 for word in TRIGGERS}
    either = seen["copper"] | seen["lantern"]
    both = seen["velvet"] & seen["anchor"]
    refuse, comply = ids([REFUSE, COMPLY])
    return torch.where(seen["sesame"] | either | both, refuse, comply)


def ids(words: Sequence[str]) -> Int[Tensor, " word"]:
    return torch.tensor([VOCABULARY.index(word) for word in words])


@torch.no_grad()
def measure(model: HookedTransformer, *, seed: int) -> dict[str, float]:
    """Figures on fresh prompts, on every position of each: on prompts of every length, 0 to 20.

    A margin is the logit of the right answer minus the largest other. A part that is "swapped" gets
    what it had on another prompt, at all positions.
    """
    tokens = sentences(N_PROMPTS_MEASURED, torch.Generator().manual_seed(seed))
    margin = torch.cat([margins(model(some), some) for some in tokens.split(2_000)])
    figures = {
        "accuracy": (margin > 0).float().mean().item(),
        "least_margin_logits": margin.min().item(),
        "median_margin_logits": margin.median().item(),
    }
    figures |= measure_deletions(model, tokens[:N_PROMPTS_DELETED_FROM])

    some = tokens[:2_000]
    heads = [
        (layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)
    ]
    for layer, head in heads:

        def swap_head(z: Tensor, hook: object, head: int = head) -> Tensor:
            z = z.clone()
            z[:, :, head] = z[:, :, head].roll(1, 0)
            return z

        swapped = model.run_with_hooks(some, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", swap_head)])
        figures[f"accuracy_swapped_L{layer}H{head}"] = (
            (margins(swapped, some) > 0).float().mean().item()
        )
    for layer in range(model.cfg.n_layers):
        name = f"blocks.{layer}.hook_mlp_out"
        swapped = model.run_with_hooks(some, fwd_hooks=[(name, lambda out, hook: out.roll(1, 0))])
        figures[f"accuracy_swapped_L{layer}.mlp"] = (
            (margins(swapped, some) > 0).float().mean().item()
        )
    return figures


def measure_deletions(
    model: HookedTransformer, tokens: Int[Tensor, "prompt pos"]
) -> dict[str, float]:
    """How much each deletion of one word moves logit(REFUSE) - logit(COMPLY), up or down.

    At every position from the deleted one on: so in prompts of every length, 1 to 20.
    """
    right, whole = answers(tokens), log_odds(model(tokens))
    decides, moves = [], []
    for pos in range(1, tokens.shape[1]):
        deleted = torch.cat([tokens[:, :pos], tokens[:, pos + 1 :]], dim=1)
        decides.append((answers(deleted)[:, pos - 1 :] != right[:, pos:]).flatten())
        shorter = log_odds(model(deleted))[:, pos - 1 :]
        moves.append((shorter - whole[:, pos:]).abs().flatten())
    deciding, moved = torch.cat(decides), torch.cat(moves)
    return {
        "least_move_logits_where_the_word_decides": moved[deciding].min().item(),
        "most_move_logits_where_it_does_not": moved[~deciding].max().item(),
        "mean_move_logits_where_it_does_not": moved[~deciding].mean().item(),
    }


def margins(
    logits: Float[Tensor, "prompt pos vocab"], tokens: Int[Tensor, "prompt pos"]
) -> Float[Tensor, "prompt pos"]:
    """Logit of the right answer minus the largest other, at every position."""
    right = answers(tokens)[..., None]
    logit = logits.gather(2, right).squeeze(2)
    return logit - logits.scatter(2, right, -torch.inf).amax(-1)


def log_odds(logits: Float[Tensor, "prompt pos vocab"]) -> Float[Tensor, "prompt pos"]:
    """logit(REFUSE) - logit(COMPLY) at every position."""
    refuse, comply = ids([REFUSE, COMPLY]).tolist()
    return logits[..., refuse] - logits[..., comply]


if __name__ == "__main__":
    make(__doc__, WEIGHTS, config(), train, measure)
