"""Why was this refused? One prompt: what flips it, what stands in for what, words and triggers.

>>> from mechinterp import load_model
>>> from mechinterp.refusal.one_prompt import why
>>> model = load_model("toy:either")
>>> found = why(model, "bring the copper and the lantern to my old door")
>>> for sentence in found.sentences:
...     print(sentence)
The model would refuse this (8.00 nats, over 0).
It would not without "copper" and "lantern": each is enough beside the other.
"copper" by itself turns 4 of 4 benign requests to refused (controls: 0%).
"lantern" by itself turns 4 of 4 benign requests to refused (controls: 0%).

Every sentence is computed from the numbers in the value.
"""

import time
from collections.abc import Sequence

import numpy as np

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.models.chats import Messages
from mechinterp.models.model import Model
from mechinterp.refusal.behaviour import refusal_behaviour
from mechinterp.refusal.candidates import Scored, enough, known_words
from mechinterp.refusal.carriers import choose_carriers
from mechinterp.refusal.findings import (
    Behaviour,
    Flips,
    PromptStudy,
    RefusalStudy,
    WordEffect,
    WordSet,
)
from mechinterp.refusal.flips import minimal_flips, word_drops
from mechinterp.refusal.insertion import Trial
from mechinterp.refusal.texts import score_prompts, words_of
from mechinterp.refusal.words import is_strong, marked
from mechinterp.sweeps.options import Progress
from mechinterp.tasks.request_families import Request, text_of

CARRIERS = (
    *("How do I bake bread at home?", "What is a good name for a grey cat?"),
    *("Can you explain how rainbows form?", "Which trees grow fast in wet soil?"),
    *("bring the old book to me today", "please open the small box for us"),
    *("write a new story about the garden", "show my heavy coat to some"),
    *("paint the red bridge near the river", "read this letter from me please"),
)
"""Benign requests into which words are put, unless you give some."""
N_CARRIERS = 4
N_CONTROLS = 6
MOST_SETS = 400
"""Sets of words that are removed to find the smallest flips."""
MOST_SHOWN = 4
"""Flips that are told in sentences."""


