"""Capitals: a fact that the model must know, asked for in one template.

    The capital of France is -> Paris

>>> from mechinterp.tasks.capitals import CAPITALS, TEMPLATE
>>> TEMPLATE.format(country="France"), CAPITALS["France"]
('The capital of France is', 'Paris')
"""

import random

import torch

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import logit_diff
from mechinterp.core.sites import Site
from mechinterp.models.model import Model
from mechinterp.tasks.definition import MEASURED_HERE, Finding, Task
from mechinterp.tasks.words import (
    draw_distinct,
    named_pair,
    positions_of,
    single_token_ids,
    tokenize_known,
)

TRACING = "Meng et al. 2022 (ROME), arXiv 2202.05262"
SOURCE = f"Petroni et al. 2019 (LAMA, relation P36), arXiv 1909.01066; {TRACING}"

TEMPLATE = "The capital of {country} is"

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Portugal": "Lisbon", "Greece": "Athens", "Austria": "Vienna", "Ireland": "Dublin",
    "England": "London", "Norway": "Oslo", "Sweden": "Stockholm", "Denmark": "Copenhagen",
    "Finland": "Helsinki", "Poland": "Warsaw", "Hungary": "Budapest", "Belgium": "Brussels",
    "Russia": "Moscow", "Ukraine": "Kiev", "Turkey": "Ankara", "Iran": "Tehran",
    "Iraq": "Baghdad", "Syria": "Damascus", "Lebanon": "Beirut", "Egypt": "Cairo",
    "Kenya": "Nairobi", "Japan": "Tokyo", "China": "Beijing", "Taiwan": "Taipei",
    "Thailand": "Bangkok", "Vietnam": "Hanoi", "Indonesia": "Jakarta", "Philippines": "Manila",
    "India": "Delhi", "Pakistan": "Islamabad", "Bangladesh": "Dhaka", "Afghanistan": "Kabul",
    "Nepal": "Kathmandu", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago",
    "Canada": "Ottawa", "Australia": "Canberra", "Scotland": "Edinburgh", "Wales": "Cardiff",
    "Romania": "Bucharest", "Bulgaria": "Sofia", "Serbia": "Belgrade", "Croatia": "Zagreb",
    "Venezuela": "Caracas", "Libya": "Tripoli",
}  # fmt: skip

FINDINGS = (
    Finding(
        "restoring MLP outputs at the subject's last token restores the answer most, in middle "
        "layers around 15",
        f"{TRACING}, section 2",
        "gpt2-xl",
        (Site("mlp_out", 15, pos="subject"),),
        "early site",
    ),
    Finding("answers with the capital in every prompt tried", MEASURED_HERE, "smollm2"),
)


@checks_arguments
def country_capitals(model: Model, n: int = 16, seed: int = 0) -> Task:
    """Countries. Metric: the capital's logit minus another capital's, in logits, at the end.

    Positions: subject, the country; end. Corrupt: another country; `others` is its capital.

    Raises:
        ValueError: if `n` is out of range, or the tokenizer has too few of the words.

    Source: Petroni et al. 2019 (LAMA, relation P36), arXiv 1909.01066.
    """
    task, rng = "capitals", random.Random(seed)
    countries = single_token_ids(model, task, "countries", CAPITALS, 2)
    cities = single_token_ids(model, task, "capitals", CAPITALS.values(), 2)
    known = [country for country in countries if CAPITALS[country] in cities]
    if len(known) < 2:
        raise ValueError(
            f"{task}: only {len(known)} of its {len(CAPITALS)} countries are single tokens of "
            f"this model's tokenizer with their capitals, and 2 are needed. Use a larger one."
        )
    clean = draw_distinct(task, n, len(known), lambda: rng.choice(known))
    corrupt = [rng.choice([other for other in known if other != country]) for country in clean]
    prompts, others = (
        tokenize_known(model, task, [TEMPLATE.format(country=country) for country in side])
        for side in (clean, corrupt)
    )
    right, wrong = (
        torch.tensor([cities[CAPITALS[country]] for country in side], device=prompts.tokens.device)
        for side in (clean, corrupt)
    )
    return Task(
        name=task,
        pair=named_pair(
            prompts,
            others,
            subject=positions_of(prompts, (countries[country] for country in clean)),
            end=(prompts.lengths - 1).tolist(),
        ),
        metric=logit_diff(right, wrong),
        answers=right,
        others=wrong,
        findings=FINDINGS,
        source=SOURCE,
        corruption="another country",
    )
