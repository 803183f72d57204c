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
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from mechinterp.core.arguments import checks_arguments
from mechinterp.toys.blank import Config, with_mlps
from mechinterp.toys.compiled import BOS, COMPLY, REFUSE, REST, SHARPNESS, attention_to
from mechinterp.toys.definition import Toy, Truth
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
# What a head that writes a gate adds to refusal itself: under 1% of what refusal takes.
LEAK: Final = 0.004
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

    Raises:
        ValueError: if no mechanism has this name, or there would be no family.
    """
    kind = mechanism_named(mechanism)
    words = draw_words(seed, n_families=n_families)
    rng = random.Random(f"{mechanism} {seed}")
    triggers, cue = draw_rule(kind, words, rng)
    plan = _Plan(kind, words, triggers, cue, rng, cut=mechanism == "route cut")
    config = _draw_config(words, rng)
    writer = RefuserWriter(words, config)
    stages, labels = _Parts(plan, writer).write()
    margin = rng.uniform(4.0, 10.0)
    sway = {word: rng.uniform(-1, 1) for word in words.vocabulary if word != BOS}
    writer.average("sway", _free(writer, rng, range(config["n_layers"])), sway, {"sway": 1.0})
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


def draw_labels(words: RefuserWords, rng: random.Random) -> dict[str, int]:
    """A random number for each verb and object: -1, 0 or 1."""
    contents = (words.harmful_verbs, words.harmful_objects, words.verbs, words.objects)
    return {word: rng.choice((-1, 0, 1)) for content in contents for word in content}


@dataclass(frozen=True)
class _Plan:
    """What to compile. cut: whether the head that would carry harm writes nothing."""

    kind: Mechanism
    words: RefuserWords
    triggers: tuple[tuple[str, ...], ...]
    cue: PlantedCue | None
    rng: random.Random
    cut: bool

    @property
    def all_needed(self) -> int:
        """How many sources are needed together; 1 where each is enough."""
        if " and " in self.kind.rule:
            return 2
        return max((len(needed) for needed in self.triggers), default=1)


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


def _free(writer: RefuserWriter, rng: random.Random, layers: range) -> tuple[int, int]:
    """A head of one of these layers that has no part yet."""
    taken = {place for places in writer.heads.values() for place in places}
    places = [(layer, head) for layer in layers for head in range(writer.config["n_heads"])]
    return rng.choice([place for place in places if place not in taken])


class _Parts:
    """Chooses where the parts stand, and writes them."""

    def __init__(self, plan: _Plan, writer: RefuserWriter) -> None:
        self.plan, self.writer, self.rng = plan, writer, plan.rng
        self.last = writer.config["n_layers"] - 1
        # Detection before routing, routing before expression.
        self.route = self.rng.randint(1, self.last)
        self.express = self.rng.randint(self.route, self.last)
        self.routed_by: list[str] = []

    def write(self) -> tuple[PlantedStages, dict[str, int]]:
        """Write all parts; return the stages, and the labels of a random model."""
        kind = self.plan.kind
        if kind.rule == "random":
            return self._write_random()
        detected_layer, detected_by = self._detect() if kind.detected else (None, ())
        heads, tokens, marks = self._sources()
        if not heads and not tokens:
            return PlantedStages(detected=False), {}
        gate = bool(tokens) or len(heads) > 1 or self.rng.random() < 0.5
        writes = {"gate": 1.0, "refusal": LEAK} if gate else {"refusal": 1.0}
        for role, keys in heads:
            first = self.route if "harm" in keys else 1 if marks else 0
            place = _free(self.writer, self.rng, range(first, self.route + 1))
            self.routed_by.append(self.writer.head(role, place, keys, writes))
        if self.plan.cut:
            place = _free(self.writer, self.rng, range(self.route, self.route + 1))
            self.writer.head("cut", place, ["harm"], {})
        layers = [int(name[1 : name.index("H")]) for name in self.routed_by]
        decided = max(layers, default=0)
        expressed_layer, expressed_by = decided, tuple(self.routed_by)
        if gate:
            reads, threshold = ["gate", *tokens], self.plan.all_needed - 0.5
            name = self.writer.step("express", self.express, reads, threshold, "refusal")
            expressed_layer, expressed_by = self.express, (name,)
        return PlantedStages(
            detected=kind.detected,
            detected_layer=detected_layer,
            detected_by=detected_by,
            routed=kind.detected and not self.plan.cut,
            routed_by=tuple(self.routed_by),
            decided_layer=decided,
            expressed_layer=expressed_layer,
            expressed_by=expressed_by,
            cut="detection and routing" if self.plan.cut else "",
            gate=gate and bool(heads),
        ), {}

    def _detect(self) -> tuple[int, tuple[str, ...]]:
        """Mark harm at every harmful object that stands after a harmful verb."""
        words = self.plan.words
        layer = self.rng.randint(0, self.route - 1)
        place = _free(self.writer, self.rng, range(layer + 1))
        head = self.writer.head("verb", place, words.harmful_verbs, {"verb": 1.0})
        reads = ["verb", *words.harmful_objects]
        made = head, self.writer.step("harm", layer, reads, 1.5, "harm")
        if self.plan.cut:  # none of this reaches a logit
            self.writer.edges.clear()
        return layer, made

    def _sources(self) -> tuple[list[tuple[str, list[str]]], list[str], bool]:
        """The heads that carry what decides, as role and keys; words read where they stand last.

        The third: whether a head looks for a mark that an MLP of the first layer makes.
        """
        heads, tokens, marks = list[tuple[str, list[str]]](), list[str](), False
        if "content" in self.plan.kind.rule:
            heads.append(("route", ["harm"]))
        singles = [word for needed in self.plan.triggers for word in needed]
        apart = self.plan.all_needed > 1 or self.rng.random() < 0.5
        if singles and apart:
            heads += [("trigger", [word]) for word in singles]
        elif singles:
            heads.append(("trigger", singles))
        cue = self.plan.cue
        if cue is not None and cue.place == "last":
            tokens.append(cue.word)
        elif cue is not None and cue.place == "anywhere":
            heads.append(("cue", [cue.word]))
        elif cue is not None:
            self.writer.step("mark", 0, [cue.word, cue.place], 1.5, "mark")
            heads.append(("cue", ["mark"]))
            marks = True
        if len(heads) > 1 and not apart:  # one head looks for all of it
            heads = [("route", [key for _, keys in heads for key in keys])]
        return heads, tokens, marks

    def _write_random(self) -> tuple[PlantedStages, dict[str, int]]:
        """Refuse where random numbers of verbs and objects sum to 1 or more."""
        words, n_ctx = self.plan.words, self.writer.config["n_ctx"]
        labels = draw_labels(words, self.rng)
        place = _free(self.writer, self.rng, range(self.route + 1))
        values = {word: float(label) for word, label in labels.items()}
        name = self.writer.average("labels", place, values, {"gate": 1.0})
        step = self.writer.step(
            "express", self.express, ["gate"], 0.5 / n_ctx, "refusal", slope=2.0 * n_ctx
        )
        return PlantedStages(
            detected=False,
            routed_by=(name,),
            decided_layer=place[0],
            expressed_layer=self.express,
            expressed_by=(step,),
            gate=True,
        ), labels


def _truth(plan: _Plan, writer: RefuserWriter, stages: PlantedStages, margin: float) -> Truth:
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


def _places(plan: _Plan) -> tuple[tuple[str, ...], ...]:
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
