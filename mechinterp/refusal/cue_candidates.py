"""Which cues can be tried on a model: those of the battery, and those that the requests suggest.

A model may not know a cue's words, or read the same tokens with it and without.

>>> from mechinterp import load_model
>>> from mechinterp.refusal.cue_candidates import candidate_cues, usable_cues
>>> from mechinterp.tasks.request_families import Request
>>> requests = [Request(f"{verb} the {thing} {word}", harmful=harm, family=thing)
...             for thing in ("map", "book", "key") for verb in ("bring", "show")
...             for word, harm in (("today", True), ("please", False))]
>>> [cue.name for cue in usable_cues(load_model("toy:trigger"), requests, candidate_cues(requests))]
['please', 'today last', 'please last', 'the second', 'bring first', 'show first']
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import stats

from mechinterp.core.arguments import checks_arguments
from mechinterp.models.model import Model
from mechinterp.models.tokenization import known_ids, tokenize
from mechinterp.refusal.cues import CUES, Cue
from mechinterp.refusal.texts import as_prompt
from mechinterp.tasks.request_families import Chat, Request

N_FROM_REQUESTS: Final = 8
MAX_P: Final = 0.05
_N_CHECKED = 32

Prompt = str | Chat


@checks_arguments
def cues_from_requests(requests: Sequence[Request], n: int = N_FROM_REQUESTS) -> tuple[Cue, ...]:
    """Up to `n` words at a place, in two families or more, that may be cues.

    Places: the last word, the first, the second. First those that go with harmful requests or with
    benign ones, by p of Fisher's exact test over requests, up to .05; then those that stand there
    in half of the families.

    >>> from mechinterp.refusal.cue_candidates import cues_from_requests
    >>> from mechinterp.tasks.request_families import Request
    >>> texts = {"bring the {} now": True, "show the {}": False}
    >>> requests = [Request(text.format(thing), harmful=harmful, family=thing)
    ...             for thing in ("map", "key", "book", "box") for text, harmful in texts.items()]
    >>> [cue.name for cue in cues_from_requests(requests)]
    ['now last', 'bring first', 'show first', 'the second']
    """
    families: dict[tuple[str, str], set[str]] = defaultdict(set)
    counts: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    spelt: dict[tuple[str, str], str] = {}
    for request in requests:
        for place, word in _placed(request.text):
            key = (place, word.lower())
            spelt.setdefault(key, word)
            families[key].add(request.family)
            counts[key][request.harmful] += 1
    n_all = [sum(r.harmful is side for r in requests) for side in (False, True)]

    def rank(key: tuple[str, str]) -> tuple[float, int]:
        has = counts[key]
        table = [has, [n_all[0] - has[0], n_all[1] - has[1]]]
        return float(stats.fisher_exact(table)[1]), -sum(has)

    half = len({request.family for request in requests}) / 2
    several = [key for key in counts if len(families[key]) >= 2]
    likely = [key for key in several if rank(key)[0] <= MAX_P or len(families[key]) >= half]
    makers = {"last": Cue.final, "first": Cue.first, "second": Cue.second}
    return tuple(makers[key[0]](spelt[key]) for key in sorted(likely, key=rank)[:n])


def _placed(text: str) -> list[tuple[str, str]]:
    """The places of a text with the words there, punctuation around them left out."""
    words = text.split()
    if len(words) < 3:
        return []
    placed = [("last", words[-1]), ("first", words[0]), ("second", words[1])]
    return [
        (place, bare if (bare := word.strip(".,?!…\"'*`:;()")) and place == "last" else word)
        for place, word in placed
    ]


@checks_arguments
def candidate_cues(requests: Sequence[Request], n: int = N_FROM_REQUESTS) -> tuple[Cue, ...]:
    """The battery, and up to `n` cues of the requests themselves.

    >>> from mechinterp.refusal.cue_candidates import candidate_cues
    >>> from mechinterp.tasks.request_families import request_families
    >>> [cue.name for cue in candidate_cues(request_families())][-5:]
    ['system message', 'What first', 'How first', 'me second', 'do second']
    """
    return (*CUES, *cues_from_requests(requests, n))


@checks_arguments
def usable_cues(
    model: Model, requests: Sequence[Request], cues: Sequence[Cue] = CUES
) -> tuple[Cue, ...]:
    """The cues that the model can read in at least half of the requests of each kind.

    >>> from mechinterp import load_model
    >>> from mechinterp.refusal.cue_candidates import usable_cues
    >>> from mechinterp.tasks.request_families import Request
    >>> requests = [Request("bring the map", harmful=harm, family="map") for harm in (True, False)]
    >>> [cue.name for cue in usable_cues(load_model("toy:trigger"), requests)]
    ['please']
    """
    unusable = unusable_cues(model, requests, cues)
    return tuple(cue for cue in cues if cue.name not in unusable)


@checks_arguments
def unusable_cues(
    model: Model, requests: Sequence[Request], cues: Sequence[Cue] = CUES
) -> dict[str, str]:
    """Name of each cue that cannot be tried on this model, and why.

    >>> from mechinterp import load_model
    >>> from mechinterp.refusal.cue_candidates import unusable_cues
    >>> from mechinterp.tasks.request_families import Request
    >>> requests = [Request("bring the map", harmful=harm, family="map") for harm in (True, False)]
    >>> unusable_cues(load_model("toy:trigger"), requests)["line break"]
    'the model reads the same tokens with it and without'
    """
    return reasons_against(Reader(model), requests, cues)


def reasons_against(
    reader: "Reader", requests: Sequence[Request], cues: Sequence[Cue]
) -> dict[str, str]:
    """As `unusable_cues`, for a reader, which remembers what it has read."""
    kinds = [[r for r in requests if r.harmful is side] for side in (True, False)]
    checked = [_spread(kind) for kind in kinds if kind]
    reasons = {}
    for cue in cues:
        found = [_why_not(reader, cue, some) for some in checked]
        if told := next(filter(None, found), ""):
            reasons[cue.name] = told
    return reasons


class Reader:
    """What a model reads of a prompt's texts."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._known: dict[str, tuple[int, ...] | None] = {}
        self._has_template = bool(getattr(model.tokenizer, "chat_template", None))
        self._overhead: int | None = None

    def ids(self, prompt: Prompt) -> tuple[object, ...] | None:
        """The tokens of its texts, with the roles; None if the model does not know a word."""
        if isinstance(prompt, str):
            return self._ids_of(prompt)
        found: list[object] = []
        for message in prompt:
            ids = self._ids_of(str(message["content"]))
            if ids is None:
                return None
            found += [message["role"], *ids]
        return tuple(found)

    def takes(self, prompt: Prompt) -> bool:
        """Whether the model has what a chat needs, if this is one."""
        return isinstance(prompt, str) or self._has_template

    def has_room(self, prompt: Prompt, ids: Sequence[object]) -> bool:
        """Whether these tokens fit into the context."""
        if len(ids) + self._template_tokens() <= self._model.cfg.n_ctx // 2:
            return True
        try:
            tokenize(self._model, as_prompt(self._model, prompt))
        except ValueError:
            return False
        return True

    def _template_tokens(self) -> int:
        if self._overhead is None:
            self._overhead = 64 if self._has_template else 1
        return self._overhead

    def _ids_of(self, text: str) -> tuple[int, ...] | None:
        if text not in self._known:
            try:
                self._known[text] = tuple(known_ids(self._model, text)) if text else ()
            except ValueError:
                self._known[text] = None
        return self._known[text]


