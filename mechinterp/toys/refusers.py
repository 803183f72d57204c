"""Models that refuse by a planted rule, compiled: any number, from seeds, and each exact.

What differs from seed to seed: layers, heads, where the parts stand, the words, which cue, how wide
the margins are, and whether the heads that carry what decides write refusal themselves or a gate
that a later MLP turns into refusal. Words that never decide sway the score of every model a little.

    refuser = planted_refuser("content and cue", seed=3)
    model = load_model(refuser.toy)
    refuser.refuses("steal the gun !"), refuser.cue
"""

import random
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from mechinterp.core.arguments import checks_arguments
from mechinterp.toys.blank import Config, with_mlps
from mechinterp.toys.compiled import BOS, COMPLY, REFUSE, REST, SHARPNESS, attention_to
from mechinterp.toys.definition import Toy, Truth
from mechinterp.toys.refuser_parts import LEAK, Parts, Plan, free_head
from mechinterp.toys.refuser_truth import (
    MECHANISMS,
    Mechanism,
    PlantedStages,
    Refuser,
    rule_in_words,
)
from mechinterp.toys.refuser_weights import FEATURES, N_NEURONS, N_UNREAD, RefuserWriter
from mechinterp.toys.refuser_words import PlantedCue, RefuserWords, draw_words

# How far words that never decide may move the score, as a share of the margin.
SWAY: Final = 0.3
# Those that have a name, `load_model("toy:refuses-content")`: the mechanism, and the seed.
NAMED: Final[Mapping[str, tuple[str, int]]] = {
    "refuses-content": ("content", 2),
    "refuses-trigger": ("either trigger", 1),
    "refuses-cue": ("final cue", 2),
    "refuses-content-or-trigger": ("content or trigger", 4),
    "refuses-route-cut": ("route cut", 4),
}


@checks_arguments
def named_refuser(name: str) -> Refuser:
    """A planted model that has a name, with what is true of it; English words, eight families.

    >>> from mechinterp.toys import named_refuser
    >>> named_refuser("refuses-cue").cue.name
    '! last'

    Raises:
        ValueError: if none has this name.
    """
    if name not in NAMED:
        raise ValueError(f'planted model "{name}": none has this name. Names: {", ".join(NAMED)}.')
    mechanism, seed = NAMED[name]
    return planted_refuser(mechanism, seed, n_families=8, name=name)


@checks_arguments
def planted_refuser(mechanism: str, seed: int, *, n_families: int = 24, name: str = "") -> Refuser:
    """A compiled model that refuses by this mechanism, a name in `MECHANISMS`, and what is true.

    n_families: how many families of requests have words of their own. name: of the toy.

    >>> from mechinterp.toys import MECHANISMS, planted_refuser
    >>> [name for name in MECHANISMS if "trigger" in name][:4]
    ['trigger', 'either trigger', 'both triggers', 'three triggers']
    >>> refuser = planted_refuser("both triggers", seed=4, n_families=8)
    >>> first, second = refuser.triggers[0]
    >>> refuser.refuses(f"{first} wash the kettle"), refuser.refuses(f"{first} {second}")
    (False, True)
    >>> from mechinterp import load_model, run
    >>> from mechinterp.tasks.refusals import refusal_log_odds
    >>> model = load_model(refuser.toy)
    >>> odds = refusal_log_odds(model, refusals=["REFUSE"], compliances=["COMPLY"])
    >>> bool(odds(run(model, f"{first} wash {second}")) > 0)
    True

    Raises:
        ValueError: if no mechanism has this name, or there would be no family.
    """
    kind = mechanism_named(mechanism)
    words = draw_words(seed, n_families=n_families)
    rng = random.Random(f"{mechanism} {seed}")
    triggers, cue = draw_rule(kind, words, rng)
    plan = Plan(kind, words, triggers, cue, rng, cut=mechanism == "route cut")
    config = _draw_config(words, rng)
    writer = RefuserWriter(words, config)
    stages, labels = Parts(plan, writer).write()
    margin = rng.uniform(4.0, 10.0)
    sway = {word: rng.uniform(-1, 1) for word in words.vocabulary if word != BOS}
    writer.average("sway", free_head(writer, rng, range(config["n_layers"])), sway, {"sway": 1.0})
    writer.answers(margin, SWAY * margin, prior=2 * margin if kind.rule == "always" else 0.0)
    writer.decoys(seed)
    made = Toy(
        name or f"refuser-{seed}",
        config,
        writer.weights,
        words.vocabulary,
        BOS,
        _truth(plan, writer, stages, margin),
        _places(plan),
    )
    return Refuser(made, mechanism, kind.rule, words, triggers, cue, stages, labels)


