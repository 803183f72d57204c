"""From positions to units, for methods that score every position at once.

Gradients, attention and direct attribution give a number for each position. A unit's score is the
sum over its positions:

>>> import numpy as np
>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.positions import sum_by_unit
>>> spans = {"please": 1, "the rest": (2, 4)}
>>> question = ask(load_model("toy:trigger"), "please bring the sesame", 1, units=spans)
>>> sum_by_unit(question, np.array([[50.0, 1.0, 2.0, 3.0, 4.0]])).tolist()
[[1.0, 9.0]]
"""

import numpy as np
from jaxtyping import Float

from mechinterp.attribution.question.definition import Question


def sum_by_unit(
    question: Question, each: Float[np.ndarray, "output ... pos"]
) -> Float[np.ndarray, "output ... attributed"]:
    """The sum over the positions of each attributed unit; exactly 0 where an output cannot see it.

    Axes between the first and the last are kept.
    """
    seen = np.arange(each.shape[-1]) <= np.array(question.rows)[:, None]
    seen = seen.reshape(len(seen), *[1] * (each.ndim - 2), -1)
    past = np.where(seen, each, 0.0)
    units = (question.positions([number]) for number in question.attributed)
    return np.stack([past[..., list(positions)].sum(-1) for positions in units], -1) + 0.0
