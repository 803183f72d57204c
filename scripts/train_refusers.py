"""Train small models that refuse by a known rule, and ask each what it does before it counts.

Two layers, random at first, trained on the answers of a rule to random requests. No request in
training joins a verb and an object of one family, so every request of `planted_requests` is new to
it. What it does there, in every cell of harm, triggers and cues, is measured: the rule is the truth
of it only if it answers at least 97% as the rule says. About 16 CPU seconds each.

    python scripts/train_refusers.py content "three triggers" --seed 0
"""

import argparse
import itertools
import random
import time

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from mechinterp.tasks import planted_requests
from mechinterp.toys import MECHANISMS, Refuser, Toy, Truth
from mechinterp.toys.blank import Config
from mechinterp.toys.compiled import BOS, COMPLY, REFUSE
from mechinterp.toys.refuser_parts import draw_labels
from mechinterp.toys.refuser_truth import rule_in_words
from mechinterp.toys.refuser_words import (
    HARMFUL_PER_FAMILY,
    HARMLESS_PER_FAMILY,
    RefuserWords,
    draw_words,
)
from mechinterp.toys.refusers import draw_rule, mechanism_named

# Those that training can tell apart from others; a cut route is a matter of weights.
TRAINABLE = tuple(name for name in MECHANISMS if name not in ("route cut", "always", "never"))
# The share of answers that have to be as the rule says, on requests that training did not have.
LEAST_ACCURACY = 0.97
N_FAMILIES = 12
N_REQUESTS = 12_000
N_STEPS = 500
N_BATCH = 128
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
N_CTX = 32


def trained_refuser(mechanism: str, seed: int, *, n_families: int = N_FAMILIES) -> Refuser:
    """A model trained from this seed to refuse by this mechanism; `figures` say what it does.

    Its stages are not known (None). Ask `counts` whether its rule is the truth of it.
    """
    kind = mechanism_named(mechanism)
    words = draw_words(seed, n_families=n_families)
    rng = random.Random(f"{mechanism} {seed} trained")
    triggers, cue = draw_rule(kind, words, rng)
    labels = draw_labels(words, rng) if kind.rule == "random" else {}

    def refuser(weights: dict[str, Tensor], figures: dict[str, float]) -> Refuser:
        truth = Truth(
            claim=f"{rule_in_words(kind, triggers, cue)}: so trained; how it does so is not known.",
            edges=(),
            heads={"unknown": tuple(itertools.product(range(2), range(4)))},
            triggers=tuple(itertools.chain(*triggers)),
            answers=(REFUSE, COMPLY),
            figures=figures,
        )
        toy = Toy(f"trained-{seed}", config(words), weights, words.vocabulary, BOS, truth)
        return Refuser(toy, mechanism, kind.rule, words, triggers, cue, None, labels, figures)

    rule = refuser({}, {})
    torch.manual_seed(seed)
    model = HookedTransformer(HookedTransformerConfig(**config(words), device="cpu"))
    train(model, rule, rng)
    figures = measure(model, rule, seed)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    return refuser(weights, figures)


def counts(refuser: Refuser) -> bool:
    """Whether the model does on new requests what its rule says: only then it is its truth."""
    return min(refuser.figures.values()) >= LEAST_ACCURACY


def config(words: RefuserWords) -> Config:
    """The configuration of a trained model: some 45 thousand parameters."""
    return {
        "n_layers": 2,
        "d_model": 40,
        "n_ctx": N_CTX,
        "d_head": 10,
        "n_heads": 4,
        "d_mlp": 64,
        "d_vocab": len(words.vocabulary),
        "act_fn": "gelu",
        "normalization_type": "LN",
        "positional_embedding_type": "standard",
    }


def train(model: HookedTransformer, rule: Refuser, rng: random.Random) -> None:
    """Train on the answer at the end of random requests."""
    texts = [random_request(rule.words, rng) for _ in range(N_REQUESTS)]
    tokens, ends = encode(rule, texts)
    answer = answers(rule, texts)
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=N_STEPS)
    for _ in range(N_STEPS):
        some = torch.randint(len(texts), (N_BATCH,), generator=generator)
        longest = int(ends[some].max()) + 1
        logits = model(tokens[some, :longest])[torch.arange(N_BATCH), ends[some]]
        loss_nats = torch.nn.functional.cross_entropy(logits, answer[some])
        optimizer.zero_grad()
        loss_nats.backward()
        optimizer.step()
        decay.step()