def mechanism_named(mechanism: str) -> Mechanism:
    """The mechanism of this name.

    Raises:
        ValueError: if no mechanism has this name.
    """
    if mechanism not in MECHANISMS:
        near = get_close_matches(mechanism, MECHANISMS, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise ValueError(
            f'mechanism "{mechanism}": there is none of this name.{hint} '
            f"Mechanisms: {', '.join(MECHANISMS)}."
        )
    return MECHANISMS[mechanism]


def draw_rule(
    kind: Mechanism, words: RefuserWords, rng: random.Random
) -> tuple[tuple[tuple[str, ...], ...], PlantedCue | None]:
    """The triggers and the cue of a model, among the words that may be them."""
    candidates = rng.sample(words.candidates, sum(kind.triggers))
    triggers = tuple(tuple(candidates.pop() for _ in range(size)) for size in kind.triggers)
    if not kind.places:
        return triggers, None
    place = rng.choice(kind.places)
    return triggers, next(cue for cue in words.cues if cue.place == place)


def _draw_config(words: RefuserWords, rng: random.Random) -> Config:
    """Sizes that are all different."""
    n_layers = rng.choice((3, 4, 5))
    n_heads = rng.choice([n for n in (2, 3, 4, 5) if n != n_layers])
    d_vocab = len(words.vocabulary)
    return with_mlps(
        n_layers=n_layers,
        n_heads=n_heads,
        d_head=rng.choice((6, 7, 8)),
        d_mlp=N_NEURONS + rng.choice((3, 4, 5)),
        n_ctx=rng.choice((36, 37, 39)),
        d_vocab=d_vocab,
        d_model=d_vocab + len(FEATURES) + N_UNREAD,
    )


def _truth(plan: Plan, writer: RefuserWriter, stages: PlantedStages, margin: float) -> Truth:
    """What is true of the toy."""
    n_others = writer.config["n_ctx"] - 2
    attention = attention_to(SHARPNESS, others=[REST] + [0.0] * n_others)
    least = 2 * attention - 1 - SWAY
    cut = "; it detects harmful content, and nothing carries that to the answer" if plan.cut else ""
    roles = {role: tuple(places) for role, places in writer.heads.items()}
    return Truth(
        claim=(
            f"{rule_in_words(plan.kind, plan.triggers, plan.cue)}{cut}. So at every position, of "
            "the words up to there: REFUSE or COMPLY is predicted, without error for any prompt of "
            f"its words. Words that never decide move logit(REFUSE) by up to {SWAY * margin:.1f}."
        ),
        edges=tuple(dict.fromkeys(writer.edges)),
        heads=roles,
        neurons={role: tuple(places) for role, places in writer.neurons.items()},
        triggers=tuple(word for needed in plan.triggers for word in needed),
        answers=(REFUSE, COMPLY),
        constant=tuple(writer.constant),
        figures={
            "accuracy": 1.0,
            "refuse_margin_logits_at_least": margin * least,
            "comply_margin_logits_at_least": margin * (1 - SWAY - 2 * LEAK * 3),
        },
    )


def _places(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Words that may stand at each place of an example prompt."""
    words, filler = plan.words, plan.words.filler
    cues: dict[str, tuple[str, ...]] = {cue.place: (cue.word,) * 4 for cue in plan.words.cues}
    triggers = tuple(word for needed in plan.triggers for word in needed)
    return (
        cues["first"] + filler[:4],
        cues["second"] + filler[:4],
        words.harmful_verbs[:4] + words.verbs[:2],
        filler + cues["anywhere"],
        words.harmful_objects[:4] + words.objects[:2],
        triggers * 4 + filler[:4],
        triggers + filler,
        cues["last"] + filler[:4],
    )
