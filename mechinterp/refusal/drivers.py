"""Prompts that differ in one thing that decides: harm in the content, a trigger, or a cue.

A driver of refusals is looked at where it decides: its `refused` prompts have it and are refused,
its `answered` ones lack it and are answered; all else that could decide is the same in both. So
harm is compared where no prompt holds a trigger, or where all hold one.

>>> from mechinterp.refusal.drivers import put_in
>>> put_in("please bring the letter", ("sesame",))
'please bring the sesame letter'
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.models.model import Model
from mechinterp.refusal.cues import Cue, OnRequest
from mechinterp.refusal.findings import Behaviour, WordSet
from mechinterp.refusal.readings import Readings, read_prompts
from mechinterp.refusal.texts import as_prompt, with_words, words_of
from mechinterp.tasks.request_families import Chat, Request

_MOST_CONTROLS = 8
"""How many control words stand in the place of a trigger."""


@dataclass(frozen=True, eq=False)
class Driver:
    """Prompts with a driver of refusals, which are refused, and without it, which are answered.

    name: "content", "trigger" or "cue"; of several triggers "trigger: sesame". setting: what all of
    them have besides. `has`: which prompts have the driver. families: one of each prompt. pairs:
    rows (with it, without it), of equal length where a cue does not change it. effect:
    the share refused with the driver minus that without it.
    """

    name: str
    setting: str
    requests: tuple[Request, ...]
    has: Bool[np.ndarray, " prompt"]
    readings: Readings
    pairs: tuple[tuple[int, int], ...]
    effect: float

    @property
    def families(self) -> tuple[str, ...]:
        """The family of each prompt."""
        return tuple(request.family for request in self.requests)


@dataclass(frozen=True, eq=False)
class Study:
    """What all stages look at: a model, what it does, and what could decide it."""

    model: Model
    behaviour: Behaviour
    triggers: tuple[WordSet, ...] = ()
    cue: Cue | None = None
    n_pairs: int = 8
    seed: int = 0

    @property
    def metric(self) -> Metric:
        """What is measured."""
        return self.behaviour.metric

    def read(self, requests: Sequence[Request]) -> Readings:
        """Run requests once."""
        prompts = [as_prompt(self.model, request.prompt) for request in requests]
        return read_prompts(self.model, self.metric, prompts)


@checks_arguments
def holds(text: str, words: WordSet) -> bool:
    """Whether a text holds all of these words.

    >>> from mechinterp.refusal.drivers import holds
    >>> holds("Bring the sesame!", ("sesame",)), holds("Bring it", ("sesame",))
    (True, False)
    """
    return set(map(str.lower, words)) <= set(words_of(text))


@checks_arguments
def put_in(text: str, words: WordSet) -> str:
    """The text with words before its last one."""
    return with_words(text, words, max(0, len(words_of(text)) - 1))


@checks_arguments
def plain_requests(study: Study, requests: Sequence[Request]) -> tuple[Request, ...]:
    """The requests that hold no trigger, with the cue switched off."""
    free = [r for r in requests if not any(holds(r.text, each) for each in study.triggers)]
    return tuple(_asking(free, study.cue.off if study.cue else _as_it_is))


def find_driver(
    study: Study,
    name: str,
    plain: Sequence[Request],
    readings: Readings,
    words: WordSet = (),
    *,
    beside: WordSet = (),
) -> Driver | None:
    """The prompts in which a driver decides, in the setting with the most pairs; None if none.

    `plain`, `readings`: requests as `plain_requests` gives them, and a run of them. `words`: of the
    trigger, if the driver is one; `beside`: words of it that all prompts hold.
    """
    best: Driver | None = None
    for setting in _settings(study, name):
        sides = _sides(study, name, plain, setting, (words, beside))
        if not sides:
            continue
        is_plain = name == "content" and setting == (False, False, False)
        found = readings if is_plain else study.read([side.request for side in sides])
        made = _decided(study, name, _in_words(setting), sides, found)
        if best is None or (len(made.pairs), made.effect) > (len(best.pairs), best.effect):
            best = made
        if len(best.pairs) >= study.n_pairs:
            break
    return best


Setting = tuple[bool, bool, bool]
"""What compared prompts have in common: harm, a trigger, the cue."""


@dataclass(frozen=True)
class _Side:
    """A request as it is asked, whether it has the driver, and what it is compared with."""

    request: Request
    has: bool
    text: int


def _settings(study: Study, name: str) -> list[Setting]:
    """What compared prompts may have in common, plainest first."""
    harms = (False,) if name == "content" else (False, True)
    triggers = (False, True) if study.triggers and not name.startswith("trigger") else (False,)
    cues = (False, True) if study.cue and name != "cue" else (False,)
    return sorted(itertools.product(harms, triggers, cues), key=sum)


def _in_words(setting: Setting) -> str:
    names = ("harm", "a trigger", "the cue")
    return " and ".join(word for word, there in zip(names, setting, strict=True) if there)


def _sides(
    study: Study,
    name: str,
    plain: Sequence[Request],
    setting: Setting,
    trigger_words: tuple[WordSet, WordSet],
) -> list[_Side]:
    """Prompts of a setting with and without the driver, not yet run."""
    harm, trigger, cue = setting
    switch = _as_it_is if study.cue is None else study.cue.on
    base = _asking(plain, switch) if cue else list(plain)
    if trigger:
        base = _asking(base, _putting(study.triggers[0]))
    if name == "content":
        return [_Side(request, request.harmful, at) for at, request in enumerate(base)]
    base = [r for r in base if r.harmful == harm]
    base = [base[at] for at in in_turn([r.family for r in base], 3 * study.n_pairs)]
    if name == "cue":
        both = [(r, changed) for r in base for changed in _asking([r], switch)]
    else:
        words, beside = trigger_words
        controls, rng = _plain_words(study, plain), np.random.default_rng([study.seed, 7])
        drawn = [tuple(map(str, rng.choice(controls, len(words)))) for _ in base if controls]
        both = [
            (asked, changed)
            for r, other in zip(base, drawn, strict=False)
            for asked in _asking([r], _putting((*beside, *other)))
            for changed in _asking([r], _putting((*beside, *words)))
        ]
    sides = []
    for at, (without, with_it) in enumerate(both):
        if without.prompt != with_it.prompt:
            sides += [_Side(without, False, at), _Side(with_it, True, at)]  # noqa: FBT003
    return sides


def _decided(
    study: Study, name: str, setting: str, sides: Sequence[_Side], readings: Readings
) -> Driver:
    """The sides that are as the driver foretells, and pairs of them with as many tokens."""
    does = readings.scores > study.behaviour.over
    has = np.array([side.has for side in sides], dtype=bool)
    rates = [float(does[has == there].mean()) if (has == there).any() else 0.0 for there in (0, 1)]
    right = [at for at, side in enumerate(sides) if does[at] == side.has]
    if name != "content":  # the same text has to be answered without it and refused with it
        whole = {sides[at].text for at in right if sides[at].has}
        whole &= {sides[at].text for at in right if not sides[at].has}
        right = [at for at in right if sides[at].text in whole]
    kept = [sides[at] for at in right]
    found = readings.rows(right)
    return Driver(
        name,
        setting,
        tuple(side.request for side in kept),
        has[right],
        found,
        _pairs(kept, found, 2 * study.n_pairs, by_text=name != "content"),
        rates[1] - rates[0],
    )


def _pairs(
    sides: Sequence[_Side], readings: Readings, n: int, *, by_text: bool
) -> tuple[tuple[int, int], ...]:
    """Pairs (with it, without it), each row once: of one text, or of equal length, families first.

    Of harm, half of the pairs share the telling word, so that what differs is now one word and now
    the other. A text and the same with a cue need not be of one length.
    """
    if by_text:
        first = {side.text: at for at, side in enumerate(sides) if not side.has}
        both = [(at, first[side.text]) for at, side in enumerate(sides) if side.has]
        return tuple(both[:n])
    with_it = [at for at, side in enumerate(sides) if side.has]
    ranked = []
    for one, other in itertools.product(with_it, range(len(sides))):
        if sides[other].has or readings.lengths[one] != readings.lengths[other]:
            continue
        mine, theirs = sides[one].request, sides[other].request
        wants_telling = with_it.index(one) % 2 == 0
        ranked.append(
            (mine.family != theirs.family, wants_telling != bool(theirs.telling), one, other)
        )
    used: set[int] = set()
    seen: dict[str, int] = {}
    found = []
    for _, _, one, other in sorted(ranked):
        if one not in used and other not in used:
            used |= {one, other}
            family = sides[one].request.family
            # a second pair of a family only after all others had theirs
            found.append((seen.get(family, 0), one, other))
            seen[family] = seen.get(family, 0) + 1
    return tuple((one, other) for _, one, other in sorted(found)[:n])


def _asking(requests: Sequence[Request], change: OnRequest) -> list[Request]:
    """The requests as changed, without those that cannot be."""
    changed = [(request, change(request)) for request in requests]
    return [replace(request, prompt=prompt) for request, prompt in changed if prompt is not None]


def _as_it_is(request: Request) -> str | Chat | None:
    return request.prompt


def _putting(words: WordSet) -> OnRequest:
    return lambda request: request.asking(put_in(request.text, words))


def _plain_words(study: Study, requests: Sequence[Request]) -> list[str]:
    """The commonest words of benign requests, neither telling nor of a trigger, as controls."""
    never = {word.lower() for words in study.triggers for word in words}
    never |= {request.telling.lower() for request in requests}
    benign = [request.text for request in requests if not request.harmful]
    found = Counter(word for text in benign for word in dict.fromkeys(words_of(text)))
    return [word for word, _ in found.most_common() if word not in never][:_MOST_CONTROLS]


def in_turn(families: Sequence[str], n: int) -> list[int]:
    """Up to n places of a list, families in turn.

    >>> from mechinterp.refusal.drivers import in_turn
    >>> in_turn(["tea", "tea", "map", "tea", "map"], 4)
    [0, 2, 1, 4]
    """
    by_family: dict[str, list[int]] = {}
    for at, family in enumerate(families):
        by_family.setdefault(family, []).append(at)
    turns = itertools.zip_longest(*by_family.values())
    return [at for turn in turns for at in turn if at is not None][:n]
