"""The exact effect of each edge: cut it alone, and let everything after its reader respond.

>>> from mechinterp import Pair, load_model, log_prob, token_id, tokenize
>>> from mechinterp.circuits import Contrast, exact_edges
>>> model = load_model("toy:trigger")
>>> texts = "please bring the sesame", "please bring the letter"
>>> pair = Pair(*(tokenize(model, text) for text in texts))
>>> scores = exact_edges(Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE"))))
>>> [name for name, score in scores.strongest(3)]
['input->a1.h0<v>', 'a1.h0->logits', 'input->a1.h0<k>']
"""

import time
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from mechinterp.circuits.circuit import Circuit, EdgeScores
from mechinterp.circuits.contrast import Contrast
from mechinterp.circuits.scores.edge_runs import (
    changed_writers,
    chosen_edges,
    score_chunk,
    split_edges,
)
from mechinterp.core.arguments import checks_arguments
from mechinterp.sweeps.options import Progress
from mechinterp.sweeps.planner import CPU_POSITIONS
from mechinterp.sweeps.resumable import SweepFolder, sweep_facts


@checks_arguments
def exact_edges(
    contrast: Contrast,
    edges: Circuit | None = None,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> EdgeScores:
    """The exact effect of every edge, or of those chosen, by pair; in the metric's unit.

    With "noise": how far the metric falls when this edge alone carries its replacement; with
    "denoise": how far it rises. Positive: the edge supports what the metric measures. Edges that
    were not chosen are NaN. `out`: a folder for finished parts, from which an interrupted run
    continues. `progress`: a function of (done, all), such as `progress_bar("edges")`.

    Raises:
        HookError: if an effect is not finite, naming the edge.
        ValueError: if the edges belong to another graph, or `out` holds something else.

    Source: path patching of single edges, Goldowsky-Dill et al. 2023, arXiv 2304.05969.
    """
    began = time.perf_counter()
    graph = contrast.graph
    wanted = chosen_edges(contrast, edges)
    parts = None
    if out is not None:
        parts = SweepFolder(out, _facts(contrast, out, wanted), None, CPU_POSITIONS)
    effects = np.full((*wanted.shape, contrast.n_pairs), np.nan)
    changed = changed_writers(contrast)[:, None]
    effects[wanted & ~changed] = 0.0  # replaced by an equal value
    chunks = list(split_edges(contrast, wanted & changed))
    done, total = 0, sum(chunk.cost for chunk in chunks)
    for number, chunk in enumerate(chunks):
        if progress is not None:
            progress(done, total)
        indices = tuple(np.array(chunk.edges).T)
        at = [int(i) for i in np.ravel_multi_index(indices, wanted.shape)]
        found = None if parts is None else parts.load_part(number, at)
        if found is None:
            found = score_chunk(contrast, chunk)[None]
            contrast.check_finite(found[0], [graph.edge_name(*edge) for edge in chunk.edges])
            if parts is not None:
                parts.save_part(number, at, found)
        effects[indices] = contrast.sign * (contrast.base_scores - found[0])
        done += chunk.cost
    if progress is not None:
        progress(done, total)
    attrs = {"method": "exact", "n_edges": int(wanted.sum()), **contrast.describe()}
    if parts is not None:
        parts.finish(len(chunks), {"attrs": attrs})
    return EdgeScores.from_array(graph, effects, **attrs, seconds=time.perf_counter() - began)


def _facts(
    contrast: Contrast, out: str | Path, wanted: Bool[np.ndarray, "writer reader pos"]
) -> dict[str, object]:
    """What must be equal for a run to continue from the parts of another."""
    specs = ["edges", contrast.graph, contrast.direction, contrast.change]
    return sweep_facts(contrast.model, out, contrast.prompts, specs, [contrast.metric], wanted)
