"""Controls for probes: the majority, shuffled labels, a control task, the tokens alone.

>>> import numpy as np
>>> from mechinterp.probing.controls import control_labels
>>> words = ["how", "how", "what", "what", "why", "why", "when", "when"]
>>> control_labels(words, np.array([0, 1] * 4), seed=0).tolist()
[1, 1, 0, 0, 0, 0, 1, 1]

A high accuracy alone says nothing. One class may be most of the prompts; many features fit any
labels; a probe can memorise an answer for each word; and the words alone may give the label away.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from jaxtyping import Int
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.prompts import Prompts
from mechinterp.models.model import Model
from mechinterp.models.weights import copy_model, shuffle_weights, weights_by_part
from mechinterp.probing.measures import Answers

Classes = Int[np.ndarray, " prompt"]
_TRIES = 50


@checks_arguments
def majority(y: Classes, folds: Classes) -> Answers:
    """Answers with the most frequent class of the training folds."""
    n_classes = int(y.max()) + 1
    counts = np.zeros((len(y), n_classes))
    for fold in np.unique(folds):
        counts[folds == fold] = np.bincount(y[folds != fold], minlength=n_classes)
    most = np.eye(n_classes)[counts.argmax(1)]
    scores = most if n_classes > 2 else 2 * most[:, 1:] - 1
    return Answers(y, scores[None])


@checks_arguments
def shuffled_labels(y: Classes, groups: Classes, folds: Classes, seed: int) -> Classes:
    """The same labels in random order, so that only chance connects them to the prompts.

    If each group has one label, groups are permuted, so that members keep the same label; else
    prompts are permuted.

    Raises:
        ValueError: if in each of 50 orders some fold's training prompts lack a class.
    """
    first = np.unique(groups, return_index=True)[1]
    rng = np.random.default_rng([seed, 0])
    if (y == y[first][groups]).all():
        return _draw_labels(lambda: rng.permutation(y[first])[groups], y, folds, "shuffled labels")
    return _draw_labels(lambda: rng.permutation(y), y, folds, "shuffled labels")


@checks_arguments
def control_labels(
    types: Sequence[Hashable], y: Classes, seed: int, *, folds: Classes | None = None
) -> Classes:
    """The control task: a random label for each type, the same for all prompts of that type.

    Classes are about as frequent as in `y`. A probe can only memorise these labels; its
    selectivity is how much better it does on the real ones.

    Raises:
        ValueError: if there are fewer types than classes, or as `shuffled_labels`.

    Source: Hewitt and Liang 2019, section 2, arXiv 1909.03368.
    """
    number = {kind: i for i, kind in enumerate(dict.fromkeys(types))}
    kinds = np.array([number[kind] for kind in types])
    sizes, wanted = np.bincount(kinds), np.bincount(y).astype(float)
    if len(sizes) < len(wanted):
        raise ValueError(
            f"control task: {len(sizes)} types for {len(wanted)} classes. Give more types, such as "
            f"the first word of each prompt."
        )
    rng = np.random.default_rng([seed, 1])

    def draw() -> Classes:
        left, given = wanted.copy(), np.empty(len(sizes), dtype=int)
        for kind in rng.permutation(len(sizes)):
            # A class is drawn in proportion to the prompts that it still lacks.
            room = np.maximum(left, 0) + 1e-9
            given[kind] = rng.choice(len(wanted), p=room / room.sum())
            left[given[kind]] -= sizes[kind]
        labels: Classes = given[kinds]
        return labels

    return _draw_labels(draw, y, folds, "control task")


@checks_arguments
def word_types(
    prompts: Prompts, groups: Classes, position: int | str
) -> tuple[list[int], str] | None:
    """Types for a control task: each prompt's token at one place; and which place, in words.

    Candidates are the position that the probe reads and the first eight tokens of the user's text.
    The place is chosen where most prompts share their token with another group, since only such
    types can be memorised. None if no place has four types, shared by half of the prompts.
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


@checks_arguments
def bag_of_tokens(prompts: Prompts, y: Classes, folds: Classes) -> Answers:
    """Answers of logistic regression on token counts of the user's text (TF-IDF), without order.

    What it can read is given away by the words, without any model. Frequencies are those of the
    training folds.

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


@checks_arguments
def random_weights(model: Model, seed: int = 0) -> Model:
    """A copy of the model in which the numbers within each weight tensor are shuffled.

    What a probe reads off it comes from the tokens and the architecture, not from training.

    Source: Zhang and Bowman 2018, section 4, arXiv 1809.10040 (untrained encoders as a baseline).
    """
    copied: Model = copy_model(model)
    for number, weights in enumerate(weights_by_part(copied).values()):
        shuffle_weights(weights, [seed, number])
    return copied


def _token_counts(prompts: Prompts) -> sparse.csr_matrix:
    """How often each token occurs in the user's text: [prompt, token type]."""
    rows, columns = [], []
    for row, (ids, roles) in enumerate(zip(prompts.tokens.tolist(), prompts.roles, strict=True)):
        said = [i for i, role in zip(ids, roles, strict=False) if role == "text"]
        rows += [row] * len(said)
        columns += said
    seen, at = np.unique(columns, return_inverse=True)
    shape = (len(prompts), max(1, len(seen)))
    return sparse.csr_matrix((np.ones(len(rows)), (rows, at)), shape=shape)


def _draw_labels(
    draw: Callable[[], Classes], y: Classes, folds: Classes | None, name: str
) -> Classes:
    """Labels drawn until every fold has all classes among its training prompts."""
    n_classes = len(np.unique(y))
    for _ in range(_TRIES):
        labels = draw()
        trained = [labels] if folds is None else [labels[folds != f] for f in np.unique(folds)]
        if all(len(np.unique(each)) == n_classes for each in trained):
            return labels
    raise ValueError(
        f"{name}: in each of {_TRIES} draws the training prompts of some fold lacked a class. A "
        f"class has too few prompts: add some, or use fewer folds."
    )
