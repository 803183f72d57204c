"""Screen and measure: exact effects of the edges that an estimate ranks first, then ACDC on them.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, eap_ig, refine
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> scores, circuit = refine(contrast, eap_ig(contrast), k=20, tau=0.05)
>>> circuit.names
('input->a1.h0<k>', 'input->a1.h0<v>', 'a1.h0->logits')
"""

from pathlib import Path

import numpy as np

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.evaluation.faithfulness import Target, check_target
from mechinterp.circuits.scores.exact_edges import exact_edges
from mechinterp.circuits.search.acdc import acdc
from mechinterp.circuits.selection import top_n
from mechinterp.core.arguments import checks_arguments
from mechinterp.sweeps.options import Progress


@checks_arguments
def refine(
    contrast: Contrast,
    scores: EdgeScores,
    *,
    k: int = 1000,
    tau: float,
    target: Target = "model",
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[EdgeScores, Circuit]:
    """The scores, made exact for the `k` largest, and the circuit that remains of these edges.

    Of the `k` edges those remain whose exact effect has a size of at least `tau`, in the metric's
    unit. Then `acdc` with `tau` removes what the others make superfluous: `target` says whether the
    metric shall stay near the model's own or only not fall. `attrs["exact_edges"]`: how many scores
    are exact; the rest are as given. `out`: as in `exact_edges`.

    Raises:
        ValueError: as `top_n`, `exact_edges` and `acdc`.
    """
    check_target(target)
    measured = exact_edges(contrast, top_n(scores, k), out=out, progress=progress)
    is_exact = np.isfinite(measured.mean)
    mixed = np.where(is_exact[..., None], measured.per_pair.values, scores.per_pair.values)
    attrs = {
        **contrast.describe(),
        "method": f"{scores.per_pair.attrs.get('method', 'given')}, then exact",
        "exact_edges": int(is_exact.sum()),
    }
    with np.errstate(invalid="ignore"):
        strong = Circuit(contrast.graph, is_exact & (np.abs(measured.mean) >= tau)).pruned()
    circuit = acdc(contrast, tau, strong, target=target, progress=progress)
    return EdgeScores.from_array(contrast.graph, mixed, **attrs), circuit
