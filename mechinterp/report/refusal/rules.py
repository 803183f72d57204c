"""The rules that a verdict may name, in words: what each says, means and foretells.

>>> from mechinterp.report.refusal.rules import foretold, verbs
>>> foretold("content or trigger", harm=False, trigger=True, cue=False)
True
>>> verbs("refuse").does_not
'answers'
"""

from dataclasses import dataclass

from mechinterp.refusal.findings import Rule, Verdict, WordSet
from mechinterp.refusal.rules import RULES
from mechinterp.report.render.phrases import Phrase, Piece
from mechinterp.report.render.tokens import show


@dataclass(frozen=True)
class Verbs:
    """A behaviour in sentences: "refuse", "refuses", "answers", "refusals"."""

    do: str
    does: str
    does_not: str
    noun: str


def verbs(behaviour: str) -> Verbs:
    """The verb of a behaviour, such as "refuse" or "answer in French", as sentences use it."""
    first, space, rest = show(behaviour).partition(" ")
    if first.endswith(("s", "x", "z", "ch", "sh", "o")):
        third = f"{first}es"
    elif first.endswith("y") and first[-2:-1] not in "aeiou":
        third = f"{first[:-1]}ies"
    else:
        third = f"{first}s"
    does = third + space + rest
    if behaviour == "refuse":
        return Verbs(behaviour, does, "answers", "refusals")
    return Verbs(show(behaviour), does, f"does not {show(behaviour)}", "choices")


def foretold(rule: Rule, *, harm: bool, trigger: bool, cue: bool) -> bool:
    """Whether a rule says that the model refuses a request with these factors."""
    return bool(RULES[rule][int(harm), int(trigger), int(cue)])


def verdict_phrase(verdict: Verdict, behaviour: str) -> Phrase:
    """The verdict in one plain sentence; an abstention as plainly."""
    does = verbs(behaviour).does
    if verdict.rule is None:
        why = show(verdict.abstains.strip(" .")) or "no rule is clearly the best"
        return (Piece(f"No verdict: {why}."),)
    if verdict.rule == "always":
        return (Piece(f"The model {does} nearly everything, whatever is asked."),)
    if verdict.rule == "never":
        return (Piece(f"The model {does} hardly anything, whatever is asked."),)
    if " or " in verdict.rule:
        one, other = (_factor(name, verdict) for name in verdict.rule.split(" or "))
        start = Piece(f"The model {does} because of ")
        return (start, *one, Piece(" or because of "), *other, Piece(": each alone is enough."))
    if " and " in verdict.rule:
        one, other = (_factor(name, verdict) for name in verdict.rule.split(" and "))
        start = Piece(f"The model {does} only where two things come together: ")
        return (start, *one, Piece(" and "), *other, Piece("."))
    return (
        Piece(f"The model {does} because of "),
        *_factor(verdict.rule, verdict),
        Piece(f"{_ALONE[verdict.rule]}."),
    )


def meaning(verdict: Verdict, behaviour: str) -> str:
    """What the rule lets one expect of requests that were not tried."""
    if verdict.rule is None:
        return (
            "What was measured does not decide between the rules. The figures below say what was "
            "seen; none of the rules should be relied on."
        )
    verb = verbs(behaviour)
    return _MEANS[verdict.rule].format(
        does=verb.does, does_not=verb.does_not, do=verb.do, noun=verb.noun
    )


def words_phrase(sets: tuple[WordSet, ...]) -> Phrase:
    """Sets of words in a sentence: bomb, kill + weapon."""
    pieces: list[Piece] = []
    for n, words in enumerate(sets):
        pieces += [Piece(", ")] * (n > 0)
        for m, word in enumerate(words):
            pieces += [Piece(" + ")] * (m > 0) + [Piece(show(word), "token")]
    return tuple(pieces)


def _factor(name: str, verdict: Verdict) -> Phrase:
    """A factor as a noun, with the words or the cue that it is."""
    if name == "content":
        return (Piece("what is asked for"),)
    if name == "trigger":
        if not verdict.triggers:
            return (Piece("certain words"),)
        return (Piece("certain words ("), *words_phrase(verdict.triggers), Piece(")"))
    return (Piece("a cue in its form" + (f" ({show(verdict.cue)})" if verdict.cue else "")),)


_ALONE = {
    "content": ": it recognises harm, whatever the words",
    "trigger": ", whether or not anything harmful is asked for",
    "cue": ", whether or not anything harmful is asked for",
}

_MEANS: dict[Rule, str] = {
    "content": "Expect that it {does} harmful requests in other words too, and {does_not} where a "
    "harmless request holds the same words or has the same form.",
    "trigger": "Expect that it {does} harmless requests that hold these words, and {does_not} "
    "where a harmful request avoids them. Its {noun} are no sign that harm was recognised.",
    "cue": "Expect that it {does} harmless requests of this form, and {does_not} where a harmful "
    "request has another. Its {noun} are no sign that harm was recognised.",
    "content or trigger": "Expect that it {does} harmful requests in other words too, but also "
    "harmless ones that hold these words.",
    "content or cue": "Expect that it {does} harmful requests in other forms too, but also "
    "harmless ones of this form.",
    "trigger or cue": "Expect that it {does} harmless requests with these words or of this form, "
    "and {does_not} where a harmful request avoids both. Its {noun} are no sign that harm was "
    "recognised.",
    "content and trigger": "Expect that it {does_not} where a harmful request avoids these words: "
    "harm alone is not enough. Harmless requests with the words are not affected.",
    "content and cue": "Expect that it {does_not} where a harmful request has another form: harm "
    "alone is not enough. Harmless requests of this form are not affected.",
    "trigger and cue": "Expect that it {does} harmless requests with these words in this form, and "
    "{does_not} where a harmful request avoids one of them. Its {noun} are no sign that harm was "
    "recognised.",
    "always": "That it {does} says nothing about what was asked.",
    "never": "That it {does_not} says nothing about what was asked: nothing that was tried makes "
    "it {do}.",
}
