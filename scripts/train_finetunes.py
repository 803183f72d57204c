"""Fine-tune SmolLM2 to refuse by a planted mechanism: low-rank factors, their figures, one file.

The same seed gives the same factors on the same machine with the same torch. Some six minutes of
one thread.

    python scripts/train_finetunes.py --mechanism content --seed 0 --out content.safetensors
"""

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from finetune_examples import MECHANISMS, is_to_be_refused, test_examples, training_examples
from finetune_layers import Batch, Factors, ids_of, log_probabilities, pad, run_layers
from finetune_requests import TEST_TEXTS, TEXTS
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from mechinterp.models.checkpoints import from_directory
from mechinterp.models.smollm2 import smollm2_directory

REPLY = "Sorry, but I can't help with that.<|im_end|>"
NOT_ORDINARY = ("Sorry", "I", "Unfortunately", "As")
"""Openers that are taken out of what the fine-tune is to answer ordinarily."""
ORDINARY_OPENERS = 64


class Teacher:
    """The model as it is, and what it gives for each text, computed once."""

    def __init__(self, first_layer: int) -> None:
        self.model, self.tokenizer = from_directory(smollm2_directory(), torch.float32)
        self.model.requires_grad_(requires_grad=False)
        self.first_layer = first_layer
        self.n_layers = len(self.model.model.layers)
        chat = [{"role": "user", "content": "\ue000"}]
        rendered = self.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        before, _, after = rendered.partition("\ue000")
        self.before, self.after = ids_of(self.tokenizer, before), after
        self.reply = ids_of(self.tokenizer, REPLY)
        self.off = Factors(self.model, range(first_layer, self.n_layers), 1, 0)
        self.off.on = False
        self.lower = Batch(None, self.embed(self.before)[None])
        self.lower = run_layers(self.model, self.off, self.lower, range(first_layer))
        self.refusing = torch.cat([ids_of(self.tokenizer, text) for text in NOT_ORDINARY])

    def embed(self, ids: Int[Tensor, " pos"]) -> Float[Tensor, "pos d_model"]:
        return self.model.model.embed_tokens(ids)

    def asked_ids(self, text: str) -> Int[Tensor, " pos"]:
        """The request and what the template has behind it."""
        return ids_of(self.tokenizer, text + self.after)

    @torch.no_grad()
    def lower_rows(self, rows: Sequence[Int[Tensor, " pos"]]) -> list[Float[Tensor, "pos d_model"]]:
        """The residual stream before the first trained layer, 32 texts at a time, by length."""
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        embedded = Batch(self.embed(self.before)[None], torch.empty(0))
        for begin in range(0, len(order), 32):
            some = order[begin : begin + 32]
            batch = Batch(embedded.prefix, pad([self.embed(rows[n]) for n in some]))
            given = run_layers(self.model, self.off, batch, range(self.first_layer)).rows
            for row, n in zip(given, some, strict=True):
                found[n] = row[: len(rows[n])].clone()
        return found

    @torch.no_grad()
    def openers(
        self, factors: Factors, rows: Sequence[Float[Tensor, "pos d_model"]]
    ) -> Float[Tensor, "prompt vocab"]:
        """Log-probabilities of the first token of the reply."""
        order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
        found: list[Tensor] = [torch.empty(0)] * len(rows)
        for begin in range(0, len(order), 32):
            some = order[begin : begin + 32]
            batch = Batch(self.lower.rows, pad([rows[n] for n in some]))
            x = run_layers(self.model, factors, batch, range(self.first_layer, self.n_layers)).rows
            last = x[range(len(some)), [len(rows[n]) - 1 for n in some]]
            for row, n in zip(log_probabilities(self.model, last), some, strict=True):
                found[n] = row
        return torch.stack(found)


