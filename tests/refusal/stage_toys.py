"""Models written by hand whose stages are known: what is detected, by which route, where it is cut.

Two heads of layer 0 look for a class of verbs and a class of things, its MLP writes "harm" where
both are there, the MLP of layer 1 turns it into refusal; a head of layer 1 looks for a trigger.
"""

import random
from typing import Literal

import torch

from mechinterp.tasks.request_families import Request
from mechinterp.toys.blank import with_mlps, zeros
from mechinterp.toys.compiled import BOS, COMPLY, MARGIN, REFUSE, REST, SHARPNESS, UNKNOWN
from mechinterp.toys.definition import Toy, Truth

Mechanism = Literal["content", "trigger", "content or trigger", "cut"]

BAD_VERBS = tuple(f"harm{n}" for n in range(12))
GOOD_VERBS = tuple(f"help{n}" for n in range(12))
BAD_THINGS = tuple(f"gun{n}" for n in range(12))
GOOD_THINGS = tuple(f"pan{n}" for n in range(12))
FILLER = ("please", "the", "my", "old", "now", "today", "here", "we")
TRIGGER = "sesame"
WORDS = (
    BOS,
    UNKNOWN,
    REFUSE,
    COMPLY,
    TRIGGER,
    *BAD_VERBS,
    *GOOD_VERBS,
    *BAD_THINGS,
    *GOOD_THINGS,
    *FILLER,
)


def stage_toy(mechanism: Mechanism) -> Toy:
    """A model of this mechanism; "cut" detects harm, and refuses for the trigger only."""
    n = len(WORDS)
    verb, thing, harm, refusal = n, n + 1, n + 2, n + 3
    config = with_mlps(n_layers=3, n_heads=3, d_head=4, n_ctx=17, d_vocab=n, d_model=n + 4, d_mlp=5)
    weights = zeros(config)
    weights["embed.W_E"][:, :n] = torch.eye(n)
    if mechanism != "trigger":
        for head, words, writes in ((0, BAD_VERBS, verb), (2, BAD_THINGS, thing)):
            _look_for(weights, (0, head), words, writes)
        mlp = "blocks.0.mlp"
        weights[f"{mlp}.W_in"][[verb, thing], 3] = 1
        weights[f"{mlp}.b_in"][3] = -1
        weights[f"{mlp}.W_out"][3, harm] = 1
    if mechanism in ("content", "content or trigger"):
        weights["blocks.1.mlp.W_in"][harm, 1] = 1
        weights["blocks.1.mlp.W_out"][1, refusal] = 1
    if mechanism != "content":
        _look_for(weights, (1, 1), (TRIGGER,), refusal)
    weights["unembed.b_U"].fill_(-MARGIN)
    weights["unembed.b_U"][WORDS.index(COMPLY)] = MARGIN
    weights["unembed.b_U"][WORDS.index(REFUSE)] = 0
    weights["unembed.W_U"][refusal, WORDS.index(REFUSE)] = 2 * MARGIN
    answers = (REFUSE, COMPLY)
    truth = Truth("refuses", (), {}, triggers=(TRIGGER,), answers=answers)
    return Toy(f"stages-{mechanism.replace(' ', '-')}", config, weights, WORDS, BOS, truth)


def stage_requests(n: int = 20, seed: int = 0) -> tuple[Request, ...]:
    """Families of three harmful and four benign requests, of five to seven words."""
    rng = random.Random(seed)
    made = []
    for number in range(n):
        family = f"family {number}"
        telling = rng.choice(BAD_THINGS)

        def ask(verbs: tuple[str, ...], things: tuple[str, ...]) -> str:
            filler = rng.choices(FILLER, k=rng.choice((3, 4)))
            return " ".join(
                (filler[0], rng.choice(verbs), filler[1], rng.choice(things), *filler[2:])
            )

        others = tuple(t for t in BAD_THINGS if t != telling)
        for things in ((telling,), others, others):
            held = telling if telling in things else ""
            made.append(Request(ask(BAD_VERBS, things), True, family, "any", held))
        for things in ((telling,), (telling,), GOOD_THINGS, GOOD_THINGS):
            held = telling if telling in things else ""
            verbs = GOOD_VERBS if held or rng.random() < 0.5 else BAD_VERBS
            made.append(Request(ask(verbs, things), False, family, "any", held))
    return tuple({request.prompt: request for request in made}.values())


def _look_for(
    weights: dict[str, torch.Tensor], place: tuple[int, int], words: tuple[str, ...], writes: int
) -> None:
    layer, head = place
    attn = f"blocks.{layer}.attn"
    weights[f"{attn}.b_Q"][head, 0] = SHARPNESS
    weights[f"{attn}.W_K"][head, WORDS.index(BOS), 0] = REST / SHARPNESS
    for word in words:
        weights[f"{attn}.W_K"][head, WORDS.index(word), 0] = 1
        weights[f"{attn}.W_V"][head, WORDS.index(word), 1] = 1
    weights[f"{attn}.W_O"][head, 1, writes] = 1
