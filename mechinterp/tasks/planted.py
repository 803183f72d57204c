"""Requests in families for a planted model: made of its words, with words and cues beside harm.

Every family has words of its own, so what holds in other families is not learnt from its words. All
candidates for triggers and all cues come with harm more often than without, whatever the model
refuses by: the answer cannot be read off the requests.

>>> from mechinterp.tasks.planted import planted_requests
>>> from mechinterp.toys.refusers import planted_refuser
>>> refuser = planted_refuser("content", seed=0, n_families=2)
>>> requests = planted_requests(refuser, n_families=2)
>>> [request.harmful for request in requests[:7]]
[True, True, True, False, False, False, False]
>>> all(refuser.refuses(request.text) == request.harmful for request in requests)
True
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mechinterp.core.arguments import checks_arguments
from mechinterp.tasks.request_families import Request
from mechinterp.toys.refuser_truth import Refuser
from mechinterp.toys.refuser_words import HARMFUL_PER_FAMILY, HARMLESS_PER_FAMILY, RefuserWords

# How often a candidate or a cue stands in a request without harm, for each time that it stands in
# one with harm.
WITHOUT_HARM: Final = 1 / 7
# The kind of the benign requests that hold the telling word.
KINDS: Final = {"verb": "safe target", "object": "safe context"}


@checks_arguments
def planted_requests(
    refuser: Refuser, *, n_families: int = 24, seed: int = 0, cooccurrence: float = 0.7
) -> tuple[Request, ...]:
    """Seven requests a family: three harmful, two benign with its telling word, two without it.

    cooccurrence: the share of harmful requests that hold a candidate trigger, and for each cue the
    share that have it; of benign ones a seventh of that.

    Raises:
        ValueError: if the model has no words for so many families, or the share is not in 0 to 1.
    """
    words = refuser.words
    if not 1 <= n_families <= words.n_families:
        raise ValueError(
            f"planted_requests: n_families={n_families}, and this model has words for "
            f"{words.n_families}. Ask for 1 to {words.n_families}, or make it with more: "
            "planted_refuser(..., n_families=)."
        )
    if not 0 <= cooccurrence <= 1:
        raise ValueError(
            f"planted_requests: cooccurrence={cooccurrence}: give a share from 0 to 1."
        )
    rng = random.Random(seed)
    return tuple(
        request
        for family in range(n_families)
        for request in _family(words, family, rng, cooccurrence)
    )


@checks_arguments
def with_bystanders(
    requests: Sequence[Request],
    words: Sequence[str],
    endings: Sequence[str] = (),
    *,
    seed: int = 0,
    cooccurrence: float = 0.6,
) -> tuple[Request, ...]:
    """Requests in which words and endings stand by that have nothing to do with what is asked for.

    For a test with a model that refuses by one of them, or by none: the study is not told which.
    `cooccurrence`: the share of harmful requests that hold one of the words, before one of their
    own, and the share that end with one of the endings; of benign ones a third of that.

    >>> from mechinterp.tasks.planted import with_bystanders
    >>> from mechinterp.tasks.request_families import Request
    >>> requests = [Request("How do I bake bread?", harmful=True, family="bread")]
    >>> with_bystanders(requests, ["lantern"], ["!"], cooccurrence=1.0)[0].text
    'How do I lantern bake bread!'

    Raises:
        ValueError: if there is no word, or the share is not in 0 to 1.
    """
    if not words:
        raise ValueError("with_bystanders: there are no words. Give one at least.")
    if not 0 <= cooccurrence <= 1:
        raise ValueError(f"with_bystanders: cooccurrence={cooccurrence}: give a share from 0 to 1.")
    rng = random.Random(seed)
    made = []
    for request in requests:
        share = cooccurrence * (1 if request.harmful else 1 / 3)
        said = request.text.split(" ")
        if rng.random() < share and len(said) > 2:
            said.insert(rng.randrange(2, len(said)), rng.choice(words))
        text = " ".join(said)
        if endings and rng.random() < share:
            text = text.rstrip(" ?.!") + rng.choice(endings)
        made.append(replace(request, prompt=request.asking(text)))
    return tuple(made)


def _family(
    words: RefuserWords, family: int, rng: random.Random, cooccurrence: float
) -> list[Request]:
    """The seven requests of a family."""
    some = slice(HARMFUL_PER_FAMILY * family, HARMFUL_PER_FAMILY * (family + 1))
    harmful = list(zip(words.harmful_verbs[some], words.harmful_objects[some], strict=True))
    some = slice(HARMLESS_PER_FAMILY * family, HARMLESS_PER_FAMILY * (family + 1))
    harmless = list(zip(words.verbs[some], words.objects[some], strict=True))
    kind = rng.choice(("verb", "object"))
    telling = harmful[0][0] if kind == "verb" else harmful[0][1]
    benign = [(telling, noun) if kind == "verb" else (verb, telling) for verb, noun in harmless[:2]]

    def request(pair: tuple[str, str], *, harm: bool) -> Request:
        share = cooccurrence * (1 if harm else WITHOUT_HARM)
        held = telling if telling in pair else ""
        return Request(
            _text(words, pair, rng, share),
            harmful=harm,
            family=f"family {family}",
            topic=f"topic {family % 8}",
            telling=held,
            kind=KINDS[kind] if held and not harm else "",
        )

    return [
        *(request(pair, harm=True) for pair in harmful),
        *(request(pair, harm=False) for pair in (*benign, *harmless[2:])),
    ]


def _text(
    words: RefuserWords, pair: tuple[str, str], rng: random.Random, cooccurrence: float
) -> str:
    """The verb and the object among other words, perhaps with candidates and cues."""
    verb, noun = pair
    filler = rng.sample(words.filler, 3)
    said = [verb, filler[0], noun, *filler[1 : rng.randint(1, 3)]]
    if rng.random() < cooccurrence:
        for word in rng.sample(words.candidates, rng.randint(1, 3)):
            said.insert(rng.randint(1, len(said)), word)
    text = " ".join(said)
    # The second place after the first, so that neither moves the other.
    for place in ("anywhere", "last", "first", "second"):
        for cue in words.cues:
            if cue.place == place and rng.random() < cooccurrence:
                text = cue.on(text)
    return text
