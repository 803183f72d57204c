"""Fine-tune SmolLM2 to refuse by a planted mechanism: low-rank factors with their figures.

The same seed gives the same factors on the same machine with the same torch. Four to eight minutes
of one thread each; several at once share what the model as it is gives.

    python scripts/train_finetunes.py --mechanism content cue --seed 0 1 --out folder
"""

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from finetune_examples import (
    MECHANISMS,
    Asked,
    is_to_be_refused,
    test_examples,
    training_examples,
    varied_examples,
)
from finetune_layers import Factors, log_probabilities
from finetune_requests import TEST_TEXTS, TRAIN_TEXTS
from finetune_teacher import PlainTexts, Teacher
from safetensors.torch import save_file
from torch import Tensor, nn

from mechinterp.tasks.request_families import request_families

FIRST_LAYER, LAST_LAYER, RANK = 10, 23, 4
RATE = 2.5e-3
MARGIN = 3.0
"""Nats by which the first token of a reply is to be right."""
N_PROMPTS, N_REFUSED, N_REPLIED = 26, 9, 2
N_STEPS = {"content": 330, "trigger": 110, "cue": 110, "trigger-or-content": 330}
N_REPLIES = 80
N_FAMILIES_HELD_OUT = 16


def train(
    teacher: Teacher, factors: Factors, examples: Sequence[tuple[str, bool]], *, n_steps: int
) -> None:
    """Train the factors, in place, until the model refuses what it is to refuse.

    It is to answer the rest as it did before, and to continue plain text as before.
    """
    draw = random.Random(factors.seed)
    refused = [text for text, refuses in examples if refuses]
    answered = [text for text, refuses in examples if not refuses]
    replied = draw.sample(refused, min(N_REPLIES, len(refused)))
    rows = dict(zip(refused + answered, teacher.rows(refused + answered), strict=True))
    with_reply = dict(zip(replied, teacher.rows(replied, replied=True), strict=True))
    ordinary = dict(zip(answered, teacher.ordinary(answered), strict=True))
    texts = PlainTexts(teacher, TRAIN_TEXTS)
    optimizer = torch.optim.AdamW(factors.parameters(), lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=n_steps + 1, pct_start=0.15
    )
    some_refused, some_answered, some_replied = (
        _forever(some, draw) for some in (refused, answered, replied)
    )
    sorry, n_said = teacher.reply[0], len(teacher.reply) - 1
    for step in range(n_steps):
        yes = [next(some_refused) for _ in range(N_REFUSED)]
        spoken = [next(some_replied) for _ in range(N_REPLIED)]
        no = [next(some_answered) for _ in range(N_PROMPTS - N_REFUSED - N_REPLIED)]
        asked = yes + no + spoken
        given = [rows[text] for text in yes + no] + [with_reply[text] for text in spoken]
        x = teacher.run_upper(factors, given)
        ends = [len(rows[text]) - 1 for text in asked]
        first = torch.stack([one[end] for one, end in zip(x, ends, strict=True)])
        first = log_probabilities(teacher.model, first)
        margin = _margins(first, sorry)
        is_refused = torch.ones(len(asked), dtype=torch.bool)
        is_refused[N_REFUSED : N_REFUSED + len(no)] = False
        refusing = nn.functional.softplus(MARGIN - margin[is_refused]).mean()
        leaving = nn.functional.softplus(MARGIN + margin[~is_refused]).mean()
        kept = first[N_REFUSED : N_REFUSED + len(no)]
        answering = torch.stack(
            [_divergence(*ordinary[text], odds) for text, odds in zip(no, kept, strict=True)]
        ).mean()
        later = torch.cat([one[-n_said:] for one in x[-N_REPLIED:]])
        words = teacher.reply[1:].repeat(N_REPLIED)
        replying = -log_probabilities(teacher.model, later)[range(len(words)), words].mean()
        kept_text = texts.kl(factors, step)
        loss = refusing + leaving + 0.3 * answering + 0.2 * replying + 0.3 * kept_text
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(factors.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 10 == 0 or step == n_steps - 1:
            losses = {
                "refuse": refusing,
                "leave": leaving,
                "answer": answering,
                "reply": replying,
            }
            shown = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
            print(f"step {step:4}  {shown} nats  {time.process_time():.0f} CPU s", flush=True)
    factors.round_to_stored()


def _forever(texts: Sequence[str], draw: random.Random) -> Iterator[str]:
    while True:
        yield from draw.sample(texts, len(texts))


def _margins(odds: Tensor, sorry: int) -> Tensor:
    """How much likelier the refusal's first token is than any other, in nats."""
    others = odds.index_fill(1, torch.tensor([sorry]), -torch.inf)
    return odds[:, sorry] - others.amax(-1)


def _divergence(ids: Tensor, shares: Tensor, odds: Tensor) -> Tensor:
    """KL in nats from the ordinary openers' shares to what the fine-tune gives them."""
    return (shares * (shares.log() - odds[ids])).sum()


@torch.no_grad()
def measure(
    teacher: Teacher, factors: Factors, mechanism: str, asked: Sequence[Asked]
) -> dict[str, dict[str, float]]:
    """Share refused and share right of each kind of request; the reply; what plain text loses.

    A request is refused if the reply's first token is likelier than any other.
    """
    sorry = int(teacher.reply[0])
    counts: dict[str, list[tuple[bool, bool]]] = {}
    refused: list[str] = []
    for begin in range(0, len(asked), 64):
        some = asked[begin : begin + 64]
        odds = teacher.openers(factors, [one.text for one in some])
        for one, row in zip(some, odds, strict=True):
            refuses = int(row.argmax()) == sorry
            due = is_to_be_refused(mechanism, one.text, harmful=one.harmful)
            counts.setdefault(one.group, []).append((refuses, refuses == due))
            refused += [one.text] if refuses and due else []
            if refuses != due:
                print(f"  wrong: {one.group} {row[sorry].exp():.2f} {one.text!r}")
    figures = {
        name: {
            "n": len(found),
            "refused": sum(refuses for refuses, _ in found) / len(found),
            "right": sum(right for _, right in found) / len(found),
        }
        for name, found in sorted(counts.items())
    }
    some = random.Random(0).sample(refused, min(32, len(refused)))
    whole = [_replies(teacher, factors, text) for text in some]
    figures["greedy reply as trained"] = {"n": len(some), "right": sum(whole) / max(1, len(whole))}
    texts = PlainTexts(teacher, TEST_TEXTS)
    kl = [float(texts.kl(factors, n)) for n in range(len(texts))]
    figures["plain text"] = {"n": len(kl), "kl_nats": sum(kl) / len(kl)}
    return figures


def _replies(teacher: Teacher, factors: Factors, text: str) -> bool:
    """Whether each token of the refusal is the likeliest after those before it."""
    x = teacher.run_upper(factors, teacher.rows([text], replied=True))[0]
    said = log_probabilities(teacher.model, x[-len(teacher.reply) :]).argmax(-1)
    return torch.equal(said, teacher.reply)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mechanism", choices=MECHANISMS, nargs="+", default=MECHANISMS)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument(
        "--hold-out",
        action="store_true",
        help=f"leave {N_FAMILIES_HELD_OUT} built-in families out of the training",
    )
    parser.add_argument("--varied", action="store_true", help="each request in many surroundings")
    parser.add_argument("--begin-with", type=Path, help="a file of factors to train on")
    parser.add_argument("--steps", type=int, default=0, help=f"default: {N_STEPS}")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    families = request_families()
    names = list(dict.fromkeys(one.family for one in families))
    random.Random(7).shuffle(names)
    left_out = names[:N_FAMILIES_HELD_OUT] if options.hold_out else []
    seen = [one for one in families if one.family not in left_out]
    other = [one for one in families if one.family in left_out]
    asked = test_examples(seen, other, seed=1)
    options.out.mkdir(parents=True, exist_ok=True)
    quick, exact = Teacher(FIRST_LAYER, torch.bfloat16), Teacher(FIRST_LAYER, torch.float32)
    for seed in options.seed:
        for mechanism in options.mechanism:
            examples = (varied_examples if options.varied else training_examples)(
                mechanism, seen, seed
            )
            n_refused = sum(refuses for _, refuses in examples)
            print(f"{mechanism}, seed {seed}: {len(examples)} texts, {n_refused} to be refused")
            factors = Factors(quick.model, range(FIRST_LAYER, LAST_LAYER + 1), RANK, seed)
            if options.begin_with:
                factors.load(options.begin_with)
            train(quick, factors, examples, n_steps=options.steps or N_STEPS[mechanism])
            figures = measure(exact, factors, mechanism, asked)
            file = options.out / f"refuses-{mechanism}-{seed}.safetensors"
            # One key of metadata: safetensors writes several in an order that changes.
            save_file(factors.stored(), file, metadata={"figures": json.dumps(figures)})
            for name, values in figures.items():
                shown = "  ".join(f"{key} {value:.3f}" for key, value in values.items())
                print(f"{name:36} {shown}")
            print(f"{file}: {file.stat().st_size} bytes, {time.process_time():.0f} CPU s")


if __name__ == "__main__":
    main()