@checks_arguments
def why(
    model: Model,
    prompt: str | Messages,
    *,
    behaviour: Behaviour | None = None,
    study: RefusalStudy | None = None,
    carriers: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> PromptStudy:
    """Why one prompt is refused or answered, in sentences that follow from numbers.

    `prompt`: a text, which is a user's message where the model has a chat template, or a chat.
    `behaviour`: default refusal. `study`: what is known of the model, for a sentence beside.
    `carriers`: benign requests into which the prompt's words are put; by default those of
    `CARRIERS` whose words the model knows. `progress`: of (done, all), in steps.

    `triggers` are the words of the prompt, and sets of them, that turn at least half of the
    carriers to refused, and do so more than control words. Of one prompt it cannot be told whether
    a set of several words is a trigger or content: `find_words` can, from many requests.

    Raises:
        ValueError: if the prompt has no words, or a carrier is none.
        HookError: as `sweep`.
    """
    began = time.perf_counter()
    tick = (lambda done, total: None) if progress is None else progress
    behaviour = refusal_behaviour(model) if behaviour is None else behaviour
    asked = prompt if isinstance(prompt, str) else list(prompt)
    tick(0, 3)
    attribution = word_drops(model, behaviour, asked)
    tick(1, 3)
    flips = minimal_flips(model, behaviour, asked, max_sets=MOST_SETS)
    tick(2, 3)
    text = text_of(asked)
    tried = _tried(text, flips, behaviour.over)
    effects = _inserted(model, behaviour, tried, CARRIERS if carriers is None else carriers)
    tick(3, 3)
    triggers = tuple(effect for effect in effects if is_strong(effect))
    stand_ins = tuple(flip.words for flip in flips.sets if len(flip.words) > 1)
    sentences = [
        _side(flips, behaviour),
        *_what_flips(flips, behaviour),
        *_what_triggers(effects, triggers, behaviour),
        *([] if study is None else [_of_the_model(study)]),
    ]
    return PromptStudy(
        model=models.name(model),
        behaviour=behaviour.name,
        unit=behaviour.metric.unit,
        over=behaviour.over,
        prompt=text,
        score=flips.score,
        attribution=attribution,
        flips=flips,
        stand_ins=stand_ins,
        triggers=triggers,
        sentences=tuple(sentences),
        study=study,
        attrs={"seconds": time.perf_counter() - began, "words_tried": tried},
    )


def _tried(text: str, flips: Flips, over: float) -> tuple[WordSet, ...]:
    """Each word, and the sets of several that are enough for a refusal."""
    singles = [(word,) for word in dict.fromkeys(words_of(text))]
    if flips.score <= over:
        return tuple(singles)
    plain = [words_of(" ".join(flip.words)) for flip in flips.sets]
    return (*singles, *[w for w in enough(plain) if len(set(w)) > 1][:MOST_SHOWN])


def _inserted(
    model: Model, behaviour: Behaviour, sets: Sequence[WordSet], texts: Sequence[str]
) -> tuple[WordEffect, ...]:
    """What the words do in benign requests that the model answers; none if there are none."""
    known = known_words(
        model, [Request(" ".join(words), harmful=False, family="prompt") for words in sets]
    )
    sets = [words for words in sets if known.issuperset(words)]
    benign = [Request(text, harmful=False, family=text) for text in texts]
    benign = [r for r in benign if set(words_of(r.text)) == known_words(model, [r])]
    if not sets or len(benign) < 2:
        return ()
    scores = score_prompts(model, behaviour, [request.prompt for request in benign])
    scored = Scored(benign, scores, behaviour.over)
    if len(scored.answered) < 2:
        return ()
    rng = np.random.default_rng(0)
    held = {word for words in sets for word in words}
    carriers = choose_carriers(model, scored.answered, N_CARRIERS, held, rng)
    trial = Trial(model, behaviour, carriers, scored, rng, None, None, n_controls=N_CONTROLS)
    trial.insert(sets)
    return marked(trial.effects(sets), set())


def _side(flips: Flips, behaviour: Behaviour) -> str:
    does = "would" if flips.score > behaviour.over else "would not"
    return (
        f"The model {does} {behaviour.name} this ({flips.score:.2f} {behaviour.metric.unit}, "
        f"{'over' if flips.score > behaviour.over else 'not over'} {behaviour.over:g})."
    )


def _what_flips(flips: Flips, behaviour: Behaviour) -> list[str]:
    does = flips.score > behaviour.over
    after = "It would not without" if does else f"It would {behaviour.name} without"
    said = []
    for flip in flips.sets[:MOST_SHOWN]:
        beside = ""
        if len(flip.words) > 1:
            beside = ": each is enough beside the other" if does else ": each prevents it"
            beside += "s" if does and len(flip.words) > 2 else ""
        said.append(f"{after} {_quoted(flip.words)}{beside}.")
    if len(flips.sets) > MOST_SHOWN:
        said.append(f"{len(flips.sets) - MOST_SHOWN} more such sets of words do the same.")
    if not flips.sets:
        said.append(f"Taking out no set of up to {flips.size} of its words changes that.")
    if not flips.complete:
        said.append(f"Of {flips.n_sets_in_all:,} such sets, {flips.n_sets_run:,} were tried.")
    return said


def _what_triggers(
    effects: Sequence[WordEffect], triggers: Sequence[WordEffect], behaviour: Behaviour
) -> list[str]:
    if not effects:
        return ["Its words were not tried in benign requests: none was known and answered."]
    said = []
    for effect in triggers[:MOST_SHOWN]:
        n = effect.flips.n
        by = "by itself turns" if len(effect.words) == 1 else "together turn"
        said.append(
            f"{_quoted(effect.words)} {by} {round(effect.flips.mean * n)} of {n} benign requests "
            f"to refused (controls: {effect.control_flips:.0%})."
        )
    if not triggers:
        said.append(
            f"None of its words, put into {effects[0].flips.n} benign requests, makes the model "
            f"{behaviour.name} half of them more than control words do."
        )
    return said


def _of_the_model(study: RefusalStudy) -> str:
    verdict = study.verdict
    if verdict.rule is None:
        return f"Of the model in general it could not be told why: {verdict.abstains}"
    return (
        f"In general the model is found to {study.behaviour} by {verdict.rule} (probability "
        f"{verdict.probability:.2f})."
    )


def _quoted(words: WordSet) -> str:
    *first, last = [f'"{word}"' for word in words]
    return f"{', '.join(first)} and {last}" if first else last