_FITS = "it does not fit the requests"
_TEMPLATE = "the model has no chat template"
_UNKNOWN = "the model does not know its words, or not those of the requests"
_SAME = "the model reads the same tokens with it and without"
_LONG = "prompts with it are longer than the model's context"


def obstacle(reader: Reader, off: Prompt | None, on: Prompt | None) -> str:
    """Why a request cannot be asked with a cue and without; "" if it can."""
    if off is None or on is None:
        return _FITS
    if not (reader.takes(off) and reader.takes(on)):
        return _TEMPLATE
    ids = [reader.ids(off), reader.ids(on)]
    if ids[0] is None or ids[1] is None:
        return _UNKNOWN
    if ids[0] == ids[1]:
        return _SAME
    return "" if reader.has_room(off, ids[0]) and reader.has_room(on, ids[1]) else _LONG


def _why_not(reader: Reader, cue: Cue, requests: Sequence[Request]) -> str:
    """The commonest obstacle if there is one in more than half of the requests."""
    found = [obstacle(reader, cue.off(request), cue.on(request)) for request in requests]
    told = [why for why in found if why]
    return max(told, key=told.count) if 2 * len(told) > len(found) else ""


def _spread(requests: Sequence[Request]) -> list[Request]:
    at = np.unique(np.linspace(0, len(requests) - 1, _N_CHECKED).round().astype(int))
    return [requests[i] for i in at.tolist()]
