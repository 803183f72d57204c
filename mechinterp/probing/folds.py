"""Stratified folds that never split a group.

>>> import numpy as np
>>> from mechinterp.probing.folds import grouped_folds
>>> y, groups = np.array([0, 1] * 6), np.repeat(range(6), 2)
>>> folds = grouped_folds(y, groups, n_folds=3, seed=0)
>>> sorted(set(zip(groups.tolist(), folds.tolist())))
[(0, 1), (1, 2), (2, 1), (3, 0), (4, 2), (5, 0)]
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from sklearn.model_selection import StratifiedGroupKFold

from mechinterp.core.arguments import checks_arguments


@checks_arguments
def grouped_folds(
    y: Int[np.ndarray, " prompt"],
    groups: Int[np.ndarray, " prompt"],
    *,
    n_folds: int = 5,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Int[np.ndarray, " prompt"]:
    """The fold, 0 to n_folds - 1, in which each prompt is tested by a probe fitted to the others.

    `classes`: the names of the classes, for messages.

    Raises:
        ValueError: if a class has fewer groups than there are folds, or a fold would not test, or
            not train on, some class.
    """
    if n_folds < 2:
        raise ValueError(
            f"n_folds={n_folds}: use at least two, to train on one and test on the other."
        )
    numbers = np.unique(y)
    names = [str(i) for i in numbers] if classes is None else list(classes)
    for number, name in zip(numbers, names, strict=True):
        n_groups = len(np.unique(groups[y == number]))
        if n_groups < n_folds:
            raise ValueError(
                f"class {name!r} has {n_groups} groups, fewer than {n_folds} folds: some fold "
                f"would not test it. Add groups of that class, or ask for {max(2, n_groups)} folds."
            )
    splitter = StratifiedGroupKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    folds = np.empty(len(y), dtype=int)
    for number, (_, tested) in enumerate(splitter.split(y[:, None], y, groups)):
        folds[tested] = number
    for number in range(n_folds):
        for which, there in (("tests no", folds == number), ("trains on no", folds != number)):
            lacks = [name for i, name in zip(numbers, names, strict=True) if i not in y[there]]
            if lacks:
                raise ValueError(
                    f"fold {number} {which} prompt of class {lacks[0]!r}: its groups are too few "
                    f"or too large. Use fewer folds, smaller groups, or another seed."
                )
    return folds
