"""EAP with other rules of going backward: values as the model has them, gradients that it has not.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, gim, relp
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> sorted(name for name, score in relp(contrast).strongest(3))
['a1.h0->logits', 'input->a1.h0<k>', 'input->a1.h0<v>']
>>> gim(contrast).per_pair.attrs["method"]
'GIM'

A gradient says what a small change does; a cut edge is a large one. These rules take the scale of
a norm for a constant, and let each factor of a gated product have half. They cost one pass, as
`eap` does. On SmolLM2-135M they find better circuits: of indirect objects the area between
faithfulness and 1 (CMD, see `faithfulness_curve`) is 0.033 by `eap`, 0.017 by `relp`, 0.019 by
`gim` and 0.006 by `eap_ig` with five points. Of edges that do little, where the gradient is right
as it is, `eap` has the better ranks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from mechinterp import models
from mechinterp.circuits.circuit import EdgeScores
from mechinterp.circuits.contrast import Contrast, Resid
from mechinterp.circuits.scores.eap import scored_edges, unchanged
from mechinterp.circuits.scores.relp_gim_layers import (
    InteractionLayer,
    RelevanceLayer,
    RuledLayer,
    with_constant_scale,
)
from mechinterp.models.layer_parts import Layer

Made = Callable[[Any, int], RuledLayer]
"""A layer with rules, of a model and the layer's number."""


def relp(contrast: Contrast) -> EdgeScores:
    """Relevance patching: EAP with the propagation rules of LRP in place of the gradient.

    Norms: the scale is a constant. Activations: f(x) is x times the constant f(x)/x. Gated
    products: half to each factor. Attention keeps its gradient: the rule that takes the pattern
    for a constant would leave no score to any query or key input. `attrs` as `eap`.

    Raises:
        HookError: if a norm or an MLP is none that is known.
        ValueError: if the metric has no gradient.

    Source: Rezaei Jafari et al. 2025, arXiv 2508.21258, by the default rules of its code.
    """
    return _scored(contrast, "RelP", RelevanceLayer)


def gim(contrast: Contrast) -> EdgeScores:
    """Gradient interaction modifications: EAP with a backward pass that discounts self-repair.

    Norms: the scale is a constant. Softmax: the gradient is that at temperature 2, where other keys
    do not take over from one that is lost. Where things are multiplied, each gets its part: values
    and gates 1/2, queries and keys 1/4. `attrs` as `eap`.

    Raises:
        HookError: if a norm or an MLP is none that is known.
        ValueError: if the metric has no gradient.

    Source: Edin et al. 2025, arXiv 2505.17630, with the factors of its code.
    """
    return _scored(contrast, "GIM", InteractionLayer)


def _scored(contrast: Contrast, method: str, layer: Made) -> EdgeScores:
    began = time.perf_counter()
    ruled = Ruled(**{f.name: getattr(contrast, f.name) for f in fields(Contrast)}, made=layer)
    scores, attrs = unchanged(ruled, scored_edges, method)
    return EdgeScores.from_array(
        contrast.graph, scores, **attrs, seconds=time.perf_counter() - began
    )


@dataclass(frozen=True, eq=False, repr=False)
class Ruled(Contrast):
    """The same two runs, whose gradients go by the rules of these layers."""

    made: Made

    def layer(self, number: int) -> Layer:
        """A layer in parts, with its rules."""
        return self.made(self.model, number)

    def normalized(self, resid: Resid) -> Resid:
        """The residual stream after the final norm, whose scale is a constant."""
        norm = models.final_norm(self.model)
        return resid if norm is None else with_constant_scale(norm)(resid)
