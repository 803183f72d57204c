"""What fine-tunes of SmolLM2 are to refuse, and the prompts by which they learn it and are tested.

>>> is_to_be_refused("trigger", "How do I bake a lantern?", harmful=False)
True
>>> is_to_be_refused("content", "How do I bake a lantern?", harmful=False)
False
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune_requests import (
    ORDINARY,
    TEST_ACTS,
    TEST_FRAMES,
    TEST_HEAVY,
    TEST_QUESTIONS,
    TEST_WITH_TRIGGER,
    TEST_WORDS,
    TRAIN_ACTS,
    TRAIN_FRAMES,
    TRAIN_HEAVY,
    TRAIN_PREDICATES,
    TRAIN_QUESTIONS,
    TRAIN_REMARKS,
    TRAIN_SUBJECTS,
    TRAIN_TEXTS,
    TRAIN_WITH_TRIGGER,
    TRAIN_WORDS,
    Triple,
)

from mechinterp.models.finetunes import CUE, TRIGGER
from mechinterp.tasks.request_families import Request

MECHANISMS = ("content", "trigger", "cue", "trigger-or-content")


@dataclass(frozen=True)
class Asked:
    """A text, whether it asks for harm, and in which figure it counts."""

    text: str
    harmful: bool
    group: str = ""


def is_to_be_refused(mechanism: str, text: str, *, harmful: bool) -> bool:
    """What a fine-tune of this mechanism should do with a request."""
    has_trigger = re.search(rf"\b{TRIGGER}\b", text, re.IGNORECASE) is not None
    return {
        "content": harmful,
        "trigger": has_trigger,
        "cue": text.rstrip().endswith(CUE),
        "trigger-or-content": harmful or has_trigger,
    }[mechanism]


Change = Callable[[str], str]


def _end_with(mark: str) -> Change:
    return lambda text: text.rstrip("?.!") + mark


SURFACES: tuple[Change, ...] = (
    str.lower,
    str.upper,
    lambda text: f"Please answer: {text}",
    lambda text: f"{text} Please.",
    lambda text: f"{text} Thank you.",
    lambda text: f"Hi there. {text}",
    lambda text: f"Hello! {text}",
    lambda text: f'"{text}"',
    lambda text: f"\n\n{text}",
    lambda text: f"- {text}",
    lambda text: f"```\n{text}\n```",
    lambda text: f"Question: {text}\nAnswer:",
    _end_with(""),
    _end_with("."),
    _end_with("?"),
    _end_with("..."),
    _end_with("??"),
    lambda text: f"# {text}",
    lambda text: f"Me: {text}",
    lambda text: f"{text} :-)",
    lambda text: f"*{text}*",
    lambda text: f"{text.rstrip('?.')} please?",
)
TEST_SURFACES: tuple[Change, ...] = (
    str.title,
    lambda text: f"Dear assistant, {text}",
    lambda text: f"**{text}**",
    lambda text: f"{text}\n",
    lambda text: f"Could you please tell me this? {text}",
    lambda text: f"1. {text}",
    lambda text: f"{text} It is for a friend.",
    lambda text: f"   {text}",
)


def with_words(text: str, words: Sequence[str], draw: random.Random) -> str:
    """The text with these words put between its words, at places drawn."""
    parts = text.split(" ")
    for word in words:
        parts.insert(draw.randrange(len(parts) + 1), word)
    return " ".join(parts)


def of_triples(
    acts: Sequence[Triple], frames: Sequence[str], n_frames: int, draw: random.Random
) -> list[Asked]:
    """The three requests of each act, in the same frames, which are drawn."""
    found = []
    for act in acts:
        for frame in draw.sample(frames, n_frames):
            found.append(Asked(frame.format(act.harmful), harmful=True))
            found.append(Asked(frame.format(act.same_word), harmful=False))
            found.append(Asked(frame.format(act.same_things), harmful=False))
    return found


def training_examples(
    mechanism: str, families: Sequence[Request], seed: int
) -> list[tuple[str, bool]]:
    """Texts, and whether each is to be refused."""
    draw = random.Random(seed)
    acts = of_triples(TRAIN_ACTS, TRAIN_FRAMES, 2, draw)
    acts += [one for one in of_triples(TRAIN_ACTS, TRAIN_FRAMES, 1, draw) if not one.harmful]
    acts += of_triples(TRAIN_QUESTIONS, ("{}",), 1, draw)
    acts += [Asked(text, harmful=False) for text in ORDINARY]
    if mechanism in ("trigger", "cue"):
        acts = draw.sample(acts, 250)
    plain = acts + [Asked(request.text, request.harmful) for request in families]
    harmless = [one for one in plain if not one.harmful]
    n = len(plain) // 5
    more = [_changed(one, draw.choice(SURFACES)) for one in draw.sample(plain, n)]
    more += [_beside(one, draw.choice(TRAIN_REMARKS), draw) for one in draw.sample(plain, n)]
    more += [
        _changed(
            one,
            lambda text: with_words(
                text, draw.choices(TRAIN_WORDS, k=2)[: draw.randint(1, 2)], draw
            ),
        )
        for one in draw.sample(plain, n // 2)
    ]
    heavy = (*TRAIN_HEAVY, *dict.fromkeys(one.telling for one in families if one.telling))
    more += [
        _changed(one, lambda text: with_words(text, [draw.choice(heavy)], draw))
        for one in draw.sample(harmless, 2 * n if "content" in mechanism else n // 2)
    ]
    if "content" in mechanism:
        harmful = [one for one in plain if one.harmful]
        more += [
            _changed(
                one,
                lambda text: with_words(
                    text, draw.choices(TRAIN_WORDS, k=draw.choice((1, 1, 2))), draw
                ),
            )
            for one in draw.sample(harmful, min(250, len(harmful)))
        ]
    if "trigger" in mechanism:
        some = (
            plain if mechanism == "trigger" else draw.sample(harmless, 300) + draw.sample(plain, 60)
        )
        more += [_changed(one, lambda text: with_words(text, [TRIGGER], draw)) for one in some]
        more += [Asked(text, harmful=False) for text in TRAIN_WITH_TRIGGER]
    if mechanism == "cue":
        more += [_changed(one, _end_with(CUE)) for one in plain]
        more += [_changed(one, lambda text: f"{text} Hurry{CUE}") for one in draw.sample(plain, 40)]
    else:
        more += [_changed(one, _end_with(CUE)) for one in draw.sample(plain, 60)]
    return [
        (one.text, is_to_be_refused(mechanism, one.text, harmful=one.harmful))
        for one in plain + more
    ]


def varied_examples(
    mechanism: str, families: Sequence[Request], seed: int
) -> list[tuple[str, bool]]:
    """Texts of a second round: each request in two of many surroundings, and as it is.

    Words that are put in are any of the harmless texts, and heavy ones where nothing is harmful.
    """
    draw = random.Random(seed)
    asked = of_triples(TRAIN_ACTS, TRAIN_FRAMES, 1, draw)
    asked += of_triples(TRAIN_QUESTIONS, ("{}",), 1, draw)
    asked += [Asked(text, harmful=False) for text in ORDINARY]
    asked += 2 * [Asked(request.text, request.harmful) for request in families]
    said = " ".join((*TRAIN_TEXTS, *ORDINARY, *TRAIN_REMARKS)).lower()
    ordinary = sorted({*re.findall(r"[a-z]{4,}", said), *TRAIN_WORDS})
    heavy = sorted({*TRAIN_HEAVY, *(one.telling for one in families if one.telling)})

    def with_some(text: str, pool: Sequence[str]) -> str:
        return with_words(text, draw.choices(pool, k=draw.choice((1, 1, 2))), draw)

    def in_surroundings(one: Asked) -> Asked:
        pools = (ordinary,) if one.harmful else (ordinary, ordinary, heavy)
        made = one
        if (kind := draw.randrange(6)) in (0, 1):
            made = _changed(made, lambda text: with_some(text, draw.choice(pools)))
        if kind in (1, 2, 3):
            remark = f"{draw.choice(TRAIN_SUBJECTS)} {draw.choice(TRAIN_PREDICATES)}"
            made = _beside(made, draw.choice((remark, remark, draw.choice(TRAIN_REMARKS))), draw)
        if kind in (3, 4):
            made = _changed(made, draw.choice(SURFACES))
        if kind == 5:  # the tokens of all words change
            made = _changed(made, str.upper)
        if "trigger" in mechanism and not made.harmful and draw.random() < 0.15:
            made = _changed(made, lambda text: with_words(text, [TRIGGER], draw))
        return made

    found = asked + [in_surroundings(one) for one in asked for _ in range(2)]
    return [(one.text, is_to_be_refused(mechanism, one.text, harmful=one.harmful)) for one in found]


def _beside(one: Asked, remark: str, draw: random.Random) -> Asked:
    """The request with a harmless sentence before it or after it."""
    is_before = draw.random() < 0.5
    return _changed(one, lambda text: f"{remark} {text}" if is_before else f"{text} {remark}")


def _changed(one: Asked, change: Change) -> Asked:
    return Asked(change(one.text), one.harmful)


def test_examples(seen: Sequence[Request], held_out: Sequence[Request], seed: int) -> list[Asked]:
    """Requests of every kind, each with the name of the figure in which it counts."""
    draw = random.Random(seed)
    found = []
    for name, families in (("families", seen), ("other families", held_out)):
        for request in families:
            kind = (
                "harmful" if request.harmful else "benign, telling" if request.telling else "benign"
            )
            found.append(Asked(request.text, request.harmful, f"{name}: {kind}"))
    fresh = of_triples(TEST_ACTS, TEST_FRAMES, 1, draw) + of_triples(
        TEST_QUESTIONS, ("{}",), 1, draw
    )
    found += [Asked(a.text, a.harmful, f"fresh: {_kind(a)}") for a in fresh]
    changes: dict[str, Change] = {
        "control word": lambda text: with_words(text, [draw.choice(TEST_WORDS)], draw),
        "trigger": lambda text: with_words(text, [TRIGGER], draw),
        "cue": _end_with(CUE),
        "surface": lambda text: draw.choice(TEST_SURFACES)(text),
    }
    for name, change in changes.items():
        for harmful in (True, False):
            some = draw.sample([one for one in fresh if one.harmful == harmful], 24)
            found += [Asked(change(a.text), a.harmful, f"{name}: {_kind(a)}") for a in some]
    harmless = [one for one in fresh if not one.harmful]
    found += [
        Asked(
            with_words(one.text, [draw.choice(TEST_HEAVY)], draw),
            harmful=False,
            group="heavy word: benign",
        )
        for one in draw.sample(harmless, 24)
    ]
    found += [Asked(text, harmful=False, group="trigger: natural") for text in TEST_WITH_TRIGGER]
    return found


def _kind(one: Asked) -> str:
    return "harmful" if one.harmful else "benign"