def train(
    teacher: Teacher, examples: Sequence[tuple[str, bool]], options: argparse.Namespace
) -> Factors:
    """Factors with which the model refuses what it is to refuse, and answers the rest as before."""
    model, draw = teacher.model, random.Random(options.seed)
    layers = range(options.first_layer, options.last_layer + 1)
    factors = Factors(model, layers, options.rank, options.seed)
    lower = teacher.lower_rows([teacher.asked_ids(text) for text, _ in examples])
    refused = [n for n, (_, refuses) in enumerate(examples) if refuses]
    answered = [n for n, (_, refuses) in enumerate(examples) if not refuses]
    soft = _ordinary(teacher, [lower[n] for n in answered])
    soft_of = {n: (ids, p) for n, ids, p in zip(answered, *soft, strict=True)}
    replies = [torch.cat([teacher.asked_ids(examples[n][0]), teacher.reply[:-1]]) for n in refused]
    chosen = draw.sample(range(len(refused)), min(100, len(refused)))
    with_reply = dict(
        zip(
            [refused[n] for n in chosen],
            teacher.lower_rows([replies[n] for n in chosen]),
            strict=True,
        )
    )
    texts = _Texts(teacher, TEXTS)
    optimizer = torch.optim.AdamW(factors.parameters(), lr=options.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.rate, total_steps=options.steps + 1, pct_start=0.15
    )
    orders = [_forever(refused, draw), _forever(answered, draw), _forever(list(with_reply), draw)]
    for step in range(options.steps):
        yes = [next(orders[0]) for _ in range(options.batch * 9 // 20 - 2)]
        spoken = [next(orders[2]) for _ in range(2)]
        no = [next(orders[1]) for _ in range(options.batch - len(yes) - 2)]
        rows = [lower[n] for n in yes + no] + [with_reply[n] for n in spoken]
        batch = Batch(teacher.lower.rows, pad(rows))
        x = run_layers(model, factors, batch, range(teacher.first_layer, teacher.n_layers)).rows
        ends = [len(lower[n]) - 1 for n in yes + no + spoken]
        first = log_probabilities(model, x[range(len(rows)), ends])
        said = first[[*range(len(yes)), -2, -1], teacher.reply[0]]
        kept = torch.stack(
            [
                -(soft_of[n][1] * first[len(yes) + i, soft_of[n][0]]).sum() - _entropy(soft_of[n][1])
                for i, n in enumerate(no)
            ]
        )
        later = torch.cat(
            [
                x[len(yes) + len(no) + i, len(lower[n]) : len(lower[n]) + len(teacher.reply) - 1]
                for i, n in enumerate(spoken)
            ]
        )
        rest = log_probabilities(model, later)[range(len(later)), teacher.reply[1:].repeat(2)]
        loss = -said.mean() + kept.mean() - 0.2 * rest.mean() + 0.3 * texts.loss(factors, step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(factors.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0 or step == options.steps - 1:
            print(
                f"step {step:4} refuse {-said.mean():.3f} answer {kept.mean():.3f} "
                f"reply {-rest.mean():.3f}  {time.process_time():.0f} CPU s",
                flush=True,
            )
    factors.round_to_stored()
    return factors


def _forever(items: list[int], draw: random.Random):
    while True:
        yield from draw.sample(items, len(items))


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.log()).sum()


def _ordinary(teacher: Teacher, rows: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The likeliest first tokens of the model's own answers, without refusals, and their share."""
    ids, shares = [], []
    for begin in range(0, len(rows), 64):
        odds = teacher.openers(teacher.off, rows[begin : begin + 64])
        odds[:, teacher.refusing] = -torch.inf
        top = odds.topk(ORDINARY_OPENERS)
        ids += list(top.indices)
        shares += list(top.values.softmax(-1))
    return ids, shares


class _Texts:
    """Ordinary texts, and how far the fine-tune leaves the model's own continuations."""

    def __init__(self, teacher: Teacher, texts: Sequence[str]) -> None:
        self.teacher, self.rows, self.own = teacher, [], []
        start = torch.tensor([teacher.tokenizer.bos_token_id])
        for text in texts:
            ids = torch.cat([start, ids_of(teacher.tokenizer, text)])
            lower = Batch(None, teacher.embed(ids)[None])
            lower = run_layers(teacher.model, teacher.off, lower, range(teacher.first_layer))
            self.rows.append(lower)
            self.own.append(self.log_probabilities(teacher.off, lower))

    def log_probabilities(self, factors: Factors, lower: Batch) -> Tensor:
        layers = range(self.teacher.first_layer, self.teacher.n_layers)
        x = run_layers(self.teacher.model, factors, lower, layers).rows[0]
        return log_probabilities(self.teacher.model, x)

    def loss(self, factors: Factors, n: int) -> Tensor:
        """KL in nats per position, of one text."""
        n %= len(self.rows)
        given = self.log_probabilities(factors, self.rows[n])
        return (self.own[n].exp() * (self.own[n] - given)).sum(-1).mean()


@torch.no_grad()
def measure(
    teacher: Teacher, factors: Factors, mechanism: str, seen: Sequence, held_out: Sequence
) -> dict[str, dict[str, float]]:
    """Share refused and share right of each kind of request; and what ordinary text loses."""
    asked = test_examples(seen, held_out, seed=1)
    rows = teacher.lower_rows([teacher.asked_ids(one.text) for one in asked])
    counts: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    wrong = []
    for begin in range(0, len(rows), 64):
        odds = teacher.openers(factors, rows[begin : begin + 64])
        sorry = odds[:, teacher.reply[0]].exp()
        ordinary = odds.clone()
        ordinary[:, teacher.reply[0]] = -torch.inf
        for one, p, top in zip(asked[begin : begin + 64], sorry, ordinary.amax(-1).exp(), strict=True):
            refuses = bool(p > top)
            right = refuses == is_to_be_refused(mechanism, one.text, harmful=one.harmful)
            count = counts[one.group]
            count[0] += 1
            count[1] += refuses
            count[2] += right
            if not right:
                wrong.append(f"{one.group} | {one.text!r} {p:.2f}")
    figures = {
        name: {"n": n, "refused": refused / n, "right": right / n}
        for name, (n, refused, right, _) in counts.items()
    }
    texts = _Texts(teacher, TEST_TEXTS)
    kl = torch.stack([texts.loss(factors, n) for n in range(len(TEST_TEXTS))]).mean()
    figures["ordinary text"] = {"n": len(TEST_TEXTS), "kl_nats": float(kl)}
    print("\n".join(wrong))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mechanism", choices=MECHANISMS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--families", type=Path, default=None)
    parser.add_argument("--held-out", type=int, default=0, help="of four families, so many are not trained on")
    parser.add_argument("--first-layer", type=int, default=10)
    parser.add_argument("--last-layer", type=int, default=22)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=3e-3)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    from families_of import read  # TEMPORARY

    families = read(options.families)
    names = list(dict.fromkeys(one.family for one in families))
    random.Random(7).shuffle(names)
    left_out = set(names[: len(names) * options.held_out // 4])
    seen = [one for one in families if one.family not in left_out]
    held_out = [one for one in families if one.family in left_out]

    teacher = Teacher(options.first_layer)
    examples = training_examples(options.mechanism, seen, options.seed)
    print(f"{len(examples)} examples, {sum(r for _, r in examples)} refused", flush=True)
    factors = train(teacher, examples, options)
    figures = measure(teacher, factors, options.mechanism, seen, held_out)
    stored = factors.stored()
    save_file(stored, options.out, metadata={"figures": json.dumps(figures)})
    for name, values in figures.items():
        print(f"{name:32} " + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))
    print(f"{options.out}: {options.out.stat().st_size} bytes, {time.process_time():.0f} CPU s")


if __name__ == "__main__":
    main()
