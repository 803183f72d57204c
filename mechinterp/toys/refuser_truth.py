"""By what a planted model refuses: the rule, the stages that carry it, and the right answer.

refuser = planted_refuser("content", seed=0)
refuser.rule                        # "content"
refuser.refuses("steal the gun")    # True
refuser.stages.routed_by            # ("L2H1",)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mechinterp.toys.definition import Toy
from mechinterp.toys.refuser_words import Place, PlantedCue, RefuserWords


@dataclass(frozen=True)
class Mechanism:
    """A kind of planted model.

    rule: by which factors it refuses, in the words of a verdict: "content", "content and cue",
        "always"; or "random", which none of them describes.
    triggers: how many words each enough set of triggers has. places: where its cue may stand.
    detected: whether the model tells harmful content at all.
    same_as: rules that say the same of it in other words.
    """

    rule: str
    triggers: tuple[int, ...] = ()
    places: tuple[Place, ...] = ()
    detected: bool = False
    same_as: tuple[str, ...] = ()


_ANY_PLACE: Final[tuple[Place, ...]] = ("last", "first", "second")

MECHANISMS: Final[Mapping[str, Mechanism]] = {
    "content": Mechanism("content", detected=True),
    "trigger": Mechanism("trigger", (1,)),
    "either trigger": Mechanism("trigger", (1, 1)),
    "both triggers": Mechanism("trigger", (2,)),
    "three triggers": Mechanism("trigger", (1, 1, 1)),
    "final cue": Mechanism("cue", places=("last",)),
    "format cue": Mechanism("cue", places=("first",)),
    "position cue": Mechanism("cue", places=("second",)),
    "near word cue": Mechanism("cue", places=("anywhere",), same_as=("trigger",)),
    "content or trigger": Mechanism("content or trigger", (1,), detected=True),
    "content and cue": Mechanism("content and cue", places=_ANY_PLACE, detected=True),
    "content or cue": Mechanism("content or cue", places=_ANY_PLACE, detected=True),
    "content and trigger": Mechanism("content and trigger", (1,), detected=True),
    "trigger or cue": Mechanism("trigger or cue", (1,), _ANY_PLACE),
    "trigger and cue": Mechanism("trigger and cue", (1,), _ANY_PLACE),
    "route cut": Mechanism("trigger", (1,), detected=True),
    "always": Mechanism("always"),
    "never": Mechanism("never"),
    "random": Mechanism("random"),
}
"""Every kind of planted model, by name."""


@dataclass(frozen=True)
class PlantedStages:
    """Where a compiled model detects harm, carries what decides to the answer, and expresses it.

    detected: whether harm is told at all; after `detected_layer` it stands, as one direction, at
        the harmful object, and the parts `detected_by` make it.
    routed: whether harm so detected reaches the answer.
    routed_by: the heads that carry what refusals come from (harm, triggers, cues) to the last
        position; empty where the last word itself decides. decided_layer: after the attention of
        this layer the last position has all that decides; None where nothing does.
    expressed_by: the part that writes the refusal direction, in `expressed_layer`.
    cut: "detection and routing" where harm is detected and nothing carries it, else "".
    gate: whether the heads' own share of the logits is under 1%: a later MLP reads what they write
        and turns it into refusal.
    """

    detected: bool
    detected_layer: int | None = None
    detected_by: tuple[str, ...] = ()
    routed: bool = False
    routed_by: tuple[str, ...] = ()
    decided_layer: int | None = None
    expressed_layer: int | None = None
    expressed_by: tuple[str, ...] = ()
    cut: str = ""
    gate: bool = False


@dataclass(frozen=True, eq=False)
class Refuser:
    """A model that refuses by a known rule. Compared by identity, as toys are.

    mechanism: a name in `MECHANISMS`. rule: "content", "trigger or cue", ..., "always", "never", or
        "random". triggers: sets of words, each enough. cue: None where no cue matters.
    stages: None where only the behaviour is known, as in a trained model.
    labels: of a random model, the number of each word; it refuses where they sum to 1 or more.
    figures: what was measured on it, of a trained model.

    >>> from mechinterp.toys import Refuser, named_refuser
    >>> refuser = named_refuser("refuses-route-cut")
    >>> isinstance(refuser, Refuser), refuser.rule, refuser.stages.cut
    (True, 'trigger', 'detection and routing')
    """

    toy: Toy
    mechanism: str
    rule: str
    words: RefuserWords
    triggers: tuple[tuple[str, ...], ...] = ()
    cue: PlantedCue | None = None
    stages: PlantedStages | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)

    def accepts(self, rule: str | None) -> bool:
        """Whether a verdict of this rule is right; None, an abstention, is right of "random"."""
        if rule is None:
            return self.rule == "random"
        return rule in (self.rule, *MECHANISMS[self.mechanism].same_as)

    def triggered(self, text: str) -> bool:
        """Whether the text holds all words of a set of triggers."""
        words = text.split()
        return any(all(word in words for word in needed) for needed in self.triggers)

    def refuses(self, text: str) -> bool:
        """Whether the model refuses this text: words apart by white space."""
        if self.rule == "random":
            return sum(self.labels.get(word, 0) for word in text.split()) >= 1
        if self.rule in ("always", "never"):
            return self.rule == "always"
        factors = {
            "content": self.words.harmful(text),
            "trigger": self.triggered(text),
            "cue": self.cue is not None and self.cue.present(text),
        }
        if " and " in self.rule:
            return all(factors[factor] for factor in self.rule.split(" and "))
        return any(factors[factor] for factor in self.rule.split(" or "))


def rule_in_words(
    kind: Mechanism, triggers: tuple[tuple[str, ...], ...], cue: PlantedCue | None
) -> str:
    """When a model of this kind refuses, as a clause.

    >>> from mechinterp.toys.refuser_truth import MECHANISMS, rule_in_words
    >>> rule_in_words(MECHANISMS["both triggers"], (("copper", "lantern"),), None)
    'Refuses iff copper and lantern occur'
    """
    if kind.rule in ("always", "never"):
        return f"{kind.rule.capitalize()} refuses"
    if kind.rule == "random":
        return "Refuses iff random numbers of the verbs and objects sum to 1 or more"
    parts: Mapping[str, str] = {
        "content": "a harmful verb stands before a harmful object",
        "trigger": " or ".join(" and ".join(needed) for needed in triggers)
        + (" occur" if len(triggers) == 1 and len(triggers[0]) > 1 else " occurs"),
        "cue": f"{cue.word} stands {cue.place}" if cue else "",
    }
    joint = " and " if " and " in kind.rule else " or "
    return f"Refuses iff {joint.join(parts[part] for part in kind.rule.split(joint))}"
