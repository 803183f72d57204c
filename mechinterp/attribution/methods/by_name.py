"""The methods by name, each from a question to scores: for the command line, and for comparisons.

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.by_name import METHODS, How
>>> question = ask(load_model("toy:trigger"), "please bring the sesame", outputs=1)
>>> scores = {name: method(question, How(n_subsets=64)) for name, method in METHODS.items()}
>>> {str(found.input_token.values[abs(found).argmax("input").item()]) for found in scores.values()}
{'sesame'}

A method of your own is any function of a question that returns `scored(...)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import xarray as xr

from mechinterp.attribution.methods.attention import attention_rollout, value_weighted_attention
from mechinterp.attribution.methods.direct import direct_attribution
from mechinterp.attribution.methods.gradient import gradient_x_input, integrated_gradients
from mechinterp.attribution.methods.redundancy import pair_removals
from mechinterp.attribution.methods.single_removal import leave_one_out
from mechinterp.attribution.methods.subsets import kernel_shap, shapley, sparse_surrogate
from mechinterp.attribution.question.definition import Question
from mechinterp.attribution.question.removals import Removal, RemoveOne


@dataclass(frozen=True, eq=False)
class How:
    """What methods may be told; each takes what it has a use for.

    `options`: `budget_bytes` and `progress` of removals.
    """

    removal: str | RemoveOne | Removal = "delete"
    n_subsets: int = 256
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


Method = Callable[[Question, How], xr.DataArray]

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "single": lambda q, how: leave_one_out(q, how.removal, **how.options),
        "pairs": lambda q, how: pair_removals(q, how.removal, **how.options)["score"],
        "shapley": lambda q, how: shapley(q, how.removal, **how.options),
        "kernel_shap": lambda q, how: kernel_shap(
            q, how.n_subsets, how.removal, seed=how.seed, **how.options
        ),
        "surrogate": lambda q, how: sparse_surrogate(
            q, how.n_subsets, how.removal, seed=how.seed, **how.options
        ),
        "gradient": lambda q, how: gradient_x_input(q),
        "integrated_gradients": lambda q, how: integrated_gradients(q),
        "direct": lambda q, how: direct_attribution(q),
        "value_attention": lambda q, how: value_weighted_attention(q),
        "rollout": lambda q, how: attention_rollout(q),
    }
)
"""Name -> method: removals one at a time first, then sets of them, gradients, attention."""
