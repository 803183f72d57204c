"""Attribution methods by name, each a function from a question to scores.

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.by_name import METHODS, MethodOptions
>>> question = ask(load_model("toy:trigger"), "please bring the sesame", outputs=1)
>>> options = MethodOptions(n_subsets=64)
>>> scores = {name: method(question, options) for name, method in METHODS.items()}
>>> {str(found.input_token.values[abs(found).argmax("input").item()]) for found in scores.values()}
{'sesame'}

A method of your own is any function of a question that returns `label_scores(...)`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import xarray as xr

from mechinterp.attribution.methods.attention import attention_rollout, value_weighted_attention
from mechinterp.attribution.methods.direct import direct_attribution
from mechinterp.attribution.methods.gradient import gradient_x_input, integrated_gradients
from mechinterp.attribution.methods.redundancy import pair_removals
from mechinterp.attribution.methods.single_removal import leave_one_out
from mechinterp.attribution.methods.subsets import kernel_shap, shapley, sparse_surrogate
from mechinterp.attribution.question.definition import Question
from mechinterp.attribution.question.removals import Removal, RemoveOne
from mechinterp.sweeps.options import PassOptions


@dataclass(frozen=True, eq=False)
class MethodOptions:
    """Options of all methods; each method uses those that apply to it.

    `options`: `budget_bytes` and `progress` of removals.
    """

    removal: str | RemoveOne | Removal = "delete"
    n_subsets: int = 256
    seed: int = 0
    options: PassOptions = field(default_factory=PassOptions)


Method = Callable[[Question, MethodOptions], xr.DataArray]

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "single": lambda q, given: leave_one_out(q, given.removal, **given.options),
        "pairs": lambda q, given: pair_removals(q, given.removal, **given.options)["score"],
        "shapley": lambda q, given: shapley(q, given.removal, **given.options),
        "kernel_shap": lambda q, given: kernel_shap(
            q, given.n_subsets, given.removal, seed=given.seed, **given.options
        ),
        "surrogate": lambda q, given: sparse_surrogate(
            q, given.n_subsets, given.removal, seed=given.seed, **given.options
        ),
        "gradient": lambda q, given: gradient_x_input(q),
        "integrated_gradients": lambda q, given: integrated_gradients(q),
        "direct": lambda q, given: direct_attribution(q),
        "value_attention": lambda q, given: value_weighted_attention(q),
        "rollout": lambda q, given: attention_rollout(q),
    }
)
"""Name -> method: single removals first, then sets of removals, gradients, attention."""
