"""Do scores depend on what was learnt? Compare them while weights are shuffled layer by layer.

Scores that survive the destruction of the weights say nothing about what the model learnt. From the
output down, one part after another gets its weights in random order, and the scores are compared
with those of the trained model:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.single_removal import single_removals
>>> from mechinterp.attribution.trust.randomization import cascading_randomization
>>> question = ask(load_model("toy:induction-trained"), "a b c d e f g h a b c", outputs=1)
>>> found = cascading_randomization(question, single_removals)
>>> found["part"].values.tolist()
['unembed', 'L1', 'L0', 'embed']
>>> bool((abs(found[-1]) < 0.7).all())
True

The correlation of a faithful method falls. The converse does not hold: random scores have no
correlation to begin with.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from mechinterp import models
from mechinterp.attribution.question.definition import Question
from mechinterp.attribution.trust.faithfulness import rank_correlation
from mechinterp.core.arguments import checks_arguments
from mechinterp.models.weights import copy_model, shuffle_weights, weights_by_part

Scorer = Callable[[Question], xr.DataArray]
"""A function from a question to its scores, such as `leave_one_out`."""


@checks_arguments
def cascading_randomization(
    question: Question,
    method: Scorer,
    *,
    steps: Sequence[int] | None = None,
    seed: int = 0,
) -> xr.DataArray:
    """How alike the scores are to those of the trained model: dims (n_randomized, output).

    Spearman's correlation of the signed scores over the units up to the output, -1 to 1; 0 if the
    randomized model's are all equal; NaN if the trained model's are, or for fewer than 3 units.

    `n_randomized` parts have shuffled weights, from the output down: the unembedding with the final
    norm, the layers from last to first, then the embeddings with all else. Shuffling the numbers of
    a weight tensor keeps their mean, spread and outliers (the source draws new ones as at the start
    of training). `part` names the part shuffled last. `steps`: the numbers of parts at which the
    method runs, such as `[1, 2, 4, 8]`; by default every one. The outputs stay those of the trained
    model. The model is copied once, and not changed.

    Raises:
        ValueError: if a step is out of range, or the model has foreign hooks, which a copy would
            lose.
        HookError: as the method.

    Source: Adebayo et al. 2018, section 3.1, arXiv 1810.03292.
    """
    if models.has_foreign_hooks(question.model):
        raise ValueError(
            "the model has foreign hooks, and its copy would run without them. Remove them first: "
            "model.reset_hooks(including_permanent=True)."
        )
    n_parts = question.model.cfg.n_layers + 2
    wanted = sorted(set(range(1, n_parts + 1) if steps is None else steps))
    if not wanted or wanted[0] < 1 or wanted[-1] > n_parts:
        raise ValueError(
            f"steps={list(wanted)}: give numbers of parts from 1 to {n_parts}. The parts are the "
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
