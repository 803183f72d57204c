"""Does a method look at what was learnt? Its scores, while the weights are shuffled layer by layer.

Scores that stay as they are when the model's weights are destroyed say nothing about what the model
learnt. From the output down, one part after another gets its weights in random order, and the
scores are compared with those of the trained model:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.single_removal import single_removals
>>> from mechinterp.attribution.trust.randomization import cascading_randomization
>>> question = ask(load_model("toy:induction-trained"), "a b c d e f g h a b c", outputs=1)
>>> found = cascading_randomization(question, single_removals)
>>> found["part"].values.tolist()
['unembed', 'L1', 'L0', 'embed']
>>> bool((abs(found[-1]) < 0.7).all())
True

A faithful method's correlation falls. That it falls does not make a method faithful: random scores
have none to begin with.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from mechinterp import models
from mechinterp.attribution.question.definition import Question
from mechinterp.attribution.trust.faithfulness import rank_correlation
from mechinterp.models.weights import copy_model, shuffle_weights, weights_by_part

Method = Callable[[Question], xr.DataArray]
"""Makes the scores that answer a question, such as `leave_one_out`."""


def cascading_randomization(
    question: Question,
    method: Method,
    *,
    steps: Sequence[int] | None = None,
    seed: int = 0,
) -> xr.DataArray:
    """How alike the scores are to those of the trained model: dims (n_randomized, output).

    Spearman's correlation of the signed scores over the units up to the output, -1 to 1; 0 if the
    randomized model's are all equal, NaN if the trained one's are, or of fewer than 3 units.

    `n_randomized` parts have random weights, from the output down: the unembedding with the final
    norm, the last layer to the first, then the embeddings with all else. Of each weight tensor the
    numbers are put in random order, so that their mean, spread and outliers stay (the source draws
    new ones as at the start of training). `part` names the last of them. `steps`: at which numbers
    of parts the method runs, such as `[1, 2, 4, 8]`; by default at every one. The outputs stay
    those of the trained model. `model` is copied once, and not changed.

    Raises:
        ValueError: if a step is out of range, or the model has somebody's hooks, which a copy
            would lose.
        HookError: as the method.

    Source: Adebayo et al. 2018, section 3.1, arXiv 1810.03292.
    """
    if models.has_foreign_hooks(question.model):
        raise ValueError(
            "somebody's hooks are on the model, and its copy would run without them. Remove them "
            "before: model.reset_hooks(including_permanent=True)."
        )
    n_parts = question.model.cfg.n_layers + 2
    wanted = sorted(set(range(1, n_parts + 1) if steps is None else steps))
    if not wanted or wanted[0] < 1 or wanted[-1] > n_parts:
        raise ValueError(
            f"steps={list(wanted)}: numbers of parts from 1 to {n_parts}, which are the "
            f"unembedding, {n_parts - 2} layers and the embeddings."
        )
    trained = method(question).values[:, question.attributed]
    copied = copy_model(question.model)
    parts = list(weights_by_part(copied).items())
    past = question.pasts
    alike = np.full((len(wanted), len(past)), np.nan)
    for n_before, n in itertools.pairwise([0, *wanted]):
        for number in range(n_before, n):
            shuffle_weights(parts[number][1], [seed, number])
        now = method(question.on(copied)).values[:, question.attributed]
        alike[wanted.index(n)] = [
            rank_correlation(now[i, places], trained[i, places]) for i, places in enumerate(past)
        ]
    return xr.DataArray(
        alike,
        dims=("n_randomized", "output"),
        name="rank_correlation",
        coords={
            "n_randomized": wanted,
            "part": ("n_randomized", [parts[n - 1][0] for n in wanted]),
            "output": range(len(past)),
            "output_token": ("output", list(question.output_texts)),
        },
        attrs={
            "prompt": question.text,
            "metric": question.metric.name,
            "seed": seed,
            "randomization": "the numbers of each weight tensor in random order",
        },
    )
