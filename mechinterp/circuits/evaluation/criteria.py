"""Which edges of a circuit are superfluous, which it lacks, and which back one another up.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Circuit, Contrast, redundancy
>>> model = load_model("toy:either")  # refuses if "copper" or "lantern" occurs
>>> texts = "bring the copper lantern", "bring the garden letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
>>> found = redundancy(contrast, Circuit.from_edges(contrast.graph, ["a0.h0->m0", "a0.h3->m0"]))
>>> both = found.sel(edge="a0.h0->m0", other="a0.h3->m0", pair=0)
>>> round(float(both["alone"]), 1), round(float(both["joint"]), 1)
(0.0, 8.0)

Of two edges that are each enough, as in an OR gate, neither has an effect alone. No method that
cuts edges one at a time can find them.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from mechinterp.circuits.circuit import Circuit
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.evaluation.faithfulness import evaluate, scale_to_model
from mechinterp.core.arguments import checks_arguments
from mechinterp.sweeps.options import Progress


@checks_arguments
def minimality(
    contrast: Contrast, circuit: Circuit, *, progress: Progress | None = None
) -> xr.DataArray:
    """What each edge of a circuit contributes to it: dims (edge, pair), in the metric's unit.

    It is how far the metric of the circuit falls when the edge is cut too. 0: the circuit does not
    need the edge; negative: the edge works against the rest.

    Raises:
        ValueError: as `evaluate`.

    Source: minimality, Wang et al. 2022, section 4.2, arXiv 2211.00593, of edges.
    """
    graph = circuit.graph
    each = [circuit - Circuit.from_edges(graph, [name]) for name in circuit.names]
    scores = evaluate(contrast, [circuit, *each], progress=progress)
    return xr.DataArray(
        contrast.sign * (scores[0] - scores[1:]),
        {"edge": list(circuit.names), "pair": range(contrast.n_pairs)},
        ("edge", "pair"),
        "contribution",
        contrast.describe(),
    )


@checks_arguments
def completeness(
    contrast: Contrast, circuit: Circuit, knocked: Sequence[Circuit] | None = None, *, seed: int = 0
) -> xr.Dataset:
    """Compare the model with the circuit when both lack some of the circuit's edges.

    For each set of edges knocked out of both: `circuit`, the faithfulness of the circuit without
    them; `model`, that of the model without them; `gap`, model - circuit; `edges`, their number. A
    gap far from 0 means that the model has other edges for the same behaviour, which the circuit
    lacks. Dims (knocked). `knocked`: by default the whole circuit, and ten random halves of it.

    Raises:
        ValueError: as `faithfulness`.

    Source: completeness, Wang et al. 2022, section 4.1, arXiv 2211.00593.
    """
    if knocked is None:
        draw = np.random.default_rng(seed)
        halves = [circuit.mask & (draw.random(circuit.mask.shape) < 0.5) for _ in range(10)]
        knocked = [circuit, *(Circuit(circuit.graph, half) for half in halves)]
    full = Circuit.full(circuit.graph)
    alone = {f"circuit {i}": circuit - out for i, out in enumerate(knocked)}
    whole = {f"model {i}": full - out for i, out in enumerate(knocked)}
    circuits = {**alone, **whole}
    scores = evaluate(contrast, [*circuits.values(), Circuit.empty(circuit.graph)])
    table = scale_to_model(contrast, circuits, scores[:-1], scores[-1])
    without, model = np.split(table["faithfulness"].values, 2)
    return xr.Dataset(
        {
            "circuit": ("knocked", without),
            "model": ("knocked", model),
            "gap": ("knocked", model - without),
            "edges": ("knocked", [out.n_edges for out in knocked]),
        },
        attrs=contrast.describe(),
    )


@checks_arguments
def redundancy(
    contrast: Contrast, edges: Circuit, *, progress: Progress | None = None
) -> xr.Dataset:
    """For every two edges, the effect of cutting both beyond cutting each: (edge, other, pair).

    `alone`: the effect of cutting `edge`; `joint`: of cutting both; `interaction`: joint minus both
    alone, in the metric's unit. Positive: each backs the other up, so that neither shows its whole
    effect alone. Negative: one needs the other, so that one cut does the damage of both. n edges
    take n (n + 1) / 2 runs: choose those that are strong by exact effects, or by a gradient at the
    other run.

    Raises:
        ValueError: as `evaluate`.
    """
    graph, names = edges.graph, list(edges.names)
    cuts = [(i, j) for i in range(len(names)) for j in range(i, len(names))]
    full = Circuit.full(graph)
    without = [full - Circuit.from_edges(graph, {names[i], names[j]}) for i, j in cuts]
    scores = evaluate(contrast, without, progress=progress) if cuts else np.zeros((0, 1))
    joint = np.zeros((len(names), len(names), contrast.n_pairs))
    for (i, j), score in zip(cuts, scores, strict=True):
        joint[i, j] = joint[j, i] = contrast.sign * (contrast.base_scores - score)
    alone = joint[np.arange(len(names)), np.arange(len(names))]
    dims = ("edge", "other", "pair")
    interaction = joint - alone[:, None] - alone[None]
    interaction[np.arange(len(names)), np.arange(len(names))] = 0.0
    return xr.Dataset(
        {
            "alone": (("edge", "pair"), alone),
            "joint": (dims, joint),
            "interaction": (dims, interaction),
        },
        {"edge": names, "other": names, "pair": range(contrast.n_pairs)},
        contrast.describe(),
    )
