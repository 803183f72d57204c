"""EAP with other backward rules: the values are the model's own, the gradients are not.

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

A gradient tells the effect of a small change; cutting an edge is a large one. These rules treat the
scale of a norm as a constant, and give each factor of a gated product half of the gradient. They
cost one pass, as `eap` does. On SmolLM2-135M they find better circuits: for indirect objects the
area between faithfulness and 1 (CMD, see `faithfulness_curve`) is 0.033 by `eap`, 0.017 by `relp`,
0.019 by `gim` and 0.006 by `eap_ig` with five points. `eap` ranks edges with small effects better,
for which the plain gradient is right.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from mechinterp import models
from mechinterp.circuits.circuit import EdgeScores
from mechinterp.circuits.contrast import Contrast, Resid
from mechinterp.circuits.scores.eap import score_at_base, score_edges
from mechinterp.circuits.scores.relp_gim_layers import (
    BackwardRuleLayer,
    InteractionLayer,
    RelevanceLayer,
    freeze_scale,
)
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import takes_gradients
from mechinterp.models.layer_parts import Layer
from mechinterp.models.model import Model

LayerFactory = Callable[[Model, int], BackwardRuleLayer]
"""Makes a layer with backward rules from a model and the layer's number."""


@checks_arguments
@takes_gradients
def relp(contrast: Contrast) -> EdgeScores:
    """Relevance patching: EAP with the propagation rules of LRP in place of the gradient.

    Norms: the scale is a constant. Activations: f(x) is x times the constant f(x)/x. Gated
    products: half to each factor. Attention keeps its gradient: a rule that treats the pattern
    as a constant would give no score to any query or key input. `attrs` as `eap`.

    Raises:
        HookError: if a norm or an MLP is of an unknown kind.
        ValueError: if the metric has no gradient.

    Source: Rezaei Jafari et al. 2025, arXiv 2508.21258, by the default rules of its code.
    """
    return _score_with_rules(contrast, "RelP", RelevanceLayer)


@checks_arguments
@takes_gradients
def gim(contrast: Contrast) -> EdgeScores:
    """Gradient interaction modifications: EAP with a backward pass that discounts self-repair.

    Norms: the scale is a constant. Softmax: the gradient is that at temperature 2, where other keys
    take over less from one that is lost. Products share their gradient: values and gates get 1/2,
    queries and keys 1/4. `attrs` as `eap`.

    Raises:
        HookError: if a norm or an MLP is of an unknown kind.
        ValueError: if the metric has no gradient.

    Source: Edin et al. 2025, arXiv 2505.17630, with the factors of its code.
    """
    return _score_with_rules(contrast, "GIM", InteractionLayer)


def _score_with_rules(contrast: Contrast, method: str, make_layer: LayerFactory) -> EdgeScores:
    began = time.perf_counter()
    own = {f.name: getattr(contrast, f.name) for f in fields(Contrast)}
    ruled = BackwardRuleContrast(**own, make_layer=make_layer)
    scores, attrs = score_at_base(ruled, score_edges, method)
    seconds = time.perf_counter() - began
    return EdgeScores.from_array(contrast.graph, scores, **attrs, seconds=seconds)


@dataclass(frozen=True, eq=False, repr=False)
class BackwardRuleContrast(Contrast):
    """The same two runs, with the backward rules of these layers."""

    make_layer: LayerFactory

    def layer(self, number: int) -> Layer:
        """A layer of the model, split into its parts, with its rules."""
        return self.make_layer(self.model, number)

    def normalized(self, resid: Resid) -> Resid:
        """The residual stream after the final norm; its scale is a constant going backward."""
        norm = models.final_norm(self.model)
        return resid if norm is None else freeze_scale(norm)(resid)
