"""What a probe has to beat: the majority, shuffled labels, a control task, the tokens alone.

>>> import numpy as np
>>> from mechinterp.probing.controls import control_labels
>>> words = ["how", "how", "what", "what", "why", "why", "when", "when"]
>>> control_labels(words, np.array([0, 1] * 4), seed=0).tolist()
[1, 1, 0, 0, 0, 0, 1, 1]

A high accuracy says nothing by itself. Most classes may be one; many features fit any labels;
a probe can learn the answer for each word by heart; and the words alone may give it away.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression

from mechinterp.core.prompts import Prompts
from mechinterp.models.model import Model
from mechinterp.models.weights import copy_of, parts_from_output, shuffle_weights
from mechinterp.probing.measures import Answers

Classes = Int[np.ndarray, " prompt"]
_TRIES = 50


def majority(y: Classes, folds: Classes) -> Answers:
    """The most frequent class among those that are not tested."""
    n_classes = int(y.max()) + 1
    counts = np.zeros((len(y), n_classes))
    for fold in np.unique(folds):
        counts[folds == fold] = np.bincount(y[folds != fold], minlength=n_classes)
    most = np.eye(n_classes)[counts.argmax(1)]
    scores = most if n_classes > 2 else 2 * most[:, 1:] - 1
    return Answers(y, scores[None])


def shuffled_labels(y: Classes, groups: Classes, folds: Classes, seed: int) -> Classes:
    """The same labels in random order, so that nothing but chance connects them to the prompts.

    Where each group has one label, the groups change places, so that members stay alike; else the
    prompts do.

    Raises:
        ValueError: if in none of 50 orders every fold has all classes to be trained on.
    """
    first = np.unique(groups, return_index=True)[1]
    rng = np.random.default_rng([seed, 0])
    if (y == y[first][groups]).all():
        return _drawn(lambda: rng.permutation(y[first])[groups], y, folds, "shuffled labels")
    return _drawn(lambda: rng.permutation(y), y, folds, "shuffled labels")


def control_labels(
    types: Sequence[Hashable], y: Classes, seed: int, *, folds: Classes | None = None
) -> Classes:
    """A random label for each type, the same for all prompts of that type: the control task.

    The classes are as frequent as in `y`, as far as types can be so divided. A probe learns it
    only by heart; selectivity is what it does better on the real labels.

    Raises:
        ValueError: if there are fewer types than classes, or as `shuffled_labels`.

    Source: Hewitt and Liang 2019, section 2, arXiv 1909.03368.
    """
    number = {kind: i for i, kind in enumerate(dict.fromkeys(types))}
    kinds = np.array([number[kind] for kind in types])
    sizes, wanted = np.bincount(kinds), np.bincount(y).astype(float)
    if len(sizes) < len(wanted):
        raise ValueError(
            f"control task: {len(sizes)} types for {len(wanted)} classes. Give types of which "
            f"there are more, such as the first word of each prompt."
        )
    rng = np.random.default_rng([seed, 1])

    def draw() -> Classes:
        left, given = wanted.copy(), np.empty(len(sizes), dtype=int)
        for kind in rng.permutation(len(sizes)):
            # at random, as likely as there is room for prompts of each class
            room = np.maximum(left, 0) + 1e-9
            given[kind] = rng.choice(len(wanted), p=room / room.sum())
            left[given[kind]] -= sizes[kind]
        labels: Classes = given[kinds]
        return labels

    return _drawn(draw, y, folds, "control task")


def word_types(
    prompts: Prompts, groups: Classes, position: int | str
) -> tuple[list[int], str] | None:
    """The token of each prompt at the place where tokens recur most among groups; which place.

    Tried are the position that the probe reads, and the first eight tokens of the user's text. A
    type is of use if other groups have it too: nothing can be learnt by heart otherwise. None, if
    no place has four types of which half of the prompts' recur.
    """
    texts = [
        [i for i, role in enumerate(roles) if role == "text"] or [0] for roles in prompts.roles
    ]
    places: dict[str, list[int]] = {}
    if position in prompts.names or position == "end" or isinstance(position, int):
        places[f"token at {position}"] = prompts.given_positions(position).tolist()
    for n in range(min(8, min(map(len, texts)))):
        places[f"token {n} of the text"] = [at[n] for at in texts]
    best: tuple[float, list[int], str] | None = None
    ids = prompts.tokens.tolist()
    for name, at in places.items():
        types = [row[pos] for row, pos in zip(ids, at, strict=True)]
        homes: dict[int, set[int]] = {}
        for kind, group in zip(types, groups.tolist(), strict=True):
            homes.setdefault(kind, set()).add(group)
        recur = float(np.mean([len(homes[kind]) > 1 for kind in types]))
        if len(homes) >= 4 and recur >= 0.5 and (best is None or recur > best[0]):
            best = recur, types, f"{name}: {len(homes)} types, {recur:.0%} of prompts share theirs"
    return None if best is None else best[1:]


def bag_of_tokens(prompts: Prompts, y: Classes, folds: Classes) -> Answers:
    """Logistic regression on how often each token is in the user's text (TF-IDF), no order.

    What it reads, the words give away without any model. Frequencies are those of the training
    folds.

    Raises:
        ValueError: if a fold's training prompts lack a class.
    """
    counts = _token_counts(prompts)
    n_classes = int(y.max()) + 1
    scores = np.empty((len(y), 1 if n_classes == 2 else n_classes))
    for fold in np.unique(folds):
        tested = folds == fold
        weighting = TfidfTransformer().fit(counts[~tested])
        solver = LogisticRegression(C=10.0, max_iter=10_000)
        solver.fit(weighting.transform(counts[~tested]), y[~tested])
        found = solver.decision_function(weighting.transform(counts[tested]))
        scores[tested] = found.reshape(int(tested.sum()), -1)
    return Answers(y, scores[None])


def random_weights(model: Model, seed: int = 0) -> Any:
    """A copy of the model in which the numbers of each weight tensor are in random order.

    What a probe reads of it comes from the tokens and the architecture, and was not learnt.

    Source: Zhang and Bowman 2018, section 4, arXiv 1809.10040 (untrained encoders as a baseline).
    """
    copied = copy_of(model)
    for number, weights in enumerate(parts_from_output(copied).values()):
        shuffle_weights(weights, [seed, number])
    return copied


def _token_counts(prompts: Prompts) -> Float[Any, "prompt type"]:
    rows, columns = [], []
    for row, (ids, roles) in enumerate(zip(prompts.tokens.tolist(), prompts.roles, strict=True)):
        said = [i for i, role in zip(ids, roles, strict=False) if role == "text"]
        rows += [row] * len(said)
        columns += said
    seen, at = np.unique(columns, return_inverse=True)
    shape = (len(prompts), max(1, len(seen)))
    return sparse.csr_matrix((np.ones(len(rows)), (rows, at)), shape=shape)


def _drawn(draw: Callable[[], Classes], y: Classes, folds: Classes | None, name: str) -> Classes:
    """Labels of which each fold has all classes to be trained on."""
    n_classes = len(np.unique(y))
    for _ in range(_TRIES):
        labels = draw()
        trained = [labels] if folds is None else [labels[folds != f] for f in np.unique(folds)]
        if all(len(np.unique(each)) == n_classes for each in trained):
            return labels
    raise ValueError(
        f"{name}: in {_TRIES} draws some fold always lacked a class to be trained on. There are "
        f"too few prompts of a class: add some, or use fewer folds."
    )
