"""The two simpler ways that the study of refusals is compared with."""

import collections
from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from mechinterp.refusal.findings import RefusalStudy
from mechinterp.refusal.rules import RULES
from mechinterp.tasks.request_families import Request


def as_they_stand(found: RefusalStudy, requests: Sequence[Request], refused: np.ndarray) -> str:
    """The rule that foretells most requests from harm, the likeliest word and the likeliest cue."""
    trigger = found.words[0].words if found.words else ()
    cue = found.cues[0].name.split()[0] if found.cues else ""
    right = collections.Counter[str]()
    for request, is_refused in zip(requests, refused, strict=True):
        words = request.text.split()
        cell = (
            int(request.harmful),
            int(bool(trigger) and all(word in words for word in trigger)),
            int(cue in words),
        )
        for rule, foretold in RULES.items():
            right[rule] += bool(foretold[cell]) == bool(is_refused)
    return max(RULES, key=right.__getitem__)


def by_words(requests: Sequence[Request], refused: np.ndarray) -> str:
    """What a logistic regression on words and harm relies on most: harm, a word, or its place."""
    if refused.all() or not refused.any():
        return "always" if refused.all() else "never"
    names = sorted({word for request in requests for word in request.text.split()})
    rows = []
    for request in requests:
        words = request.text.split()
        inside = [float(name in words) for name in names]
        rows.append([float(request.harmful), *inside, *(float(words[-1] == n) for n in names)])
    weights = LogisticRegression(C=1.0, max_iter=500).fit(np.array(rows), refused).coef_[0]
    best = int(np.argmax(weights))
    return "content" if best == 0 else "trigger" if best <= len(names) else "cue"