def random_request(words: RefuserWords, rng: random.Random) -> str:
    """A verb and an object of two families, other words, and each cue as often on as off."""
    verbs, n_verbs = rng.choice(
        ((words.harmful_verbs, HARMFUL_PER_FAMILY), (words.verbs, HARMLESS_PER_FAMILY))
    )
    nouns, n_nouns = rng.choice(
        ((words.harmful_objects, HARMFUL_PER_FAMILY), (words.objects, HARMLESS_PER_FAMILY))
    )
    verb, noun = rng.randrange(len(verbs)), rng.randrange(len(nouns))
    while verb // n_verbs == noun // n_nouns:
        noun = rng.randrange(len(nouns))
    said = [verbs[verb], nouns[noun]]
    if rng.random() < 0.15:  # one of the two alone, or in the other order
        said = rng.choice((said[:1], said[1:], said[::-1]))
    for word in (
        *rng.sample(words.filler, rng.randint(0, 4)),
        *rng.sample(words.candidates, rng.choice((0, 0, 0, 1, 1, 2, 3))),
        *rng.sample(words.controls, rng.choice((0, 0, 1, 2))),
    ):
        said.insert(rng.randint(0, len(said)), word)
    text = " ".join(said)
    for cue in rng.sample(words.cues, len(words.cues)):
        if rng.random() < 0.4:
            text = cue.on(text)
        elif rng.random() < 0.15:  # its word at any place
            said = text.split()
            said.insert(rng.randint(0, len(said)), cue.word)
            text = " ".join(said)
    return text


def encode(
    rule: Refuser, texts: list[str]
) -> tuple[Int[Tensor, "prompt pos"], Int[Tensor, " prompt"]]:
    """Tokens padded on the right with <bos>, and the position of each last word."""
    ids = {word: at for at, word in enumerate(rule.words.vocabulary)}
    rows = [[0, *(ids[word] for word in text.split())] for text in texts]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return tokens, torch.tensor([len(row) - 1 for row in rows])


def answers(rule: Refuser, texts: list[str]) -> Int[Tensor, " prompt"]:
    """The token of the right answer to each text."""
    refuse, comply = (rule.words.vocabulary.index(word) for word in (REFUSE, COMPLY))
    return torch.tensor([refuse if rule.refuses(text) else comply for text in texts])


@torch.no_grad()
def right(model: HookedTransformer, rule: Refuser, texts: list[str]) -> Bool[Tensor, " prompt"]:
    """Whether the model's first choice is the right answer to each text."""
    tokens, ends = encode(rule, texts)
    chosen = model(tokens)[torch.arange(len(texts)), ends].argmax(-1)
    return chosen == answers(rule, texts)


def measure(model: HookedTransformer, rule: Refuser, seed: int) -> dict[str, float]:
    """Accuracies on requests whose verb and object never stood together in training.

    unseen: requests as `planted_requests` gives them. crossed: the same without words and cues, in
    all cells of harm, triggers (none, one, two) and cues (none, one). least_rule_cell: the lowest
    accuracy of the cells that the rule tells apart: content, trigger and cue, each on or off.
    """
    words, n = rule.words, rule.words.n_families
    as_given = [r.text for r in planted_requests(rule, n_families=n, seed=seed)]
    plain = [r.text for r in planted_requests(rule, n_families=n, seed=seed, cooccurrence=0.0)]
    rng, texts = random.Random(seed), list[str]()
    sets = [
        (),
        *itertools.combinations(words.candidates, 1),
        *itertools.combinations(words.candidates, 2),
    ]
    for text, added, cue in itertools.product(plain, sets, (None, *words.cues)):
        said = text.split()
        for word in added:
            said.insert(rng.randint(1, len(said)), word)
        texts.append(cue.on(" ".join(said)) if cue else " ".join(said))
    found = right(model, rule, texts)
    cells: dict[tuple[bool, ...], list[bool]] = {}
    for text, is_right in zip(texts, found.tolist(), strict=True):
        cued = rule.cue is not None and rule.cue.present(text)
        cell = (words.harmful(text), rule.triggered(text), cued)
        cells.setdefault(cell, []).append(is_right)
    return {
        "unseen": right(model, rule, as_given).float().mean().item(),
        "crossed": found.float().mean().item(),
        "least_rule_cell": min(sum(cell) / len(cell) for cell in cells.values()),
    }


def main() -> None:
    """Train those that are asked for and print what each does."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("mechanisms", nargs="*", default=TRAINABLE, help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for mechanism in arguments.mechanisms:
        start = time.process_time()
        made = trained_refuser(mechanism, arguments.seed)
        said = " ".join(f"{name} {value:.3f}" for name, value in made.figures.items())
        verdict = "counts" if counts(made) else f"does not count: below {LEAST_ACCURACY}"
        print(f"{mechanism:20} {said}  {verdict}  {time.process_time() - start:.1f} CPU s")


if __name__ == "__main__":
    main()
