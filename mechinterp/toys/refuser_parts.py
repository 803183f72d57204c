"""Which parts a planted model that refuses has, and in which layers: drawn at random and written.

Detection stands before routing, and routing before expression.

    plan = Plan(kind, words, triggers, cue, rng, cut=False)
    stages, labels = Parts(plan, RefuserWriter(words, config)).write()
"""

import random
from dataclasses import dataclass
from typing import Final

from mechinterp.toys.refuser_truth import Mechanism, PlantedStages
from mechinterp.toys.refuser_weights import RefuserWriter
from mechinterp.toys.refuser_words import PlantedCue, RefuserWords

# What a head that writes a gate adds to refusal itself: under 1% of what refusal takes.
LEAK: Final = 0.004


def draw_labels(words: RefuserWords, rng: random.Random) -> dict[str, int]:
    """A random number for each verb and object: -1, 0 or 1."""
    contents = (words.harmful_verbs, words.harmful_objects, words.verbs, words.objects)
    return {word: rng.choice((-1, 0, 1)) for content in contents for word in content}


@dataclass(frozen=True)
class Plan:
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


def free_head(writer: RefuserWriter, rng: random.Random, layers: range) -> tuple[int, int]:
    """A head of one of these layers that has no part yet."""
    taken = {place for places in writer.heads.values() for place in places}
    places = [(layer, head) for layer in layers for head in range(writer.config["n_heads"])]
    return rng.choice([place for place in places if place not in taken])


class Parts:
    """Chooses where the parts stand, and writes them."""

    def __init__(self, plan: Plan, writer: RefuserWriter) -> None:
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
            place = free_head(self.writer, self.rng, range(first, self.route + 1))
            self.routed_by.append(self.writer.head(role, place, keys, writes))
        if self.plan.cut:
            place = free_head(self.writer, self.rng, range(self.route, self.route + 1))
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
        place = free_head(self.writer, self.rng, range(layer + 1))
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
        place = free_head(self.writer, self.rng, range(self.route + 1))
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
