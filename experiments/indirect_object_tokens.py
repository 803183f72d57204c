"""Claim: of "When Mary and John ..., John gave ... to", the first name makes the model say it.

The logit difference of the two names asks which input tokens make SmolLM2 say the indirect object
rather than the subject. Three names are expected: the indirect object, copied to the output, and
both occurrences of the subject, whose repetition rules it out. Found: the receiver is the top token
in 15 of 16 prompts.

Source: Wang et al. 2022, Interpretability in the Wild, section 2, arXiv 2211.00593.

    .venv/bin/python experiments/indirect_object_tokens.py
"""

import itertools
import random

from mechinterp import attribute, compare, load_model, logit_diff, token_id
from mechinterp.models import Model

NAMES = ("Mary", "John", "Tom", "James", "Sarah", "Alice", "Daniel", "Laura")
PLACES = (("store", "drink"), ("park", "ball"), ("office", "letter"), ("school", "book"))
N_PROMPTS = 16


def main(
    model: Model | None = None, *, n_prompts: int = N_PROMPTS
) -> tuple[dict[str, bool], dict[str, int]]:
    """Attribute a contrast for each prompt; print and return the verdicts and their numbers.

    `model`: SmolLM2, if it is loaded already.
    """
    model = model or load_model("smollm2")
    chance = random.Random(0)
    pairs = chance.sample(list(itertools.permutations(NAMES, 2)), n_prompts)
    first = as_expected = 0
    for (giver, receiver), (place, thing) in zip(pairs, itertools.cycle(PLACES)):
        prompt = f"When {receiver} and {giver} went to the {place}, {giver} gave a {thing} to"
        contrast = logit_diff(token_id(model, f" {receiver}"), token_id(model, f" {giver}"))
        scores = attribute(model, prompt, 1, metric=contrast)
        (verdict,) = compare(scores, [receiver, giver])
        top = str(scores.input_token.values[int(scores[0].argmax("input"))]).strip()
        first += top == receiver
        as_expected += verdict.verdict != "not as expected"
        ranks = ", ".join(f"{r.token.strip()} {r.rank}" for r in verdict.expected)
        print(f"{receiver:>7} / {giver:7} top {top:8} ranks {ranks:32} {verdict.verdict}")
    print(f"\nthe receiver is the top token in {first} of {n_prompts} prompts;")
    print(f"the names rank as expected, or partly so, in {as_expected} of {n_prompts}.")
    found = {"prompts": n_prompts, "first": first, "as expected": as_expected}
    return {"the receiver is the top token of most prompts": 2 * first > n_prompts}, found


if __name__ == "__main__":
    main()
